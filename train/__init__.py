"""The trainer: a plain loop with AMP, channels_last, exact resume and visible stalls; evaluation
and prediction.
"""
