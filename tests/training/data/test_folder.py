import json
import shutil
import unicodedata
import zipfile
from pathlib import Path

import httpx
import keras
import numpy as np
import pytest
from PIL import Image

from app import bundle as bundles
from app import heatmaps
from tests.app.services import serving
from tests.needs import shared
from tests.training.command_line import hint
from tests.training.folders import CLASSES, pixel_box, voc, write_photos
from tests.training.pictures import photo
from tests.training.small_networks import small_resnet
from training import cli
from training.data.dataset import Dataset
from training.data.folder import load_folder
from training.errors import DataError
from training.hints import command
from training.networks import architectures


def _names(dataset: Dataset) -> dict[str, set[str]]:
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    return {split: {example.name for example in examples} for split, examples in splits.items()}


def test_splits_are_drawn_from_each_class(tmp_path: Path) -> None:
    written = write_photos(tmp_path, 10)

    read = load_folder(tmp_path, test_share=0.2, validation_share=0.25)

    assert [(label.index, label.synset, label.name) for label in read.labels] == [
        (0, None, "blue dog"),
        (1, "n00000001", "red dog"),
    ]
    assert read.name == tmp_path.name
    for split in (read.train, read.validation, read.test):
        assert {example.label for example in split} == {0, 1}
    assert sum(read.sizes.values()) == len(written)
    names = _names(read)
    assert set.union(*names.values()) == {p.relative_to(tmp_path).as_posix() for p in written}
    for example in (*read.train, *read.validation, *read.test):
        assert example.label == (0 if example.name.startswith("blue dog/") else 1)
        assert example.boxes == ()
        assert isinstance(example.data, Path)
        assert example.read() == (tmp_path / example.name).read_bytes()


def test_seed_decides_and_other_photos_do_not_matter(tmp_path: Path) -> None:
    write_photos(tmp_path, 20)

    def drawn(seed: int) -> dict[str, set[str]]:
        return _names(load_folder(tmp_path, seed=seed, validation_share=0.25, test_share=0.25))

    first, again, other = (drawn(seed) for seed in (1, 1, 2))
    assert first == again
    assert first["test"] != other["test"]
    assert first["validation"] != other["validation"]

    gone = set(sorted(first["train"])[:3])
    for name in gone:
        (tmp_path / name).unlink()
    write_photos(tmp_path, 20, offset=20)
    grown = drawn(1)
    for name, photos in first.items():
        assert photos - gone <= grown[name]
    assert sum(map(len, grown.values())) == 77


def test_no_test_share(tmp_path: Path) -> None:
    write_photos(tmp_path, 2)

    assert load_folder(tmp_path, test_share=0).sizes == {"train": 2, "validation": 2, "test": 0}


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "validation", "test"),
        ("Training", "val", "TEST"),
        ("TRAIN", "Valid", "testing"),
        ("train", "dev", "test"),
        ("train", "eval", "test"),
    ],
)
def test_folders_of_splits(tmp_path: Path, train: str, validation: str, test: str) -> None:
    write_photos(tmp_path / train, 3)
    write_photos(tmp_path / validation, 1, offset=10)
    write_photos(tmp_path / test, 2, offset=20)

    read = load_folder(tmp_path)

    assert read.sizes == {"train": 6, "validation": 2, "test": 4}
    assert _names(read)["validation"] == {
        f"{validation}/{CLASSES[0]}/0-10.png",
        f"{validation}/{CLASSES[1]}/1-10.png",
    }


def test_validation_is_drawn_from_train_where_it_has_no_folder(tmp_path: Path) -> None:
    write_photos(tmp_path / "train", 8)
    write_photos(tmp_path / "test", 1, offset=20)

    read = load_folder(tmp_path, validation_share=0.25, test_share=0.5)

    assert read.sizes == {"train": 13, "validation": 3, "test": 2}
    assert all(example.name.startswith("train/") for example in read.validation)


def test_folder_to_test_with(tmp_path: Path) -> None:
    write_photos(tmp_path / "test", 2)

    assert load_folder(tmp_path).sizes == {"train": 0, "validation": 0, "test": 4}


