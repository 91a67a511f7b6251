"""What a model is able to do: multiple choice and last words by likelihood, with and without a prune set."""
