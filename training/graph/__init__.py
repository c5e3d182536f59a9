"""The exported graph: a classifier as operations, forwards and backwards.

It holds the reader of Keras models, the gradients and the formulas of the CAM methods.
"""
