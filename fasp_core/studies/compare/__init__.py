"""FASP, the baselines and the search, chosen on validation prompts and claimed on test prompts."""
