"""This project's loaders beside their peers."""
