"""The command line, `python -m fasp_core`: a module a command."""
