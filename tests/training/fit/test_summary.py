import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app import images
from app.bundle import Label
from tests.training.pictures import LABELS, dataset
from tests.training.small_networks import tiny_net
from training.config import Stage, TrainConfig
from training.fit.run import Run
from training.fit.summary import confusion, figures, plot, summarise, table

TRIO = tuple(Label(index=index, name=name) for index, name in enumerate(("beagle", "dingo", "pug")))


def test_confusion_counts_rows_by_truth() -> None:
    counts = confusion([0, 0, 0, 1, 1, 0], [0, 1, 1, 1, 0, 2], 4)

    assert counts.tolist() == [[1, 2, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_figures_worked_out_by_hand() -> None:
    summary = figures(np.array([[6, 1, 1], [3, 1, 0], [0, 0, 4]]), TRIO)

    assert summary["photos"] == 16
    assert summary["accuracy"] == pytest.approx(11 / 16, abs=1e-4)
    assert summary["mean_class_accuracy"] == pytest.approx((0.75 + 0.25 + 1) / 3, abs=1e-4)
    assert [(row["photos"], row["right"], row["accuracy"]) for row in summary["classes"]] == [
        (8, 6, 0.75),
        (4, 1, 0.25),
        (4, 4, 1.0),
    ]
    assert summary["most_confused"] == [
        {"label": "dingo", "taken_for": "beagle", "photos": 3, "share": 0.75},
        {"label": "beagle", "taken_for": "dingo", "photos": 1, "share": 0.125},
        {"label": "beagle", "taken_for": "pug", "photos": 1, "share": 0.125},
    ]
    assert summary["confusion"] == [[6, 1, 1], [3, 1, 0], [0, 0, 4]]


def test_class_without_photos_counts_for_nothing() -> None:
    summary = figures(np.array([[2, 0, 0], [0, 0, 0], [0, 0, 1]]), TRIO)

    assert (summary["accuracy"], summary["mean_class_accuracy"]) == (1.0, 1.0)
    assert summary["classes"][1]["accuracy"] is None
    assert summary["most_confused"] == []
    assert "most confused" not in table(summary)


def test_no_photos_at_all() -> None:
    summary = figures(np.zeros((3, 3), np.int64), TRIO)

    assert summary["accuracy"] is summary["mean_class_accuracy"] is None
    assert "accuracy - over 0 photos" in table(summary)


def test_only_the_most_confused_pairs_are_told() -> None:
    labels = [Label(index=index, name=f"class {index}") for index in range(5)]
    counts = np.arange(25).reshape(5, 5)

    pairs = figures(counts, labels)["most_confused"]

    assert [pair["photos"] for pair in pairs] == [23, 22, 21, 20, 19, 17, 16, 15, 14, 13]


def test_table_has_the_worst_class_first() -> None:
    text = table(figures(np.array([[6, 1, 1], [3, 1, 0], [0, 0, 4]]), TRIO))

    assert text.splitlines() == [
        "validation: accuracy 0.688 over 16 photos, mean of the classes 0.667",
        "",
        "class   photos  right  accuracy",
        "dingo        4      1     0.250",
        "beagle       8      6     0.750",
        "pug          4      4     1.000",
        "",
        "most confused:",
        "  dingo, taken for beagle: 3 photos (75%)",
        "  beagle, taken for dingo: 1 photos (12%)",
        "  beagle, taken for pug: 1 photos (12%)",
    ]


def test_picture_has_a_dark_cell_where_the_photos_are(tmp_path: Path) -> None:
    """All of a class on the diagonal, against all of it one beside."""
    pictures = []
    for shift in (0, 1):
        plot(np.roll(np.diag([5, 5, 5]), shift, axis=1), TRIO, tmp_path / "confusion.png")
        pictures.append(np.asarray(Image.open(tmp_path / "confusion.png").convert("L"), int))
    kept, moved = pictures

    assert kept.shape == moved.shape
    for cells, slope in ((kept - moved < -100, 1), (moved - kept < -100, -1)):
        rows, columns = np.nonzero(cells)
        assert len(rows) > 10_000
        together = np.mean((rows - rows.mean()) * (columns - columns.mean()))
        assert slope * together / (rows.std() * columns.std()) > 0.3


def test_picture_of_120_classes_has_room_for_each_name(tmp_path: Path) -> None:
    labels = [Label(index=index, name=f"some long-haired breed {index}") for index in range(120)]

    plot(np.eye(120, dtype=np.int64), labels, tmp_path / "confusion.png")

    with Image.open(tmp_path / "confusion.png") as picture:
        assert 1800 < picture.height < 4000
        ink = np.asarray(picture.convert("L"))
    # The names' column, left of the matrix, has 120 lines of text: blank between them.
    matrix = np.argmax((ink < 255).mean(axis=0) > 0.5)
    rows = (ink[:, 30 : matrix - 20] < 128).any(axis=1)
    assert int(np.sum(np.diff(rows.astype(int)) == 1)) >= 110


def test_summary_is_of_the_best_weights_and_the_served_decoding(tmp_path: Path) -> None:
    config = TrainConfig(
        weights="none",
        stages=(Stage(size=32, epochs=1),),
        input_size=48,
        batch_size=4,
        precision="float32",
    )
    run = Run(
        tmp_path / "run",
        config,
        dataset(train=4, held_out=6),
        build=lambda _config, labels: tiny_net(len(labels)),
    )
    run.model.save_weights(run.directory / "best.weights.h5")
    photos = np.stack(
        [
            images.squash(images.decode(example.read()).pixels, 48)
            for example in run.dataset.validation
        ]
    )
    expected = np.argmax(run.predict(photos.astype(np.float32)), axis=-1)
    head = run.model.get_layer("predictions")
    head.set_weights([-np.asarray(value) for value in head.get_weights()])  # the other way round

    text = summarise(run)

    stored = json.loads((run.directory / "summary.json").read_text())
    truth = [example.label for example in run.dataset.validation]
    assert stored["confusion"] == confusion(truth, expected.tolist(), 2).tolist()
    assert stored["photos"] == 6
    assert [row["synset"] for row in stored["classes"]] == [label.synset for label in LABELS]
    assert text == table(stored)
    assert (run.directory / "confusion.png").read_bytes().startswith(b"\x89PNG")
