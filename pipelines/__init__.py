"""Dataset folder to batches: the plan (order and augmentation as data) and the engines that carry
it out.
"""