def test_breeds_and_limit(tmp_path: Path) -> None:
    write_photos(tmp_path, 10)
    (tmp_path / "poodle").mkdir()
    (tmp_path / "poodle/p.png").write_bytes(photo(0, 0).read())

    read = load_folder(tmp_path, breeds=("RED_dog", "blue-dog"), limit=8)

    assert [label.name for label in read.labels] == ["blue dog", "red dog"]
    assert len(read.train) + len(read.validation) == 8
    assert len(read.test) == 2
    with pytest.raises(DataError, match=r"photos \(1\): .*, with --limit 2, need 2"):
        load_folder(tmp_path, breeds=("red-dog", "blue-dog"), limit=2)
    with pytest.raises(DataError, match=r"No such breed: dog\. Near: blue dog, red dog\."):
        load_folder(tmp_path, breeds=("dog", "poodle"))


def test_boxes_become_shares(tmp_path: Path) -> None:
    for path in write_photos(tmp_path, 4):
        label, index = map(int, path.stem.split("-"))
        path.with_suffix(".xml").write_text(voc(pixel_box(label, index)))

    read = load_folder(tmp_path)

    for example in (*read.train, *read.validation, *read.test):
        label, index = map(int, Path(example.name).stem.split("-"))
        np.testing.assert_allclose(example.boxes, photo(label, index).boxes)


def test_boxes_are_of_the_upright_photo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_photos(tmp_path, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, colour in (("right", "tan"), ("wrong", "grey")):
        Image.new("RGB", (80, 40), colour).save(tmp_path / f"blue dog/{name}.jpg", exif=exif)
    (tmp_path / "blue dog/right.xml").write_text(voc((0, 40, 20, 80), size=(40, 80)))
    (tmp_path / "blue dog/wrong.xml").write_text(voc((40, 0, 80, 20), size=(80, 40)))

    read = load_folder(tmp_path)

    boxes = {e.name: e.boxes for e in (*read.train, *read.validation, *read.test) if e.boxes}
    assert boxes == {"blue dog/right.jpg": ((0.0, 0.5, 0.5, 1.0),)}
    assert "wrong.jpg (blue dog/wrong.xml): box 40,0,80,20 belongs to an image of 80 x 40" in (
        capsys.readouterr().err
    )


def test_what_cannot_be_used_is_reported_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, *_ = write_photos(tmp_path, 4)
    red = whole.parent
    (red / "cut.png").write_bytes(whole.read_bytes()[:-200])
    for name in ("raw.cr2", "posing.jpg"):
        (red / name).write_bytes(b"no format of a photo")
    whole.with_suffix(".xml").write_text(voc((30, 1, 2, 3), pixel_box(0, 0)))
    (red / "gone.xml").write_text(voc((1, 2, 3, 4)))
    for side in (red / "a.mp4", red / "b.MP4", red / ".hidden.jpg", tmp_path / "readme.md"):
        side.write_bytes(b"no photo")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/only.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / ".cache").mkdir()

    read = load_folder(tmp_path)

    assert sum(read.sizes.values()) == 8
    assert [label.name for label in read.labels] == ["blue dog", "red dog"]
    errors = capsys.readouterr().err
    report = errors[errors.index("Left out:") :]
    assert [line.strip().split(":")[0] for line in report.splitlines()] == [
        "Left out",
        "empty",
        f"{red.name}/a.mp4, {red.name}/b.MP4",
        f"{red.name}/gone.xml",
        "broken/only.jpg",
        f"{red.name}/cut.png",
        f"{red.name}/posing.jpg, {red.name}/raw.cr2",
        f"{red.name}/0-0.png ({red.name}/0-0.xml)",
        "broken",
        "Left out in total",
    ]
    assert report.endswith("Left out in total: annotation 1, box 1, file 2, folder 2, photo 4.\n")
    kept = [e for e in (*read.train, *read.validation, *read.test) if e.boxes]
    assert [len(example.boxes) for example in kept] == [1]


