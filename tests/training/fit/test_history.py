"""The curves of a run."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from training.fit.history import HISTORY_COLUMNS, append, plot


@pytest.mark.parametrize(("least", "scale"), [(0.05, "linear"), (0.04, "log")])
def test_loss_that_spans_decades_is_on_a_log_axis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: float, scale: str
) -> None:
    drawn: list[Figure] = []
    save = Figure.savefig

    def seen(figure: Figure, *options: Any, **named: Any) -> None:
        drawn.append(figure)
        save(figure, *options, **named)

    monkeypatch.setattr(Figure, "savefig", seen)
    path = tmp_path / "history.csv"
    for epoch, loss in enumerate((4.0, least)):
        row = dict.fromkeys(HISTORY_COLUMNS, "0.5") | {"accuracy": "0.001"}
        append(path, row | {"epoch": f"{epoch}", "loss": f"{loss}", "val_loss": "3"})

    plot(path)

    losses, accuracies = drawn[0].axes
    assert (losses.get_yscale(), accuracies.get_yscale()) == (scale, "linear")
    assert losses.get_ylabel() == ("loss (log)" if scale == "log" else "loss")
    assert accuracies.get_ylabel() == "accuracy"
    assert (tmp_path / "curves.png").is_file()
    assert not pyplot.get_fignums()
