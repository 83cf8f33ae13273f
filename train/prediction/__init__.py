"""What a trained net says of a new face."""
