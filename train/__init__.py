"""The trainer: a plain loop with exact resume and visible stalls; evaluation and prediction."""
