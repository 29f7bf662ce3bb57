"""Applications that show insitu at work."""
