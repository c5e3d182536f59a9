"""EfficientNet-Lite2 from a weights file through a step of training to a model version."""

from pathlib import Path

import numpy as np
import pytest

from app.bundle import Architecture, Bundle, load
from tests.training.pictures import dataset
from training.config import Stage, TrainConfig
from training.export import from_run, terms
from training.fit.run import Run

SIZE = 64


@pytest.fixture(scope="module")
def run(lite2_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = TrainConfig(
        architecture=Architecture.EFFICIENTNET_LITE2,
        weights=str(lite2_weights),
        stages=(Stage(size=SIZE, epochs=1),),
        input_size=SIZE,
        batch_size=4,
        precision="float32",
    )
    return Run(tmp_path_factory.mktemp("lite2_run"), config, dataset())


@pytest.fixture(scope="module")
def exported(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    run.fit()
    version_dir: Path = tmp_path_factory.mktemp("lite2_models") / "lite" / "1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(from_run, "load_dataset", lambda _config: run.dataset)
        from_run.export_run(run.directory, version_dir, photos=6)
    return load(version_dir)


def test_step_trains_every_layer(run: Run, exported: Bundle) -> None:
    start = Run(run.directory / "start", run.config, run.dataset).model

    for before, after in zip(start.trainable_variables, run.model.trainable_variables, strict=True):
        values = np.asarray(after)
        assert np.isfinite(values).all(), after.path
        # An offset before another batch norm has no effect, and so no gradient.
        if after.path.endswith("/kernel"):
            assert not np.array_equal(np.asarray(before), values), after.path


def test_card(exported: Bundle) -> None:
    card = exported.card

    assert (card.architecture, card.head) == ("efficientnet_lite2", "gap_dense")
    assert card.layer_names == [
        "block5d_add",
        "block6b_add",
        "block6c_add",
        "block6d_add",
        "block6e_add",
        "top_activation",
    ]
    assert [layer.height for layer in card.layers] == [4, 2, 2, 2, 2, 2]
    assert card.licence == terms.LITE2
    assert card.provenance == "EfficientNet-Lite2, trained from lite2.pth on pictures."
