"""`python -m benchmarks boxes`: the service's rule for boxes beside others, on training photos.

Nothing is fitted on the photos that it is measured on: see `benchmarks.boxes.crossfit`.
"""
