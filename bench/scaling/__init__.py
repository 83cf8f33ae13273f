"""What grows with the number of samples."""
