"""CK+ on disk to WebDataset shards: scan, frames, optical flow, tar shards, index, manifest.
Imports neither torch nor DALI.
"""
