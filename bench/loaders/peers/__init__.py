"""One file a peer: ``epochs(windows, codec)`` opens a function that starts an epoch of batches."""
