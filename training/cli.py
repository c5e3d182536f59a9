"""The command line: one subcommand a class, its fields the options."""

import sys
from pathlib import Path
from typing import Self

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, CliApp, CliSubCommand
from pydantic_settings import PydanticBaseSettingsSource as Source

from app.bundle import BundleError
from app.engines import EngineUnavailable
from training.config import TrainConfig
from training.errors import RunError, TrainingError
from training.export_commands import Bootstrap, Export
from training.hints import command
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
        if "teachers" in given:
            given["teachers"] = [path.resolve() for path in given["teachers"]]
        for name in ("weights", "head"):
            if given.get(name, "imagenet") not in ("imagenet", "none", "random"):
                given[name] = str(Path(given[name]).resolve())
        return PRESETS[self.preset].model_validate(given)


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
