"""What a model is asked, and who judges what it says: prompts, text, scorers."""
