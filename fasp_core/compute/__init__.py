"""Where work runs: jobs with progress, lanes, shards for workers, Dask."""
