"""The dataset folder: written, read, checked. docs/format.md is its twin."""
