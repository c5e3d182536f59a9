"""The subcommands that run photos through a model version: calibrate and evaluate."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, Field

from app import bundle as bundles
from app import engines
from app.bundle import Bundle, ModelCard
from app.engines import Engine
from training.commands import terminal
from training.commands.terminal import say
from training.config import Source
from training.errors import TrainingError
from training.evaluation.perturbation import SAMPLES, Perturbation, load_packages
from training.evaluation.schema import Comparison, Evaluation
from training.files import atomic_write, in_project
from training.hints import command, photo_options
from training.options import Directory, Metavar
from training.quiet import start_tensorflow

if TYPE_CHECKING:
    from training.data.dataset import Dataset, Example

__all__ = ["Calibrate", "Evaluate", "OnModel", "current_card", "warn_of_missing"]


class OnModel(BaseModel):
    """A model version, and photos of its classes."""

    model: Directory = Field(description="models/NAME or models/NAME/VERSION")
    source: Source = Field(
        "stanford_dogs", description="Stanford Dogs, or a folder of the model's classes"
    )
    data_dir: Annotated[Path | None, Metavar("DIR")] = Field(
        None, description="the folder, or a prepared TFDS directory; default: download"
    )
    boxes: Path | None = Field(
        None, description="boxes of a folder's photos: VOC directory, COCO or CSV; default: found"
    )

    def load(self, precision: str) -> "tuple[Bundle, Engine, Dataset]":
        """The model version, an engine, and the photos of the model's breeds."""
        bundle = bundles.load(self.model)
        dataset = self.photos_of(bundle)
        return bundle, engines.create(bundle, precision=precision), dataset

    def photos_of(self, bundle: Bundle) -> "Dataset":
        """The photos of the model's breeds."""
        start_tensorflow()
        from training.data.loading import load_for_model

        return load_for_model(
            self.source,
            self.data_dir,
            bundle.card.labels,
            boxes=self.boxes,
            config=bundle.card.training,
        )


def warn_of_missing(bundle: Bundle, examples: "Sequence[Example]", what: str) -> None:
    """Say how many of the model's classes these photos do not show."""
    present = {example.label for example in examples}
    missing = [label.name for label in bundle.card.labels if label.index not in present]
    if missing:
        names = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        say(
            f"Warning: {len(missing)} of the model's {len(bundle.card.labels)} classes have no "
            f"{what} ({names})."
        )


def current_card(bundle: Bundle) -> ModelCard:
    """The version's card as it is now: metrics that another command has written meanwhile stay.

    Raises:
        TrainingError: something else has changed, so that what was measured is of another model.
    """
    card = bundles.load(bundle.path).card
    if card != bundle.card.replace(metrics=card.metrics):
        raise TrainingError(
            f"{bundle.path} has changed while it was measured, by calibrate or export: run this "
            "command again."
        )
    return card


class Calibrate(OnModel):
    """Find what boxes are drawn by, and when an answer is doubted; write it to model.json.

    Thresholds and fused rules come from boxes of the training split, where there are any; the
    temperature of probabilities and the limits of confidence from the validation photos. Classes
    without photos are named; the others decide.
    """

    limit: int = Field(
        1000,
        ge=0,
        description="at most this many photos with boxes, and at most this many validation photos, "
        "each drawn evenly by breed; 0: all",
    )
    seed: int = Field(0, ge=0, description="draws these photos")

    def cli_cmd(self) -> None:
        """Run the subcommand."""
        bundle, engine, dataset = self.load("float")
        from training.calibration.boxes import calibrate
        from training.calibration.confidence import calibrate_confidence
        from training.data.splits import balanced_sample

        boxed = [example for example in dataset.train + dataset.validation if example.boxes]
        chosen = balanced_sample(boxed, self.limit, self.seed)
        validation = balanced_sample(dataset.validation, self.limit, self.seed)
        warn_of_missing(bundle, validation, "validation photo")
        if chosen:
            warn_of_missing(bundle, chosen, "photo with a box in the training split")
        changes: dict[str, Any] = {"confidence": calibrate_confidence(bundle, engine, validation)}
        if chosen:
            rules = calibrate(bundle, engine, chosen)
            changes |= {"thresholds": rules.thresholds, "fused": rules.fused}
        else:
            say("No photo of the training split has a box: thresholds stay as they are.")
        card = current_card(bundle).replace(**changes)
        card.write(bundle.path)
        if card.int8 is not None:
            again = command("int8", "--model", self.model, *photo_options(self))
            say(
                "The graph in 8-bit integers was accepted with the calibration before this one. It "
                f"stays in use. To quantise and measure anew with this one:\n  {again}"
            )
        print(
            terminal.calibration(
                card,
                boxes=(len(chosen), len(boxed)),
                validation=(len(validation), len(dataset.validation)),
            )
        )


