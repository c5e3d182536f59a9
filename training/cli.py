"""The command line: a subcommand is a class, and its fields are the options."""

import sys
from pathlib import Path
from typing import Self

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, CliApp, CliSubCommand
from pydantic_settings import PydanticBaseSettingsSource as Source

from app.bundle import BundleError
from app.engines import EngineUnavailable
from training.commands.export import Bootstrap, Export
from training.commands.int8 import AddInt8
from training.commands.measure import Calibrate, Evaluate
from training.commands.onnx import Onnx
from training.commands.terminal import say
from training.config import TrainConfig
from training.errors import RunError, TrainingError
from training.hints import command
from training.options import Directory, File, settings_source
from training.presets import PRESETS, Finetune
from training.quiet import start_tensorflow

__all__ = ["main"]

EXIT_INTERRUPTED = 130


class Train(Finetune):
    """Train a network: a preset sets all values, and options override it.

    The defaults below are those of the preset finetune. Training uses all GPUs of this host, or
    the hosts that TF_CONFIG names. It can be interrupted at any time; `--resume` continues a run
    with the configuration it was started with.
    """

    run: Directory = Field(Path("runs/dogs"), description="directory of the run")
    resume: bool = Field(
        False, description="continue the run from its last checkpoint; other options have no effect"
    )

    # These two are checked by the chosen preset, with its own values.
    @model_validator(mode="after")
    def _one_size(self) -> Self:
        return self

    @model_validator(mode="after")
    def _has_weights(self) -> Self:
        return self

    def cli_cmd(self) -> None:
        """Run the subcommand."""
        config = self._config()
        start_tensorflow()
        from training.data.loading import load_dataset
        from training.fit.devices import all_devices
        from training.fit.run import Interrupted, Run
        from training.fit.summary import summarise

        devices = all_devices()
        dataset = load_dataset(config)
        sizes = ", ".join(f"{size:,} {split}" for split, size in dataset.sizes.items())
        say(f"{dataset.name}: {len(dataset.labels)} classes; photos: {sizes}")
        run = Run(self.run, config, dataset, devices=devices)
        if run.finished:
            say(f"This run is finished: {run.step} of {run.total_steps} steps.")
        elif self.resume:
            say(f"Resuming {self.run} from {run.position}.")
        try:
            run.fit()
        except Interrupted:
            say(
                f"Saved at step {run.step} of {run.total_steps}. Continue with:\n"
                f"  {command('train', '--run', self.run, '--resume')}"
            )
            sys.exit(EXIT_INTERRUPTED)
        if run.stopped_early:
            say(f"Stopped after epoch {run.epochs}: validation accuracy no longer improved.")
        if run.devices.is_chief:
            print(summarise(run))
        say(f"Done. Next:\n  {command('export', '--run', self.run)}")

    def _config(self) -> TrainConfig:
        """The stored configuration when resuming, else the preset with the options."""
        if self.resume:
            return TrainConfig.of_run(self.run)
        if (self.run / "config.json").exists():
            raise RunError(f"{self.run} already holds a run: pass --resume, or another --run.")
        options = self.model_dump(exclude={"run", "resume"}, exclude_unset=True)
        # Absolute paths, so that a run can be resumed and exported from any directory.
        for name in ("data_dir", "boxes"):
            if options.get(name):
                options[name] = options[name].resolve()
        if "teacher_weight" in options and not options.get("teachers"):
            raise RunError("--teacher-weight has no effect without --teachers.")
        if "teachers" in options:
            options["teachers"] = [path.resolve() for path in options["teachers"]]
        for name in ("weights", "head"):
            if options.get(name, "imagenet") not in ("imagenet", "none", "random"):
                options[name] = str(Path(options[name]).resolve())
        return PRESETS[self.preset].model_validate(options)


class Report(BaseModel):
    """Render an evaluation as an HTML report: `index.html` and its plots as SVG files.

    The page loads nothing from the network. With a gallery, it shows photos: a directory inside
    the project is then refused.
    """

    figures: File = Field(description="the JSON file that `evaluate --out` wrote")
    out: Directory = Field(description="directory of the report")
    ratings: File | None = Field(
        None, description="the file of BREEDCAM_RATINGS: what people prefer gets a section"
    )

    def cli_cmd(self) -> None:
        """Run the subcommand."""
        from training.report.page import report

        say(f"Wrote {report(self.figures, self.out, self.ratings)}.")


class Training(
    BaseSettings,
    cli_prog_name="python -m training",
    cli_kebab_case=True,
    cli_implicit_flags=True,
    cli_avoid_json=True,
    cli_enforce_required=True,
    cli_hide_none_type=True,
):
    """Train, export, calibrate and evaluate the models that BreedCAM serves."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: Source,
        env_settings: Source,
        dotenv_settings: Source,
        file_secret_settings: Source,
    ) -> tuple[Source, ...]:
        """The command line, which pydantic-settings adds; no environment variable is read."""
        return (init_settings,)

    train: CliSubCommand[Train] = Field(description="train a network on photos")
    export: CliSubCommand[Export] = Field(
        description="write a run, or a Keras model, as a model version"
    )
    bootstrap: CliSubCommand[Bootstrap] = Field(
        description="write a model of 120 breeds without training"
    )
    calibrate: CliSubCommand[Calibrate] = Field(
        description="find thresholds, box rules and limits of confidence"
    )
    evaluate: CliSubCommand[Evaluate] = Field(
        description="measure a model version on the test split"
    )
    onnx: CliSubCommand[Onnx] = Field(description="write a model version as an ONNX file")
    int8: CliSubCommand[AddInt8] = Field(
        description="add a graph in 8-bit integers to a model version"
    )
    report: CliSubCommand[Report] = Field(description="render an evaluation as an HTML page")

    def cli_cmd(self) -> None:
        """Run the chosen subcommand."""
        CliApp.run_subcommand(self)


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and run it; an error that a user can fix ends in one line.

    Args:
        arguments: of the command line; default: those of this process.
    """
    try:
        CliApp.run(Training, cli_args=arguments, cli_settings_source=settings_source(Training))
    except ValidationError as error:
        for problem in error.errors():
            message = problem["msg"].removeprefix("Value error, ")
            option = _option(problem["loc"])
            say(f"{option}: {message}" if option else f"error: {message}")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except (TrainingError, BundleError, EngineUnavailable) as error:
        sys.exit(f"error: {error}")


def _option(location: tuple[int | str, ...]) -> str:
    """The option of a validation error at `train, stages, 0`: the first name is a subcommand."""
    names = [part for part in location if part not in Training.model_fields]
    return f"--{names[0]}".replace("_", "-") if names else ""
