"""Models, stored results and jobs, shared by all readers; knows nothing of the screen."""
