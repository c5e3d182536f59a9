"""What ends a run in one line."""

__all__ = ["BatchError"]


class BatchError(Exception):
    """An error that the user can fix; the message says how."""
