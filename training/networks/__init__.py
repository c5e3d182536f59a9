"""Networks to train: their layers, first weights and preprocessing.

ResNet50, with ImageNet's weights from Keras or from files, and a plain CNN.
"""
