"""The page "Presentation": five steps for those who have to decide, one screen each, and a hand-out of two pages."""