class Evaluate(OnModel):
    """Measure a model version on the test split; print a table.

    Accuracy over all photos; mean IoU, GT-known and top-1 localisation, MaxBoxAccV2, pointing game
    and energy in box over those with boxes, by each box rule; insertion and deletion AUC and the
    model randomisation check over a sample. Always beside a constant box and the full frame, with
    95 % intervals. All figures go into the JSON of `--out`; the terminal gets a few.
    `--gallery` puts photos into the JSON: keep that file out of the repository.
    """

    write: bool = Field(False, description="keep the main figures in model.json as well")
    beside: Annotated[str | None, Metavar("NAME")] = Field(
        None,
        min_length=1,
        description="with --write: keep them beside those of the test split, under this name",
    )
    note: Annotated[str | None, Metavar("'TEXT'")] = Field(
        None,
        min_length=1,
        description="what to know of these photos, such as whether the pre-training saw them",
    )
    out: Annotated[Path | None, Metavar("FILE")] = Field(
        None, description="a file to write the JSON to"
    )
    limit: int = Field(
        0, ge=0, description="at most this many photos, drawn evenly by breed; 0: all"
    )
    sample: int = Field(
        0,
        ge=0,
        description="photos for insertion, deletion and randomisation, some 10 seconds each on "
        "two cores; 0: none",
    )
    gallery: int = Field(
        0,
        ge=0,
        description="photos of each kind (drawn by lot, best, worst) whose overlays go into the "
        "file of --out, which has to be outside of the project: they show the photos",
    )
    perturbation: Annotated[tuple[Perturbation, ...], Metavar("METHOD,...")] = Field(
        (),
        description="compare LIME, KernelSHAP and RISE with the CAM family: any of lime, "
        "kernelshap, rise; the first two need requirements/perturbation.txt",
    )
    perturbation_photos: int = Field(
        50,
        ge=2,
        description="photos for --perturbation, 15 to 50 seconds for each photo and method on two "
        "cores",
    )
    perturbation_samples: int = Field(
        SAMPLES, ge=100, description="perturbed photos for each heatmap of --perturbation"
    )
    precision: Literal["auto", "float", "float32", "bfloat16", "int8"] = Field(
        "auto",
        description="the arithmetic, as in BREEDCAM_PRECISION; float: the best that is not int8",
    )
    seed: int = Field(0, ge=0, description="of the samples, the intervals and the gallery")

    def cli_cmd(self) -> None:
        """Run the subcommand."""
        self._check_options()
        bundle, engine, dataset = self.load(self.precision)
        from training.data.splits import balanced_sample
        from training.evaluation.evaluate import evaluate

        test = balanced_sample(dataset.test, self.limit, self.seed)
        say(f"Measuring the test split: {len(test)} of its {len(dataset.test)} photos.")
        warn_of_missing(bundle, test, "test photo")
        if self.gallery and not any(example.boxes for example in test):
            say("None of them has a box: there is no gallery.")
        sample = self._sample_to_compare(test)
        evaluation = evaluate(
            bundle,
            engine,
            test,
            note=self.note,
            sample=self.sample,
            seed=self.seed,
            gallery=self.gallery,
        )
        # What was measured comes first: nothing of it is lost if the rest is refused.
        print(terminal.evaluation(evaluation), flush=True)
        self._write_out(evaluation)
        if self.write:
            card = current_card(bundle)
            metrics = with_metrics(card.metrics, evaluation.summary(), self.beside)
            card.replace(metrics=metrics).write(bundle.path)
        if sample:
            compared = self._compare(bundle, engine, sample)
            print("", terminal.comparison(compared), sep="\n", flush=True)
            self._write_out(evaluation.model_copy(update={"perturbation": compared}))

    def _sample_to_compare(self, test: "Sequence[Example]") -> "list[Example]":
        """The photos for `--perturbation`; none without."""
        from training.evaluation.sampled import drawn_to_compare

        if not self.perturbation:
            return []
        sample = drawn_to_compare(test, self.perturbation_photos, self.seed)
        if len(sample) < self.perturbation_photos:
            boxes = " with boxes" if sample[0].boxes else ""
            say(
                f"--perturbation takes {len(sample)} photos and not {self.perturbation_photos}: "
                f"there are no more{boxes}."
            )
        return sample

    def _compare(self, bundle: Bundle, engine: Engine, sample: "Sequence[Example]") -> Comparison:
        from training.evaluation.comparison import comparison

        return comparison(
            bundle.card,
            engine,
            sample,
            self.perturbation,
            samples=self.perturbation_samples,
            seed=self.seed,
        )

    def _write_out(self, evaluation: Evaluation) -> None:
        """Write the file of `--out`, if it is named."""
        if self.out is None:
            return
        try:
            atomic_write(self.out, _json(evaluation.dump()) + "\n")
        except OSError as error:
            raise TrainingError(f"--out {self.out}: {error.strerror}.") from error

    def _check_options(self) -> None:
        """Refuse, before the work, what cannot be measured or must not be written."""
        sizes = {"perturbation_photos", "perturbation_samples"} & self.model_fields_set
        if sizes and not self.perturbation:
            raise TrainingError(
                "--perturbation-photos and --perturbation-samples belong to --perturbation: name "
                "its methods, or leave them out."
            )
        load_packages(self.perturbation)
        if self.beside and not self.write:
            raise TrainingError("--beside says where --write puts the figures: pass both.")
        if self.out is not None and not self.out.parent.is_dir():
            raise TrainingError(f"--out {self.out}: there is no directory {self.out.parent}.")
        if self.out is not None and self.out.is_dir():
            raise TrainingError(f"--out {self.out} is a directory: name a file.")
        if not self.gallery:
            return
        if self.out is None:
            raise TrainingError("--gallery needs --out FILE: the pictures go there alone.")
        if in_project(self.out):
            raise TrainingError(
                f"--out {self.out}: with --gallery the file shows photos, which must not get into "
                "the repository. Name one outside of the project."
            )


def with_metrics(
    metrics: dict[str, Any], summary: dict[str, Any], beside: str | None
) -> dict[str, Any]:
    """What `model.json` keeps once other photos have been measured.

    Args:
        metrics: as they are: figures of the test split, and under `beside` those of other photos.
        summary: the new figures.
        beside: the name of the photos that they are of; None for the test split.
    """
    others = dict(metrics.get("beside", {}))
    if beside is None:
        kept = summary
    else:
        kept = {name: value for name, value in metrics.items() if name != "beside"}
        others[beside] = summary
    return {**kept, "beside": others} if others else kept


def _json(figures: dict[str, Any]) -> str:
    """Indented JSON; lists and objects that hold no others, such as intervals, take one line."""
    text = json.dumps(figures, indent=1)
    # A line break is never part of a JSON string, so that no string changes.
    return re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda leaf: re.sub(r"\n *", " ", leaf[0]), text)
