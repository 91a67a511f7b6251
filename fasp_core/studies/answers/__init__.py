"""What a model answers to a question, as numbers: read, sampled or whole, and how far groups are apart in them."""
