"""What is in a dataset, as numbers and pictures."""
