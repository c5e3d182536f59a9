"""The subcommand that adds a graph in 8-bit integers to a model version."""

from pydantic import Field

from app import bundle as bundles
from app.bundle import INT8_PATH, Bundle, checksums
from app.engines import cpu_has_int8
from training.commands import terminal
from training.commands.measure import OnModel, current_card, warn_of_missing
from training.commands.terminal import say
from training.errors import ExportError
from training.quiet import start_tensorflow

__all__ = ["AddInt8"]


class AddInt8(OnModel):
    """Add a graph in 8-bit integers to a model version, which OpenVINO computes faster.

    Training photos set the ranges of its numbers. Then both graphs predict and explain all
    validation photos. The version stays as it is where integers take more than half a point from
    the accuracy, the mean IoU of any heatmap or the calibration.
    """

    photos: int = Field(300, ge=1, description="training photos that set ranges, at most")
    seed: int = Field(0, ge=0, description="draws these photos")

    def cli_cmd(self) -> None:
        """Run the subcommand."""
        bundle = bundles.load(self.model)
        check_possible(bundle.card.precision)
        dataset = self.photos_of(bundle)
        import numpy as np

        from training.data.splits import balanced_sample
        from training.evaluation.inference import squashed
        from training.export.int8 import gate, graph
        from training.export.versions import revision

        if not dataset.train or not dataset.validation:
            raise ExportError("int8 needs photos to set ranges by, and validation photos.")
        chosen = balanced_sample(dataset.train, self.photos, self.seed)
        warn_of_missing(bundle, dataset.validation, "validation photo")
        with revision(bundle.path) as draft:
            photos = np.stack([squashed(bundle.card, example)[1] for example in chosen])
            graph.write(bundle, photos, draft / INT8_PATH)
            both = Bundle(draft, bundle.card)
            int8 = gate.measure(both, dataset.validation, calibration_photos=len(chosen))
            losses = gate.losses(int8)
            print(terminal.int8(losses, int8.precision), flush=True)
            if worse := [loss.name for loss in losses if loss.lost > gate.MAY_LOSE]:
                raise ExportError(
                    f"Refused: in 8-bit integers the model loses more than "
                    f"{100 * gate.MAY_LOSE:g} points of {'; '.join(worse)}.{_kept(bundle)}"
                )
            card = current_card(bundle).replace(int8=int8, checksums=checksums(draft))
            card.write(draft)
        say(f"Wrote {bundle.path / INT8_PATH} and its weights.")


def _kept(bundle: Bundle) -> str:
    """What becomes of a graph that the version has already."""
    if not bundle.has_int8:
        return ""
    return (
        " The graph that was accepted before stays in use; BREEDCAM_PRECISION=bfloat16 or float32 "
        "leaves it out."
    )


def check_possible(precision: str | None) -> None:
    """Check, before any work is done, that such a graph can be made and measured here.

    Args:
        precision: that the model needs, from its card.

    Raises:
        ExportError: it cannot; the message says what is missing.
    """
    if precision is not None:
        raise ExportError(f"By model.json, this model predicts what it should in {precision} only.")
    if not cpu_has_int8():
        raise ExportError(
            "int8 measures what it writes, and this CPU has none of AVX-512 VNNI, AVX-VNNI and AMX."
        )
    start_tensorflow()
    try:
        from training.export.int8 import graph  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f"int8 needs the extra `int8`, which cannot be imported ({error}): run "
            "`make .venv/.int8`, or pip install -r requirements/int8.txt."
        ) from error
