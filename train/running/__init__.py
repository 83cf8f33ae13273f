"""A run: the loop and all that it needs."""
