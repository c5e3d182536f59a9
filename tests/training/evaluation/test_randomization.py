"""A model that forgets from the head down, and what that does to its heatmaps."""

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

from app import bundle as bundles
from app.bundle import Bundle, Method
from app.engines import Batch, Cut, Engine, output_names
from app.evidence import MethodAtLayers
from tests.training.pictures import dataset
from training.evaluation.inference import layer_sets, squashed
from training.evaluation.randomization import Cascade, randomization, stages

EXAMPLES = dataset(train=4).train
NONE = np.full(4, -1, np.int32)


@pytest.fixture(scope="module")
def photos(small_bundle: Bundle) -> npt.NDArray[np.uint8]:
    return np.stack([squashed(small_bundle.card, example)[1] for example in EXAMPLES])


def test_nothing_forgotten_is_the_model_that_is_served(
    small_bundle: Bundle, engine: Engine, photos: npt.NDArray[np.uint8]
) -> None:
    served = engine.run(Cut.EXPLAIN_DEEP, Batch.of(photos))

    outputs = Cascade(small_bundle.path).run(photos, NONE)

    for name in output_names(small_bundle.card, Cut.EXPLAIN_DEEP):
        np.testing.assert_allclose(outputs[name], served[name], rtol=1e-3, atol=1e-4, err_msg=name)


def test_layers_are_those_with_weights_from_the_head_down(
    small_bundle: Bundle, keras_model: keras.Model
) -> None:
    layers = Cascade(small_bundle.path).layers

    assert layers[0] == "predictions"
    assert {layer.split("_")[0] for layer in layers[1:4]} == {"last"}
    assert layers[-1].startswith("stem")
    assert len(layers) == 14  # the stem, four convolutions in each of three blocks, the head


def _values(cascade: Cascade, layer: str) -> dict[str, npt.NDArray[Any]]:
    return {name: variable.numpy() for name, variable in cascade._weights[layer].items()}


def test_layers_forget_in_turn_and_keep_their_values(
    small_bundle: Bundle, photos: npt.NDArray[np.uint8]
) -> None:
    cascade, rng = Cascade(small_bundle.path), np.random.default_rng(0)
    before = {layer: _values(cascade, layer) for layer in cascade.layers}
    outputs = cascade.run(photos, NONE)

    cascade.forget(1, rng)
    head_forgotten = cascade.run(photos, NONE)
    after = {layer: _values(cascade, layer) for layer in cascade.layers}

    changed = [x for x in cascade.layers if (after[x]["kernel"] != before[x]["kernel"]).any()]
    assert changed == ["predictions"]
    for name, value in before["predictions"].items():
        np.testing.assert_array_equal(
            np.sort(after["predictions"][name], axis=None), np.sort(value, axis=None)
        )
    np.testing.assert_array_equal(head_forgotten["foreground"], outputs["foreground"])
    assert not np.allclose(head_forgotten["cam"], outputs["cam"], rtol=0.1)
    cascade.forget(1, rng)
    np.testing.assert_array_equal(cascade.run(photos, NONE)["cam"], head_forgotten["cam"])
    cascade.forget(14, rng)
    assert not np.allclose(cascade.run(photos, NONE)["foreground"], outputs["foreground"])
    bundles.load(small_bundle.path)  # what is on disk is as it was


def test_stages() -> None:
    assert stages(54) == [1, 4, 16, 54]
    assert stages(14) == [1, 4, 14]
    assert stages(4) == [1, 4]
    assert stages(1) == [1]


def test_heatmaps_that_stay_have_a_likeness_of_one(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cascade, "forget", lambda *_: None)
    sets = layer_sets(small_bundle.card)

    by_stage = randomization(small_bundle, EXAMPLES, sets, seed=0)

    assert [name == "predictions" for name in by_stage] == [True, False, False]
    for similarities in by_stage.values():
        assert list(similarities) == sets
        for values in similarities.values():
            assert values == pytest.approx(np.ones((4, 2)))


def test_heatmaps_of_what_has_been_forgotten_differ(small_bundle: Bundle) -> None:
    sets = layer_sets(small_bundle.card)

    by_stage = randomization(small_bundle, EXAMPLES, sets, seed=0)

    for similarities in by_stage.values():
        for values in similarities.values():
            assert values.shape == (4, 2)
            shown = values[np.isfinite(values).all(axis=1)]
            assert (np.abs(shown) <= 1 + 1e-9).all()
            assert not len(shown) or (shown < 0.99).any()
    assert any(np.isfinite(values).all() for values in by_stage["predictions"].values())


@pytest.mark.parametrize("blank_after", [False, True])
def test_blank_heatmaps_have_no_similarity(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, blank_after: bool
) -> None:
    run, runs = Cascade.run, []

    def with_a_blank(cascade: Cascade, *inputs: Any) -> dict[str, Any]:
        outputs = run(cascade, *inputs)
        runs.append(inputs)
        if len(runs) == 1 + blank_after:
            outputs["gradcam"] = outputs["gradcam"].copy()
            outputs["gradcam"][2] = 0
        return outputs

    monkeypatch.setattr(Cascade, "run", with_a_blank)
    monkeypatch.setattr(Cascade, "forget", lambda *_: None)
    sets = [
        MethodAtLayers.of(small_bundle.card, Method.GRADCAM, small_bundle.card.layer_names[-1:])
    ]

    first, *_ = randomization(small_bundle, EXAMPLES, sets, seed=0).values()

    assert np.isnan(first[sets[0]][2]).all()
    assert first[sets[0]][[0, 1, 3]] == pytest.approx(np.ones((3, 2)))
