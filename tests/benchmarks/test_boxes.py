"""Rules by hand, the halves' independence, and the whole on a small model beside straight loops."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import keras
import numpy as np
import numpy.typing as npt
import pytest

from app import engines, heatmaps, images
from app.bundle import Bundle, Foreground, Fused, Input, Label, Method, ModelCard, Rule, load
from app.engines import Batch, Cut, Engine
from app.evidence import MethodAtLayers, find
from benchmarks.boxes import command, maps
from benchmarks.boxes.crossfit import cross_fitted, find_directions, halves
from benchmarks.boxes.forward import Forward
from benchmarks.boxes.rules import Find, everything, inferior_removed, peak_region, strongest_region
from benchmarks.boxes.trials import trials
from tests.training.pictures import photo
from tests.training.small_networks import LAYERS, small_resnet
from training.calibration.boxes import THRESHOLDS
from training.data.dataset import Dataset, Example
from training.evaluation.metrics import CONSTANT_BOX, best_iou
from training.export.explained import ExplainedNetwork
from training.export.foreground import DescriptorTransform, RidgeRegression, channel_sum
from training.export.versions import write
from training.graph.keras_reader import from_keras

Floats = npt.NDArray[np.float64]

SIZE = 32
EXAMPLES = [photo(index % 2, index) for index in range(13)]
IMAGE = np.stack(
    [images.squash(images.decode(example.read()).pixels, SIZE) for example in EXAMPLES]
)
TRUE_CLASS = np.array([example.label for example in EXAMPLES], np.int32)


# -- rules, by hand


def test_ivr_takes_its_floor_from_the_values_in_order() -> None:
    values = np.arange(20, dtype=np.float32)[::-1].reshape(4, 5)

    rest = inferior_removed(values, 0.45)  # 20 x 0.45: the tenth value, 9, from the least on

    np.testing.assert_array_equal(rest, np.maximum(values - 9, 0))
    np.testing.assert_array_equal(inferior_removed(values, 0.0), values)


def regions() -> npt.NDArray[np.float32]:
    """The largest (8 of 0.5), the one with the peak (1 of 1) and the strongest (5 of 0.9)."""
    values = np.full((10, 12), 0.1, np.float32)
    values[1:3, 1:5] = 0.5
    values[8, 10] = 1.0
    values[5, 3:8] = 0.9
    return values


LARGEST, PEAK, STRONGEST = (1, 1, 5, 3), (10, 8, 11, 9), (3, 5, 8, 6)


def test_each_rule_takes_its_own_region() -> None:
    thresholds = (0.05, 0.4, 0.8, 0.95)
    whole = (0, 0, 12, 10)

    assert heatmaps.locate_all(regions(), thresholds) == [whole, LARGEST, STRONGEST, PEAK]
    assert peak_region(regions(), thresholds) == [whole, PEAK, PEAK, PEAK]
    assert strongest_region(regions(), thresholds) == [whole, STRONGEST, STRONGEST, PEAK]
    assert everything(regions(), thresholds) == [whole, (1, 1, 11, 9), (3, 5, 11, 9), PEAK]


@pytest.mark.parametrize("rule", [peak_region, strongest_region, everything])
def test_without_evidence_there_is_no_box(rule: Find) -> None:
    assert rule(np.zeros((4, 4), np.float32), (0.1, 0.5)) == [None, None]


# -- halves


@pytest.mark.parametrize("count", [7, 8])
def test_halves_are_equal_but_for_one(count: int) -> None:
    sizes = np.bincount(halves(count), minlength=2)
    assert sorted(sizes.tolist()) == [count // 2, count - count // 2]
    assert (halves(200) != np.arange(200) % 2).any()


def test_choice_is_the_other_halfs() -> None:
    half = np.array([0, 1, 0, 1])
    # By either half's directions, each half does well with an option that fails the other.
    best_for_its_own = np.where(half[:, None] == [0, 1], 1.0, 0.2)

    measured = cross_fitted(np.stack([best_for_its_own, best_for_its_own]), half)

    np.testing.assert_array_equal(measured, 0.2)


def test_measured_with_what_the_other_half_taught() -> None:
    half = np.array([0, 1, 1, 0, 1])
    rng = np.random.default_rng(0)
    tables = rng.uniform(size=(2, 5, 9))

    measured = cross_fitted(tables, half)

    for photo_index, own in enumerate(half):
        other = 1 - own
        sums = sum(tables[other, i] for i in range(5) if half[i] == other)
        assert measured[photo_index] == tables[other, photo_index, int(np.argmax(sums))]


def test_a_photo_sways_nothing_that_it_is_measured_with() -> None:
    half = halves(12)
    tables = np.random.default_rng(1).uniform(size=(2, 12, 9))
    before = cross_fitted(tables, half)

    tables[1 - half[3], 3] += 100  # as it is seen by the other half's directions

    changed = cross_fitted(tables, half) - before
    assert changed[3] == pytest.approx(100)
    np.testing.assert_array_equal(np.delete(changed, 3), 0)


def _descriptors(seed: int) -> dict[str, npt.NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return {
        "fine": rng.normal(size=(3, 6, 6, 4)).astype(np.float32),
        "last": rng.normal(size=(3, 3, 3, 5)).astype(np.float32),
    }


def test_directions_are_learnt_on_their_half_alone() -> None:
    half = np.array([0, 1, 0, 1, 1, 0])
    boxes = [example.boxes for example in EXAMPLES[:6]]
    batches = [_descriptors(0), _descriptors(1)]

    directions = find_directions(batches, half, boxes)

    for own in (0, 1):
        for layer in ("fine", "last"):
            activations = np.concatenate([batch[layer] for batch in batches])[half == own]
            ridge, transform = RidgeRegression(), DescriptorTransform()
            ridge.add(activations, [boxes[i] for i in np.flatnonzero(half == own)])
            transform.add(activations)
            for rule, straight in (("boxes", ridge), ("ddt", transform)):
                expected, got = straight.projection(), directions[own][rule, layer]
                np.testing.assert_allclose(got.direction, expected.direction, atol=1e-5)
                assert got.offset == pytest.approx(expected.offset, abs=1e-5)
    assert not np.allclose(
        directions[0]["boxes", "last"].direction,
        directions[1]["boxes", "last"].direction,
        atol=0.01,
    )


# -- the whole, on a small model


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return small_resnet(size=SIZE)


@pytest.fixture(scope="module")
def bundle(network: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    channels = {name: network.get_layer(name).output.shape[-1] for name in LAYERS}
    explained = ExplainedNetwork(
        from_keras(network),
        input_size=SIZE,
        layers=LAYERS,
        projections={name: channel_sum(count) for name, count in channels.items()},
    )
    card = ModelCard(
        name="small",
        version=1,
        architecture="resnet50",
        head="gap_dense",
        input=Input(size=SIZE),
        labels=tuple(Label(index=i, name=f"class {i}") for i in range(5)),
        layers=explained.map_sizes,
        foreground=Foreground(rule="channel_sum", photos=0),
    )
    version: Path = tmp_path_factory.mktemp("models") / "small" / "1"
    write(explained, version, card)
    return load(version)


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Iterator[Engine]:
    engine = engines.create(bundle, engine="openvino", device="cpu", precision="float32")
    yield engine
    engine.close()


def _forward(bundle: Bundle, size: int) -> Forward:
    return Forward(bundle, LAYERS, size, precision="float32", threads=0)


def test_activations_are_what_the_foreground_projects(bundle: Bundle, engine: Engine) -> None:
    served = engine.run(Cut.EXPLAIN_DEEP, Batch.of(IMAGE, TRUE_CLASS))

    cam, activations = _forward(bundle, SIZE).run(IMAGE, TRUE_CLASS)

    np.testing.assert_allclose(cam, served["cam"], atol=1e-3)
    last = activations["last_out"]
    np.testing.assert_allclose(
        last.sum(axis=-1) / np.sqrt(last.shape[-1]), served["foreground"], rtol=1e-4, atol=1e-3
    )


def test_a_larger_input_gives_what_keras_gives(bundle: Bundle) -> None:
    larger = small_resnet(size=2 * SIZE)  # of the same weights
    image = np.stack([images.squash(pixels, 2 * SIZE) for pixels in IMAGE])
    part = keras.Model(larger.input, [larger.get_layer(name).output for name in LAYERS])
    network_input = keras.applications.resnet50.preprocess_input(image.astype(np.float32))

    cam, activations = _forward(bundle, 2 * SIZE).run(image, TRUE_CLASS)

    for name, expected in zip(LAYERS, part(network_input, training=False), strict=True):
        expected = np.asarray(expected)
        # Kernels are stored as float16.
        np.testing.assert_allclose(activations[name], expected, atol=0.01 * expected.max())
    weights = larger.layers[-1].get_weights()[0][:, TRUE_CLASS]
    by_hand = np.einsum("nhwc,cn->nhw", activations["last_out"], weights)
    np.testing.assert_allclose(cam, by_hand, atol=0.01 * np.abs(by_hand).max())


def _table(text: str) -> dict[str, list[str]]:
    """The cells of each row by its first."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {first.strip(): rest for first, *rest in lines}


