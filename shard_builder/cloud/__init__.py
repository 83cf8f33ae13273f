"""Datasets in object storage: addresses, requests, and what is kept of them on this machine."""
