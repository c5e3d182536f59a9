"""The command line: one subcommand a class, its fields the options."""

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, CliApp, CliSubCommand
from pydantic_settings import PydanticBaseSettingsSource as Source

from app import bundle as bundles
from app import engines
from app.bundle import Bundle, BundleError
from app.engines import Engine, EngineUnavailable
from training.config import Source as PhotoSource
from training.config import TrainConfig
from training.errors import RunError, TrainingError
from training.export_commands import Bootstrap, Export
from training.hints import command, say
from training.places import in_project
from training.presets import PRESETS, Finetune

if TYPE_CHECKING:
    from training.data import Dataset

__all__ = ["main"]

EXIT_INTERRUPTED = 130


class Train(Finetune):
    """Train a network as a preset says, or as options that are given in its stead.

    Presets: finetune (the default, whose values are shown below), paper, scratch. On all GPUs of
    this host; on several hosts where TF_CONFIG says so. Interrupt it at any time; `--resume`
    continues a run as it was configured.
    """

    run: Path = Field(Path("runs/dogs"), description="directory of the run")
    resume: bool = Field(False, description="continue the run; the other options are its own")

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        """Left to the preset, whose values are not these yet."""
        return self

    def cli_cmd(self) -> None:
        """Run the subcommand."""
        from training.data import load_dataset
        from training.strategy import all_devices
        from training.summary import summarise
        from training.training import Interrupted, Run

        config = self._config()
        devices = all_devices()
        dataset = load_dataset(config)
        say(f"{dataset.name}: {len(dataset.labels)} classes, {dataset.sizes}")
        run = Run(self.run, config, dataset, devices=devices)
        if run.finished:
            say(f"This run is finished: {run.step} of {run.total_steps} steps.")
        try:
            run.fit()
        except Interrupted:
            say(
                f"Saved at step {run.step} of {run.total_steps}. Continue with:\n"
                f"  {command('train', '--run', self.run, '--resume')}"
            )
            sys.exit(EXIT_INTERRUPTED)
        if run.stopped_early:
            say(f"Stopped after epoch {run.epochs}: validation did not improve any more.")
        if run.devices.is_chief:
            print(summarise(run))
        say(f"Done. Next:\n  {command('export', '--run', self.run)}")

    def _config(self) -> TrainConfig:
        """What to run: the stored configuration when resuming, else the options."""
        if self.resume:
            return TrainConfig.of_run(self.run)
        if (self.run / "config.json").exists():
            raise RunError(f"{self.run} holds a run already: pass --resume, or another --run.")
        given = self.model_dump(exclude={"run", "resume"}, exclude_unset=True)
        # Absolute, so that a run can be resumed and exported from anywhere.
        given |= {name: given[name].resolve() for name in ("data_dir", "boxes") if given.get(name)}
        if "teachers" in given:
            given["teachers"] = [path.resolve() for path in given["teachers"]]
        for name in ("weights", "head"):
            if given.get(name, "imagenet") not in ("imagenet", "none", "random"):
                given[name] = str(Path(given[name]).resolve())
        return PRESETS[self.preset].model_validate(given)


class _OnModel(BaseModel):
    model: Path = Field(description="models/NAME or models/NAME/VERSION")
    source: PhotoSource = Field(
        "stanford_dogs", description="Stanford Dogs, or a folder of the model's classes"
    )
    data_dir: Path | None = Field(
        None, description="the folder, or a prepared TFDS directory; default: download"
    )
    boxes: Path | None = Field(
        None, description="boxes of a folder's photos: VOC directory, COCO or CSV; default: found"
    )

    def load(self) -> "tuple[Bundle, Engine, Dataset]":
        """The model version, an engine, and the photos of the model's breeds."""
        from training.data import load_for_model

        bundle = bundles.load(self.model)
        dataset = load_for_model(
            self.source,
            self.data_dir,
            bundle.card.labels,
            boxes=self.boxes,
            config=bundle.card.training,
        )
        return bundle, engines.create(bundle), dataset


class Calibrate(_OnModel):
    """Find what boxes are drawn by, and when an answer is doubted; write it to model.json.

    Thresholds and fused rules come from boxes of the training split, where there are any; the
    temperature of probabilities and the limits of confidence from the validation photos.
    """

    def cli_cmd(self) -> None:
        """Run the subcommand."""
        from training.calibration import calibrate
        from training.confidence import calibrate_confidence

        bundle, engine, dataset = self.load()
        examples = dataset.train + dataset.validation
        found: dict[str, Any] = {
            "confidence": calibrate_confidence(bundle, engine, dataset.validation)
        }
        if any(example.boxes for example in examples):
            rules = calibrate(bundle, engine, examples)
            found |= {"thresholds": rules.thresholds, "fused": rules.fused}
        else:
            say("No photo of the training split has a box: thresholds stay as they are.")
        card = bundle.card.model_copy(update=found)
        card.write(bundle.path)
        print(card.model_dump_json(include=set(found), indent=2))


