"""Which sample, which window, which crop: arithmetic only."""
