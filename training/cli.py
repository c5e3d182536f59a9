"""The command line: one subcommand a class, its fields the options."""

import sys
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, CliApp, CliSubCommand

from app.errors import BreedCAMError
from training.config import TrainConfig
from training.errors import RunError, TrainingError

__all__ = ["main"]

EXIT_INTERRUPTED = 130


class Train(TrainConfig):
    """Fine-tune a ResNet50 with global average pooling and one Dense layer.

    Interrupt it at any time; `--resume` continues a run as it was configured.
    """

    run: Path = Field(Path("runs/dogs"), description="directory of the run")
    resume: bool = Field(False, description="continue the run; the other options are its own")

    def cli_cmd(self) -> None:
        """Run the subcommand."""
        from training.data import stanford_dogs
        from training.training import Interrupted, Run

        config = self._config()
        dataset = stanford_dogs(
            config.data_dir,
            breeds=config.breeds,
            validation_share=config.validation_share,
            seed=config.seed,
            limit=config.limit,
        )
        say(f"{dataset.name}: {len(dataset.labels)} classes, {dataset.sizes}")
        run = Run(self.run, config, dataset)
        try:
            run.fit()
        except Interrupted:
            say(
                f"Saved at step {run.step} of {run.total_steps}. Continue with:\n"
                f"  python -m training train --run {self.run} --resume"
            )
            sys.exit(EXIT_INTERRUPTED)
        say(f"Done. Next: python -m training export --run {self.run}")

    def _config(self) -> TrainConfig:
        """What to run: the stored configuration when resuming, else the options."""
        path = self.run / "config.json"
        if self.resume:
            if not path.exists():
                raise RunError(f"{self.run} holds no run to resume.")
            return TrainConfig.model_validate_json(path.read_bytes())
        if path.exists():
            raise RunError(f"{self.run} holds a run already: pass --resume, or another --run.")
        return TrainConfig.model_validate(self.model_dump(exclude={"run", "resume"}))


class Training(
    BaseSettings,
    cli_prog_name="python -m training",
    cli_kebab_case=True,
    cli_implicit_flags=True,
    cli_avoid_json=True,
    cli_hide_none_type=True,
    env_prefix="BREEDCAM_TRAINING_",
):
    """BreedCAM's offline half: from photos to a model version that explains itself."""

    train: CliSubCommand[Train]

    def cli_cmd(self) -> None:
        """Run the chosen subcommand."""
        CliApp.run_subcommand(self)


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and run it; errors that a user can mend end in one line."""
    try:
        CliApp.run(Training, cli_args=arguments)
    except ValidationError as error:
        for problem in error.errors():
            option = "--" + "-".join(str(part) for part in problem["loc"][1:]).replace("_", "-")
            say(f"{option}: {problem['msg']}")
        sys.exit(2)
    except (TrainingError, BreedCAMError) as error:
        sys.exit(f"error: {error}")


def say(message: str) -> None:
    """Speak to the person at the terminal; standard output is for results."""
    print(message, file=sys.stderr, flush=True)
