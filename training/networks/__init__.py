"""Networks to train: their layers, first weights and preprocessing.

ResNet50, with ImageNet's weights from Keras or from files; EfficientNet-Lite2, with those of a
package; and a plain CNN.
"""
