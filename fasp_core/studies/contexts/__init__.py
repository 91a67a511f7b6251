"""Audits of instruct models by context: numbers that they answer about named persons (Ma et al., arXiv 2502.07771)."""
