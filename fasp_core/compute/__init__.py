"""Where work runs: jobs with progress, shards for workers, and what exact scores would cost."""
