"""Fitting: a training run from first weights to its summary.

The loop, its devices, precision, learning rate, targets and checkpoints.
"""
