"""What stands around every page, and its settings."""
