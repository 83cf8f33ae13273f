"""The frames of a sequence, cut to the face."""
