"""Who trains and who validates by a set's own parts and lists."""
