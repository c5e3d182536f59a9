"""Export: a network and its explanations as a model version on disk.

From a run, a Keras model or ImageNet's weights, with what training photos teach.
"""
