"""All that wants a GPU."""