def _cam_by_hand(bundle: Bundle, engine: Engine) -> Floats:
    """Each photo's IoU at each threshold, in photo pixels, through the service's own rule."""
    layers = MethodAtLayers.of(bundle.card, Method.CAM, LAYERS[-1:])
    table = np.empty((len(EXAMPLES), len(THRESHOLDS)))
    for row, example in enumerate(EXAMPLES):
        maps_of = engine.run(Cut.EXPLAIN, Batch.of(IMAGE[row : row + 1], TRUE_CLASS[row : row + 1]))
        outputs = {name: array[0] for name, array in maps_of.items()}
        true = [images.scale_box(box, (1, 1), (60, 48)) for box in example.boxes]
        for column, threshold in enumerate(THRESHOLDS):
            evidence = find(bundle.card, outputs, layers, threshold=threshold)
            table[row, column] = best_iou(evidence.box(60, 48), true)
    return table


def _boxes_rule_by_hand(bundle: Bundle, half: npt.NDArray[np.int_]) -> float:
    """Mean IoU of the foreground at the last layer, learnt from the boxes of the other half."""
    _, activations = _forward(bundle, SIZE).run(IMAGE, TRUE_CLASS)
    last = activations[LAYERS[-1]]
    tables = np.empty((2, len(EXAMPLES), len(THRESHOLDS)))
    for learnt_on in (0, 1):
        ridge = RidgeRegression()
        ridge.add(
            last[half == learnt_on], [EXAMPLES[i].boxes for i in np.flatnonzero(half == learnt_on)]
        )
        projection = ridge.projection()
        for row, example in enumerate(EXAMPLES):
            raw = last[row] @ projection.direction - np.float32(projection.offset)
            heatmap = heatmaps.from_maps([raw], signed=False)
            values = heatmaps.resize(heatmap.values, SIZE, SIZE)
            true = [images.scale_box(box, (1, 1), (SIZE, SIZE)) for box in example.boxes]
            for column, box in enumerate(heatmaps.locate_all(values, THRESHOLDS)):
                tables[learnt_on, row, column] = best_iou(box, true)
    return float(cross_fitted(tables, half).mean())


