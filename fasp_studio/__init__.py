"""The command `fasp-studio`, and in an installation the app itself, below `site/`."""
