"""Results and files on disk: whole or not at all, named by what shaped them, and never run."""
