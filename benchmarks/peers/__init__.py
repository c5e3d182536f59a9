"""Others' ways to the same heatmap, each with its pinned packages in a `.txt` of its name."""