def test_tables_of_a_small_model(bundle: Bundle, engine: Engine) -> None:
    text = command.measure(bundle, engine, EXAMPLES, among=20)
    rows = _table(text)

    assert "on 13 photos, drawn evenly by breed from the 20 " in text.splitlines()[0]
    table, half = _cam_by_hand(bundle, engine), halves(len(EXAMPLES))
    expected = cross_fitted(np.stack([table, table]), half).mean()
    assert float(rows["CAM"][0]) == pytest.approx(expected, abs=2e-3)
    constant = np.mean([best_iou(CONSTANT_BOX, example.boxes) for example in EXAMPLES])
    constant_row = next(
        cells for title, cells in rows.items() if title.startswith("a constant box")
    )
    assert float(constant_row[0]) == pytest.approx(constant, abs=1e-3)
    assert float(constant_row[1].split()[0]) == pytest.approx(constant - expected, abs=2e-3)
    # Identities of a head of global average pooling and one Dense layer.
    assert rows["HiResCAM"][0] == rows["Grad-CAM"][0]
    boxes = _boxes_rule_by_hand(bundle, half)
    assert float(rows["boxes, `last_out`"][0]) == pytest.approx(boxes, abs=2e-3)
    assert {f"CAM, {size} px" for size in (36, 45)} <= rows.keys()
    assert "boxes, `early_out` and `last_out`" in rows


def test_mirrored_maps_are_the_mean_of_both_sides(bundle: Bundle, engine: Engine) -> None:
    photos = maps.Photos(bundle, EXAMPLES[:4], np.array([0, 1, 0, 1]))
    image, labels = IMAGE[:4], TRUE_CLASS[:4]
    sides = [
        engine.run(Cut.EXPLAIN_DEEP, Batch.of(np.ascontiguousarray(side), labels))
        for side in (image, image[:, :, ::-1])
    ]

    first, second = maps.raw_maps(photos, engine)

    for key, output in (("cam last_out", "cam"), ("gradcam early_out", "gradcam_early_out")):
        expected = (sides[0][output] + sides[1][output][:, :, ::-1]) / 2
        np.testing.assert_allclose(first[f"{key} {maps.MIRRORED}"], expected, atol=1e-4)
        np.testing.assert_array_equal(first[key], second[key])
    assert np.abs(first["boxes last_out"] - second["boxes last_out"]).max() > 0.01


def test_service_is_marked_where_its_card_says_so(bundle: Bundle) -> None:
    card = bundle.card.model_copy(
        update={
            "foreground": Foreground(rule="boxes", photos=100),
            "fused": {Method.CAM: {"last": Fused(foreground=0.5, threshold=0.3)}},
        }
    )

    sections = trials(card, LAYERS[:2], (36, 45))

    marked = {
        trial.title: trial.served
        for section in sections.values()
        for trial in section
        if trial.served
    }
    assert marked.pop("CAM + boxes, 0.5") is Rule.FUSED
    assert set(marked.values()) == {Rule.HEATMAP}
    assert {"CAM", "Grad-CAM", "LayerCAM, last six layers"} <= marked.keys()


