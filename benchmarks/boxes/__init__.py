"""`python -m benchmarks boxes`: today's rule for the box beside others, on training photos.

Nothing is fitted on what it is measured on: see `benchmarks.boxes.crossfit`.
"""
