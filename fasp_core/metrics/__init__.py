"""What is measured of a model: perplexity, toxicity of the next word and of what is written."""
