"""Files of boxes: one module for each format, and what they all yield."""

from training.data.annotations.annotation import Annotation, PixelBox

__all__ = ["Annotation", "PixelBox"]