def test_folder_within_a_class_of_a_split_may_be_called_like_a_split(tmp_path: Path) -> None:
    for name in ("train/a/0", "train/a/1", "train/b/0", "train/b/1", "test/a/eval/0", "test/b/2"):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (len(name), ord(name[-1]), ord(name[-3]))).save(path)

    dataset = load_folder(tmp_path)

    assert [example.name for example in dataset.test] == ["test/a/eval/0.png", "test/b/2.png"]


def test_class_with_a_name_that_no_model_can_hold(tmp_path: Path) -> None:
    for folder in ("a\u202eb", "c"):
        (tmp_path / folder).mkdir()
        for number in range(3):
            colour = (ord(folder[0]), number, 0)
            Image.new("RGB", (9, 9), colour).save(tmp_path / folder / f"{number}.png")

    with pytest.raises(DataError, match=r"^The class 'a\\u202eb': a name holds .* U\+202E\.$"):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        ({}, {}, "has no photos"),
        ({"beagle": 5}, {}, "two classes or more; the data holds 1"),
        ({"beagle": 3, "dingo": 2}, {}, r"Class dingo has too few photos \(2\): .*test need 3"),
        (
            {"beagle": 3, "dingo": 1},
            {"test_share": 0},
            r"dingo has too few photos \(1\): .*validation need 2",
        ),
        (
            {"train/beagle": 3, "train/dingo": 1},
            {},
            r"dingo has too few photos \(1\): .*validation need 2",
        ),
        (
            {"train/beagle": 3, "train/dingo": 3, "test/poodle": 1},
            {},
            "No training photo of poodle",
        ),
        (
            {"train/beagle": 3, "train/dingo": 3, "val/dingo": 1, "validation/dingo": 1},
            {},
            "two folders for validation: val and validation",
        ),
        (
            {"beagle/train": 3, "beagle/test": 1, "dingo/train": 3},
            {},
            "beagle/test is a split within a class.*: test/beagle",
        ),
        ({"beagle": 3, "Beagle": 3}, {}, "Beagle and beagle have the same name"),
    ],
)
def test_folders_that_cannot_be_used(
    tmp_path: Path, counts: dict[str, int], options: dict[str, float], message: str
) -> None:
    for label, (name, count) in enumerate(counts.items()):
        (tmp_path / name).mkdir(parents=True)
        for index in range(count):
            (tmp_path / name / f"{index}.png").write_bytes(photo(label, index).read())

    with pytest.raises(DataError, match=message):
        load_folder(tmp_path, test_share=options.get("test_share", 0.1))


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        load_folder(tmp_path / "none")


def test_folder_beside_those_of_splits_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(tmp_path / "train", 3)
    shutil.copytree(tmp_path / "train", tmp_path / "more")

    assert sum(load_folder(tmp_path).sizes.values()) == 6
    assert "more: beside the folders of splits, but is not a split" in capsys.readouterr().err


def test_copies_of_a_photo_are_kept_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(tmp_path, 12)
    before = _names(load_folder(tmp_path, test_share=0.25, validation_share=0.25))
    assert capsys.readouterr().err.count("Left out") == 0
    blue = tmp_path / "blue dog"
    for index in range(12):
        shutil.copy(blue / f"1-{index}.png", blue / f"1-{index} (1).png")
    (blue / "more").mkdir()
    shutil.copy(blue / "1-0.png", blue / "more/a.png")
    (blue / "1-0 (1).xml").write_text(voc(pixel_box(1, 0)))

    read = load_folder(tmp_path, test_share=0.25, validation_share=0.25)

    assert _names(read) == before
    boxes = {e.name: e.boxes for e in (*read.train, *read.validation, *read.test) if e.boxes}
    assert boxes.keys() == {"blue dog/1-0.png"}
    np.testing.assert_allclose(boxes["blue dog/1-0.png"], photo(1, 0).boxes)
    errors = capsys.readouterr().err
    assert "  blue dog/1-1 (1).png: a copy of blue dog/1-1.png\n" in errors
    assert "  blue dog/more/a.png: a copy of one in blue dog\n" in errors
    assert "Left out in total: photo 13.\n" in errors


