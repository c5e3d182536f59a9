"""The command line: one subcommand a class, its fields the options."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, CliApp, CliSubCommand
from pydantic_settings import PydanticBaseSettingsSource as Source

from app.bundle import BundleError
from app.engines import EngineUnavailable
from training.config import TrainConfig
from training.errors import ExportError, RunError, TrainingError
from training.hints import command, photo_options
from training.measuring import Calibrate, Evaluate
from training.presets import PRESETS, Finetune
from training.terminal import say

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
        if given.get("weights", "imagenet") not in ("imagenet", "none"):
            given["weights"] = str(Path(given["weights"]).resolve())
        return PRESETS[self.preset].model_validate(given)


class _NewVersion(BaseModel):
    models_dir: Path = Field(Path("models"), description="where model versions are kept")
    name: str = Field("dogs", pattern=r"[a-z0-9][a-z0-9_-]*", description="the model's name")
    version: int | None = Field(None, ge=1, description="default: the next one")
    overwrite: bool = Field(False, description="replace the version if it is there")
    licence: str = Field("", description="what model.json says of the weights' licence")
    provenance: str = Field("", description="what model.json says of where the weights come from")

    @property
    def place(self) -> Path:
        """The version's directory."""
        from training.export import next_version

        version = self.version or next_version(self.models_dir / self.name)
        return self.models_dir / self.name / str(version)

    @property
    def told(self) -> dict[str, Any]:
        """What every export is told."""
        return self.model_dump(include={"licence", "provenance", "overwrite"})

    @staticmethod
    def _say_next(place: Path, photos: Sequence[str | Path] = ()) -> None:
        say(f"Wrote {place}. Next:\n  {command('calibrate', '--model', place, *photos)}")


_OF_A_RUN, _OF_KERAS = ("run", "photos"), ("labels", "input_size", "preprocessing")
"""Fields of `Export` that apply to one of its sources alone."""


class Export(_NewVersion):
    """Write a run, or a Keras model of your own, as a model version that explains itself."""

    run: Path = Field(Path("runs/dogs"), description="directory of the run")
    photos: int = Field(1000, ge=1, description="training photos for foreground and novelty")
    keras: Path | None = Field(None, description="in place of a run, a .keras or whole .h5 model")
    labels: Path | None = Field(
        None, description="of a Keras model: its classes, one `name` or `synset<TAB>name` a line"
    )
    input_size: int | None = Field(
        None, ge=16, le=1024, description="of a Keras model that takes any: pixels"
    )
    preprocessing: Literal["caffe", "none"] = Field(
        "none", description="of a Keras model: what it wants done to RGB 0..255 beforehand"
    )

    def cli_cmd(self) -> None:
        """Run the subcommand."""
        self._check_given()
        place = self.place
        if self.keras is not None:
            self._export_keras(self.keras, place)
            say(f"Wrote {place}. Its thresholds are the default; calibrate finds better ones.")
            return
        from training.export import export_run

        export_run(self.run, place, photos=self.photos, **self.told)
        self._say_next(place, photo_options(TrainConfig.of_run(self.run)))

    def _check_given(self) -> None:
        """Refuse options that would have no effect."""
        names, why = (
            (_OF_KERAS, "goes with --keras FILE alone")
            if self.keras is None
            else (_OF_A_RUN, "is of a run, and has no effect with --keras")
        )
        for name in names:
            if name in self.model_fields_set:
                raise ExportError(f"--{name.replace('_', '-')} {why}.")

    def _export_keras(self, path: Path, place: Path) -> None:
        from training.keras_file import export_keras
        from training.preprocessing import Preprocessing

        if self.labels is None:
            raise ExportError("--keras FILE needs --labels FILE: its classes, one a line.")
        export_keras(
            path,
            self.labels,
            place,
            input_size=self.input_size,
            preprocessing=Preprocessing(self.preprocessing),
            **self.told,
        )


class Bootstrap(_NewVersion):
    """Write a model of 120 breeds with no training, from Keras's ImageNet ResNet50."""

    name: str = Field("dogs120", pattern=r"[a-z0-9][a-z0-9_-]*", description="the model's name")
    weights: str = Field("imagenet", description="imagenet, or a file with the top")

    def cli_cmd(self) -> None:
        """Run the subcommand."""
        from training.bootstrap import bootstrap

        place = self.place
        bootstrap(place, weights=self.weights, **self.told)
        self._say_next(place)


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
