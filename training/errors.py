"""The errors of the offline package, worded for the person who runs the command.

TrainingError
├── DataError       the photos cannot be used
├── WeightsError    the initial weights cannot be loaded
├── RunError        the directory of a run cannot be used
├── ExportError     the network cannot be exported
└── ReportError     the report cannot be made
"""

__all__ = ["DataError", "ExportError", "ReportError", "RunError", "TrainingError", "WeightsError"]


class TrainingError(Exception):
    """An error that the user can fix; the message says how."""


class DataError(TrainingError):
    """The photos cannot be used."""


class WeightsError(TrainingError):
    """The initial weights cannot be downloaded, are missing or cannot be read."""


class RunError(TrainingError):
    """The directory of a run is missing, in use or incomplete."""


class ExportError(TrainingError):
    """The network cannot be exported; the message names the layer."""


class ReportError(TrainingError):
    """The figures cannot be read, or the report must not be written to that directory."""
