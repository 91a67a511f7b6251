"""The page "Scorecard": `scorecard.py`."""
