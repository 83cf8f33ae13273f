"""A drawn release with known motion."""
