"""BreedCAM's service: a photo in; breeds, heatmap, box and IoU out."""

__version__ = "0.1.0"
