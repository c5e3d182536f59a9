"""What can go wrong offline, in words for whoever runs the command.

TrainingError
├── DataError       the photos cannot be used
├── WeightsError    first weights that cannot be had
├── RunError        a run's directory that cannot be used
├── ExportError     a network that cannot be exported
└── ReportError     figures that cannot be told, or not there
"""

__all__ = ["DataError", "ExportError", "ReportError", "RunError", "TrainingError", "WeightsError"]


class TrainingError(Exception):
    """Something the user can mend; the message says how."""


class DataError(TrainingError):
    """The photos cannot be used."""


class WeightsError(TrainingError):
    """First weights that cannot be downloaded, found or read."""


class RunError(TrainingError):
    """A run's directory that is missing, taken or incomplete."""


class ExportError(TrainingError):
    """A network that cannot be exported; the message names the layer."""


class ReportError(TrainingError):
    """Figures that cannot be read, or a place that a report must not go to."""
