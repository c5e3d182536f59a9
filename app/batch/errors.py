"""What ends a run in one line."""

__all__ = ["BatchError", "UsageError"]


class BatchError(Exception):
    """An error that the user can fix; the message says how."""


class UsageError(BatchError):
    """An option that cannot be right, or not with the others."""
