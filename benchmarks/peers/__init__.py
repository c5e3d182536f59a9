"""Other packages' ways to the same heatmap. A `.txt` of the same name pins a peer's packages."""
