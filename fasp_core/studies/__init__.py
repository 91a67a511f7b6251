"""Experiments that say how far the numbers can be trusted, as commands that print Markdown or JSON."""
