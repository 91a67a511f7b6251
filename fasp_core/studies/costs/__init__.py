"""Which measures of cost foretell what pruning takes from a model's abilities."""