class Evaluate(_OnModel):
    """Measure a model version on the test split; print JSON.

    Accuracy over all photos; mean IoU, GT-known and top-1 localisation, MaxBoxAccV2, pointing game
    and energy in box over those with boxes, by each box rule; insertion and deletion AUC and the
    model randomisation check over a sample. Always beside a constant box and the full frame, with
    95 % intervals. `--gallery` puts photos into the JSON: keep that file out of the repository.
    """

    write: bool = Field(False, description="keep the accuracy and IoUs in model.json as well")
    out: Path | None = Field(None, description="a file to write the JSON to as well")
    sample: int = Field(
        40, ge=0, description="photos for insertion, deletion and randomisation; 0: neither"
    )
    gallery: int = Field(
        0,
        ge=0,
        description="photos of each kind (drawn by lot, best, worst) whose overlays go into the "
        "file of --out, which has to be outside of the project: they show the photos",
    )
    seed: int = Field(0, ge=0, description="of the sample, the intervals and the gallery")

    def cli_cmd(self) -> None:
        """Run the subcommand."""
        from training.evaluation import SHORT, evaluate

        self._check_out()
        bundle, engine, dataset = self.load()
        photos = sum(dataset.sizes.values())
        say(f"Measuring the test split: {len(dataset.test)} of {photos} photos.")
        if self.gallery and not any(example.boxes for example in dataset.test):
            say("None of them has a box: there is no gallery.")
        figures = evaluate(
            bundle, engine, dataset.test, sample=self.sample, seed=self.seed, gallery=self.gallery
        )
        figures = {"split": "test", **figures}
        if self.write:
            kept = {name: figures[name] for name in ("split", *SHORT) if name in figures}
            bundle.card.model_copy(update={"metrics": kept}).write(bundle.path)
        print(_json({name: told for name, told in figures.items() if name != "gallery"}))
        if self.out is not None:
            try:
                self.out.write_text(_json(figures) + "\n", encoding="utf-8")
            except OSError as error:
                raise TrainingError(f"--out {self.out}: {error.strerror}.") from error

    def _check_out(self) -> None:
        """Refuse, before the work, a place that the figures could not or must not go to."""
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


def _json(figures: dict[str, Any]) -> str:
    """With what holds no list or object, as intervals do, on one line."""
    text = json.dumps(figures, indent=1)
    # Strings of JSON hold no line breaks, so that none is changed.
    return re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda found: re.sub(r"\n *", " ", found[0]), text)


class Report(BaseModel):
    """Tell on a page what `evaluate --out` measured: `index.html` and its plots as PNG files.

    The page needs no network and nothing beside it. Where the figures hold a gallery, it shows
    photos: a directory within the project is then refused.
    """

    figures: Path = Field(description="the JSON that `evaluate --out` wrote")
    out: Path = Field(description="the report's directory")

    def cli_cmd(self) -> None:
        """Run the subcommand."""
        from training.report import report

        say(f"Wrote {report(self.figures, self.out)}.")


class Training(
    BaseSettings,
    cli_prog_name="python -m training",
    cli_kebab_case=True,
    cli_implicit_flags=True,
    cli_avoid_json=True,
    cli_hide_none_type=True,
):
    """BreedCAM's offline half: from photos to a model version that explains itself."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: Source,
        env_settings: Source,
        dotenv_settings: Source,
        file_secret_settings: Source,
    ) -> tuple[Source, ...]:
        """The command line alone, which is added to these: no environment variable counts."""
        return (init_settings,)

    train: CliSubCommand[Train] = Field(description="train a network on photos")
    export: CliSubCommand[Export] = Field(
        description="write a run, or a Keras model, as a model version"
    )
    bootstrap: CliSubCommand[Bootstrap] = Field(
        description="a model of 120 breeds with no training"
    )
    calibrate: CliSubCommand[Calibrate] = Field(
        description="find thresholds, box rules and confidence"
    )
    evaluate: CliSubCommand[Evaluate] = Field(
        description="measure a model version on the test split"
    )
    report: CliSubCommand[Report] = Field(description="a page of what evaluate has measured")

    def cli_cmd(self) -> None:
        """Run the chosen subcommand."""
        CliApp.run_subcommand(self)


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and run it; errors that a user can mend end in one line."""
    try:
        CliApp.run(Training, cli_args=arguments)
    except ValidationError as error:
        for problem in error.errors():
            option = "-".join(str(part) for part in problem["loc"][1:]).replace("_", "-")
            say(f"--{option}: {problem['msg']}" if option else f"error: {problem['msg']}")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except (TrainingError, BundleError, EngineUnavailable) as error:
        sys.exit(f"error: {error}")