def test_photo_of_two_splits_stays_in_the_test_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(tmp_path / "train", 6)
    write_photos(tmp_path / "test", 2)
    (tmp_path / "valid").symlink_to(tmp_path / "test")

    read = load_folder(tmp_path, validation_share=0.25)

    assert sum(read.sizes.values()) == 12
    assert read.sizes["test"] == 4
    assert {Path(name).parts[0] for name in _names(read)["validation"]} == {"train"}
    used = [Path(name).name for names in _names(read).values() for name in names]
    assert len(set(used)) == len(used)
    errors = capsys.readouterr().err
    folder = "n00000001-red_dog"
    assert (
        f"valid/{folder}/0-0.png, train/{folder}/0-0.png, valid/{folder}/0-1.png and 1 more: "
        f"a copy of one in test/{folder}\n"
    ) in errors
    assert "Left out in total: photo 8.\n" in errors


def test_photo_of_two_classes_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(tmp_path, 5)
    shutil.copy(tmp_path / "blue dog/1-0.png", tmp_path / "n00000001-red_dog/x.png")

    read = load_folder(tmp_path)

    assert sum(read.sizes.values()) == 9
    assert set.union(*_names(read).values()).isdisjoint(
        {"blue dog/1-0.png", "n00000001-red_dog/x.png"}
    )
    assert (
        "blue dog/1-0.png, n00000001-red_dog/x.png: the same photo is in blue dog and "
        "n00000001-red_dog\n"
    ) in capsys.readouterr().err


def test_two_classes_that_link_to_one_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(tmp_path, 3)
    (tmp_path / "green dog").symlink_to(tmp_path / "blue dog")

    with pytest.raises(DataError, match="two classes or more; the data holds 1"):
        load_folder(tmp_path)
    assert "the same photo is in blue dog and green dog" in capsys.readouterr().err


def test_composed_and_decomposed_names_are_the_same(tmp_path: Path) -> None:
    """A disk may store a name in the form of its own; class, split and box stay the same."""
    drawn = []
    for form in ("NFC", "NFD"):
        directory = tmp_path / form
        write_photos(directory, 8)
        name = unicodedata.normalize(form, "\u00c9pagneul \u00e9t\u00e9")
        folder = directory / name
        (directory / "blue dog").rename(folder)
        for path in list(folder.iterdir()):
            path.rename(folder / f"{name} {path.name}")
        composed = unicodedata.normalize("NFC", name)
        table = f"filename,xmin,ymin,xmax,ymax\n{composed}/{composed} 1-0.PNG,1,2,30,40\n"
        (directory / "boxes.csv").write_text(table)
        read = load_folder(
            directory,
            breeds=("\u00e9pagneul_e\u0301te\u0301", "red dog"),
            test_share=0.25,
            validation_share=0.25,
        )
        assert [label.name for label in read.labels] == ["red dog", composed]
        boxes = [e.boxes for e in (*read.train, *read.validation, *read.test) if e.boxes]
        np.testing.assert_allclose(boxes, [[np.divide((1, 2, 30, 40), (60, 48, 60, 48))]])
        drawn.append(_names(read))
    assert drawn[0] == drawn[1]


def test_class_in_two_forms_in_two_splits(tmp_path: Path) -> None:
    write_photos(tmp_path / "train", 3)
    write_photos(tmp_path / "test", 1, offset=10)
    (tmp_path / "train/blue dog").rename(tmp_path / "train/\u00c9pagneul")
    (tmp_path / "test/blue dog").rename(tmp_path / "test/E\u0301pagneul")

    read = load_folder(tmp_path)

    assert [label.name for label in read.labels] == ["red dog", "\u00c9pagneul"]
    assert {example.label for example in read.test} == {0, 1}


