"""Benchmarks and the demo; nothing here is needed to use the project."""
