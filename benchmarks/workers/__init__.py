"""Processes that the parts start and ask, all with this project's own packages."""
