"""The page "Contexts": `contexts.py`, and its parts."""
