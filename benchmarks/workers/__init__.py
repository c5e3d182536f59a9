"""Worker processes of the parts, all with this project's own packages."""
