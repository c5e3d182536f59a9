"""Evaluation: photos through a model version, and metrics of the answers.

Inference is the service's own; `schema` is the JSON that `evaluate` writes.
"""
