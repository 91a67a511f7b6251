"""The state of a reader: what a link carries, and the steps that can be undone."""
