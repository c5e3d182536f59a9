"""BreedCAM's service: a photo in; breeds, heatmap, box and IoU out."""
