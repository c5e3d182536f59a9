"""The report: one HTML page from the JSON that `evaluate` writes.

Plots, sentences and tables; the page needs no network.
"""
