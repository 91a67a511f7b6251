"""A model, where it comes from, what its files say, and what fits on its device."""
