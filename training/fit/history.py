"""The figures of a run by epoch: `history.csv` and `curves.png`."""

import csv
import io
from pathlib import Path

from training.axes import span_decades
from training.files import atomic_write

__all__ = ["HISTORY_COLUMNS", "append", "plot", "read"]

HISTORY_COLUMNS = (
    "epoch",
    "size",
    "steps",
    "learning_rate",
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "seconds",
)


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a history; none if the file is missing."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append(path: Path, row: dict[str, str]) -> None:
    """Add an epoch's row; it replaces one that a killed run wrote before its checkpoint."""
    rows = [old for old in read(path) if int(old["epoch"]) < int(row["epoch"])] + [row]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, HISTORY_COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(path, text.getvalue())


def plot(path: Path) -> None:
    """Draw `curves.png` beside `history.csv`: loss and accuracy, training and validation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = read(path)
    epochs = [int(row["epoch"]) for row in rows]
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, name in zip(axes, ("loss", "accuracy"), strict=True):
        axis.plot(epochs, [float(row[name]) for row in rows], "o-", label="training")
        axis.plot(epochs, [float(row[f"val_{name}"]) for row in rows], "o-", label="validation")
        axis.set(xlabel="epoch", ylabel=name)
        values = [float(row[key]) for row in rows for key in (name, f"val_{name}")]
        if name == "loss" and span_decades(values):
            axis.set_yscale("log")
            axis.set_ylabel("loss (log)")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120, format="png")
    pyplot.close(figure)
    atomic_write(path.with_name("curves.png"), picture.getvalue())