def test_foreground_is_of_the_cards_layers_unless_named(bundle: Bundle) -> None:
    alone = Foreground(rule="boxes", photos=100, layers=(LAYERS[0],))
    card = bundle.card.model_copy(update={"foreground": alone})
    row = {
        maps.name("gradcam", LAYERS[-1]): np.eye(2, dtype=np.float32),
        maps.name("boxes", LAYERS[0]): np.eye(4, dtype=np.float32)[::-1],
        maps.name("boxes", LAYERS[-1]): np.array([[1, 0], [1, 0]], np.float32),
    }

    sections = trials(card, (LAYERS[0], LAYERS[-1]), ())

    all_trials = {trial.title: trial for section in sections.values() for trial in section}
    fine, both = f"`{LAYERS[0]}`", f"`{LAYERS[0]}` and `{LAYERS[-1]}`"
    heatmap_by_title = {
        title: all_trials[title].options[0].search(row)
        for title in (
            "Grad-CAM + boxes, 0.75",
            f"Grad-CAM + boxes, 0.75, {fine}",
            f"Grad-CAM + boxes, 0.75, {both}",
        )
    }
    plain, served, fused = heatmap_by_title.values()
    of_class = heatmaps.resize(np.eye(2, dtype=np.float32), SIZE, SIZE)
    of_dog = heatmaps.resize(np.eye(4, dtype=np.float32)[::-1], SIZE, SIZE)
    np.testing.assert_allclose(plain, 0.25 * of_class + 0.75 * of_dog, atol=1e-6)
    np.testing.assert_array_equal(served, plain)
    assert np.abs(fused - plain).max() > 0.1


# -- the command and its document


@pytest.fixture
def samples(
    bundle: Bundle, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[Sequence[Example]]:
    """What the command measures, of 4 boxed photos of class 0 and 8 of class 1; its document."""
    boxed = [photo(int(index >= 4), index) for index in range(12)]
    bare = [replace(example, boxes=()) for example in boxed]
    dataset = Dataset("pictures", (), tuple(boxed[1:] + bare), tuple(boxed[:1]), tuple(boxed))
    measured: list[Sequence[Example]] = []

    def measure(*arguments: object, among: int, threads: int) -> str:
        assert among == 12
        measured.append(cast(Sequence[Example], arguments[2]))
        return "tables\n"

    document = tmp_path / "localization.md"
    document.write_text(f"{command.BEGIN}\n{command.END}\n", encoding="utf-8")
    monkeypatch.setattr(command, "DOCUMENT", document)
    monkeypatch.setattr(command, "load_for_model", lambda *_, **__: dataset)
    monkeypatch.setattr(command, "measure", measure)
    return measured


def _run(bundle: Bundle, *options: str) -> bool:
    """Whether the command wrote its tables."""
    command.main(["--data-dir", "DIR", "--model", str(bundle.path.parent), *options])
    return "tables" in command.DOCUMENT.read_text(encoding="utf-8")


@pytest.mark.parametrize(("limit", "of_class"), [(6, [3, 3]), (10, [4, 6]), (99, [4, 8])])
def test_a_limit_draws_evenly_by_breed_and_only_prints(
    bundle: Bundle, samples: list[Sequence[Example]], limit: int, of_class: list[int]
) -> None:
    assert not _run(bundle, "--limit", str(limit))

    [sample] = samples
    assert np.bincount([example.label for example in sample]).tolist() == of_class
    assert all(example.boxes for example in sample)
    assert len({example.name for example in sample}) == len(sample)


def test_without_a_limit_a_sample_is_measured_and_written(
    bundle: Bundle, samples: list[Sequence[Example]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "SAMPLE", 8)

    assert _run(bundle)

    assert np.bincount([example.label for example in samples[0]]).tolist() == [4, 4]


def test_tables_are_put_between_the_marks() -> None:
    text = f"prose\n{command.BEGIN}\nold\n{command.END}\nmore\n"

    again = command.written(command.written(text, "one\n"), "two\n")

    assert again == f"prose\n{command.BEGIN}\n\ntwo\n\n{command.END}\nmore\n"
    with pytest.raises(ValueError, match="place"):
        command.written("prose", "new")


def test_document_has_a_place_for_the_tables() -> None:
    text = command.DOCUMENT.read_text(encoding="utf-8")
    assert "\nnew\n" in command.written(text, "new\n")
