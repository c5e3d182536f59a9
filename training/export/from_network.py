"""A `Network` of any origin exported as a model version: what all exports have in common."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.bundle import Architecture, Data, Foreground, Input, Label, ModelCard, Novelty
from training.data.dataset import Example
from training.export import rounding
from training.export.explained import ExplainedNetwork
from training.export.foreground import channel_sum
from training.export.survey import Survey, survey
from training.export.versions import check_free, write
from training.graph.exposed import exposed_layers
from training.graph.gradients import shapes
from training.graph.network import Network
from training.networks.preprocessing import Preprocessing

__all__ = ["export_network"]


def export_network(
    network: Network,
    version_dir: Path,
    *,
    architecture: Architecture,
    labels: tuple[Label, ...],
    input_size: int,
    preprocessing: Preprocessing,
    examples: Sequence[Example] = (),
    training: dict[str, Any] | None = None,
    data: Data | None = None,
    licence: str = "",
    provenance: str = "",
    overwrite: bool = False,
) -> ModelCard:
    """Export a network, with what `survey` learns from training photos.

    Kernels that float16 would damage stay in float32; a message on standard error names them, and
    the arithmetic that the network needs.

    Args:
        network: takes what `preprocessing` returns.
        version_dir: `models/<name>/<version>`.
        architecture: for `model.json`.
        labels: one for each class.
        input_size: side of the square input in pixels.
        preprocessing: what the network expects to be done to photos.
        examples: training photos to learn foreground and novelty from; without any, `foreground`
            is the sum over channels, and novelty is not measured.
        training: the configuration of its training, for `model.json`.
        data: what it was trained on, for `model.json`.
        licence: of the weights, for `model.json`.
        provenance: of the weights, for `model.json`.
        overwrite: whether an existing version may be replaced.

    Raises:
        ExportError: the version exists, or the network has no layer to expose, does not take
            photos of that size, or gives outputs that are not finite.
    """
    check_free(version_dir, overwrite=overwrite)
    layers, sizes = exposed_layers(network, input_size), shapes(network, input_size)
    photos = rounding.probes(input_size, examples)
    kernels = rounding.choose(network, preprocessing, photos)
    if kernels.precision:
        print(kernels, file=sys.stderr, flush=True)
    surveyed: Survey | None = None
    projections = {layer: channel_sum(sizes[layer][-1]) for layer in layers}
    if examples:
        surveyed = survey(network, layers, examples, size=input_size, preprocessing=preprocessing)
        projections = surveyed.projections
    explained = ExplainedNetwork(
        network,
        input_size=input_size,
        layers=layers,
        projections=projections,
        residual=surveyed.residual if surveyed else None,
        preprocessing=preprocessing,
        float32_kernels=kernels.float32,
    )
    rounding.check_served(explained, kernels.logits, photos)
    card = ModelCard(
        name=version_dir.parent.name,
        version=int(version_dir.name),
        architecture=architecture,
        head="gap_dense" if explained.network.gap_dense else "other",
        input=Input(size=input_size),
        labels=labels,
        layers=explained.map_sizes,
        foreground=_foreground(surveyed),
        novelty=_novelty(surveyed),
        precision=kernels.precision,
        training=training or {},
        data=data,
        licence=licence,
        provenance=provenance,
    )
    return write(explained, version_dir, card, overwrite=overwrite)


def _foreground(surveyed: Survey | None) -> Foreground:
    """The card's entry on the foreground."""
    if surveyed is None:
        return Foreground(rule="channel_sum", photos=0)
    return Foreground(rule=surveyed.rule, photos=surveyed.photos, layers=surveyed.layers)


def _novelty(surveyed: Survey | None) -> Novelty | None:
    """The card's entry on novelty."""
    if surveyed is None or surveyed.residual is None:
        return None
    return Novelty(dimensions=surveyed.residual.dimensions, photos=surveyed.surveyed)
