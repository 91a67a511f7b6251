"""What removing each head does to perplexity and to the toxicity gap."""
