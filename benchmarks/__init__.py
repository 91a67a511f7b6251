"""What the documents say of speed, as commands that print JSON: ratios measured side by side in one run."""
