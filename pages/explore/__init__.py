"""The page "Explore heads": `explore.py`, and its parts."""
