"""Calibration: thresholds, box rules and confidence, chosen on labelled photos.

`boxes` uses photos with boxes of the training split, `confidence` the validation split.
"""
