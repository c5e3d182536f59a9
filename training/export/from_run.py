"""A training run exported as a model version."""

from pathlib import Path

from app.bundle import Data, ModelCard
from training.config import TrainConfig
from training.data.dataset import check_fingerprint
from training.data.loading import load_dataset
from training.errors import RunError
from training.export import terms
from training.export.from_network import export_network
from training.export.survey import choose
from training.export.versions import check_free
from training.graph.keras_reader import from_keras
from training.networks import architectures

__all__ = ["export_run"]


def export_run(
    run_dir: Path,
    version_dir: Path,
    *,
    photos: int,
    licence: str = "",
    provenance: str = "",
    overwrite: bool = False,
) -> ModelCard:
    """Export the best epoch of a training run.

    Args:
        run_dir: the directory that `python -m training train` wrote.
        version_dir: `models/<name>/<version>`.
        photos: the most training photos to learn foreground and novelty from.
        licence: of the weights, for `model.json`; empty: see `terms.run_licence`.
        provenance: of the weights, for `model.json`; empty: see `terms.run_provenance`.
        overwrite: whether an existing version may be replaced.

    Raises:
        RunError: the directory holds no run, or the run has no finished epoch.
        ExportError: the version exists.
        DataError: the run's photos are gone.
    """
    config, weights_path = TrainConfig.of_run(run_dir), run_dir / "best.weights.h5"
    if not weights_path.exists():
        raise RunError(f"The run in {run_dir} has no finished epoch yet.")
    check_free(version_dir, overwrite=overwrite)
    dataset = load_dataset(config)
    check_fingerprint(run_dir, dataset)
    model = architectures.build(
        config.architecture, len(dataset.labels), input_size=config.input_size
    )
    model.load_weights(weights_path)
    return export_network(
        from_keras(model),
        version_dir,
        architecture=config.architecture,
        labels=dataset.labels,
        input_size=config.input_size,
        preprocessing=architectures.preprocessing(config.architecture),
        examples=choose(dataset.train, photos, config.seed),
        training=config.public(),
        data=Data(name=dataset.name, splits=dataset.sizes),
        licence=licence or terms.run_licence(config),
        provenance=provenance or terms.run_provenance(config, dataset.name),
        overwrite=overwrite,
    )
