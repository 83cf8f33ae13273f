"""Sequences to shards, on this machine or a cluster."""
