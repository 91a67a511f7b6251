"""Bias suites of the field beside the gap: what a prune set does to each, both models on the same items."""