@pytest.mark.parametrize(
    ("case", "sizes", "boxes", "messages"),
    [
        ("coco-nfd", {}, {"\u00c9pagneul.jpg": (10, 10, 50, 60)}, []),
        (
            "csv-othersize",
            {},
            {"boxer_0.jpg": (10, 10, 50, 60)},
            [
                "beagle_0.jpg (boxes.csv:2): box 10,10,50,60 belongs to an image of 1200 x 800",
                "beagle_1.jpg (boxes.csv:3): `person` is not",
                "total: box 2.",
            ],
        ),
        ("eadir", {}, {}, ["beagle/@eaDir, boxer/@eaDir: thumbnails", "total: folder 2."]),
        ("roboflow-valid", {"train": 6, "validation": 6, "test": 6}, {}, []),
        (
            "voc-person",
            {},
            {"beagle_0.jpg": (10, 10, 50, 60)},
            ["beagle/beagle_0.xml), beagle/beagle_1.jpg (", "`person` is not", "total: box 2."],
        ),
    ],
)
def test_folders_that_went_wrong(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    case: str,
    sizes: dict[str, int],
    boxes: dict[str, tuple[float, float, float, float]],
    messages: list[str],
) -> None:
    with zipfile.ZipFile(shared(f"cases/folder-{case}.zip")) as archive:
        archive.extractall(tmp_path)

    read = load_folder(tmp_path)

    examples = (*read.train, *read.validation, *read.test)
    assert all("@" not in example.name for example in examples)
    assert sizes in ({}, read.sizes)
    boxed = {Path(example.name).name: example.boxes for example in examples if example.boxes}
    assert boxed.keys() == boxes.keys()
    for name, box in boxes.items():
        np.testing.assert_allclose(boxed[name], [np.divide(box, (120, 80, 120, 80))])
    errors = capsys.readouterr().err
    for message in messages:
        assert message in errors
    assert ("Left out" in errors) == bool(messages)


@pytest.mark.slow
def test_from_raw_files_with_voc_boxes_to_a_model_that_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a small network, in this process; `test_cli` trains the real one in processes."""

    def small(architecture: str, classes: int, *_: object, **__: object) -> keras.Model:
        return small_resnet(size=64, classes=classes)

    def run_line(*arguments: str | Path) -> None:
        cli.main([str(argument) for argument in arguments])

    monkeypatch.setattr(architectures, "build", small)
    photos, run, models = tmp_path / "my photos", tmp_path / "run", tmp_path / "models"
    for path in write_photos(photos, 8):
        label, index = map(int, path.stem.split("-"))
        path.with_suffix(".xml").write_text(voc(pixel_box(label, index)))
    source = ("--source", "folder", "--data-dir", photos)

    run_line(
        *("train", *source, "--run", run, "--preset", "scratch", "--stages", "64x1"),
        *("--learning-rate", "0.02"),
        *("--input-size", "64", "--batch-size", "4", "--precision", "float32"),
    )
    output = capsys.readouterr().out
    assert "most confused" in output or "accuracy 1.000" in output
    assert (run / "confusion.png").is_file()
    assert json.loads((run / "summary.json").read_text())["photos"] == 2
    run_line("export", "--run", run, "--models-dir", models, "--name", "colours")
    version = models / "colours" / "1"
    calibrate = ("calibrate", "--model", version, *source)
    assert hint(capsys.readouterr().err) == command(*calibrate)
    run_line(*calibrate)
    run_line("evaluate", "--model", version, *source, "--out", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_bytes())

    card = bundles.load(version).card
    assert (figures["photos"], figures["photos_with_boxes"]) == (2, 2)
    assert card.data is not None
    assert card.data.splits == {"train": 12, "validation": 2, "test": 2}
    assert [label.name for label in card.labels] == ["blue dog", "red dog"]
    assert set(card.thresholds) == set(bundles.Method)
    assert card.confidence is not None
    assert card.confidence.photos == 2
    assert str(tmp_path) not in (version / bundles.CARD_PATH).read_text()
    box = pixel_box(0, 3)
    sent = (photos / CLASSES[0] / "0-3.png").read_bytes()
    with serving(tmp_path, model=version) as service:
        answer = httpx.post(
            f"{service.url}/gradcam",
            params={"box": ",".join(map(str, box)), "target": "red_dog"},
            content=sent,
            headers={"Content-Type": "image/png"},
            timeout=60,
        )
    assert answer.status_code == 200
    assert answer.json()["target"]["synset"] == "n00000001"
    assert answer.json()["confidence"] in ("ok", "low")
    predicted = answer.json()["explanation"]["box"]
    iou = heatmaps.iou(predicted, box) if predicted else 0.0
    assert answer.json()["localization"]["iou"] == pytest.approx(iou, abs=1e-3)
