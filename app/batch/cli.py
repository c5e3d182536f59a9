"""The command `python -m app.batch`."""

import asyncio
import logging
import os
import re
import signal
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, get_args

from pydantic import ValidationError

from app import bundle as bundles
from app import evidence, heap, logs
from app.batch import coco
from app.batch.errors import BatchError, UsageError
from app.batch.inputs import Source, open_input
from app.batch.output import Manifest, Output, model_id
from app.batch.work import QUERIES, Work
from app.bundle import ModelCard
from app.classes import classes_of
from app.errors import BreedCAMError, RequestError
from app.evidence import MethodAtLayers
from app.progress import bar
from app.schemas import ExplainQuery, GradcamQuery, PredictQuery
from app.service import Service
from app.settings import Settings
from app.watchdog import end_process
from app.wording import sentences, setting_sentences

__all__ = ["main", "parser"]

log = logging.getLogger(__name__)

EXIT_USAGE = 2

_QUERY_OPTIONS = [
    name for name in GradcamQuery.model_fields if name not in ("box", "curve", "overlay")
]

_SETTINGS = {
    *("engine", "device", "precision", "max_bytes", "max_pixels", "decode_s", "overlay_size"),
}
"""Those on which an answer depends."""

_EPILOG = """\
IN is a folder; a text file with a path on each line; a COCO file (.json); or a Parquet file with
the column path, or bytes. The settings are those of the service: BREEDCAM_* variables.

A run that was ended in any way goes on where it was when the same command is given again."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command; an error that a user can fix ends in one line.

    Args:
        arguments: default: those of this process.
    """
    options = parser().parse_args(arguments)
    settings = _settings()
    signals = _Signals()
    try:
        with signals.handled():
            _run(options, settings, _query(options))
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted. The same command goes on with the parts that are missing.\n")
        sys.exit(128 + signals.last)
    except UsageError as error:
        _refuse([str(error)])
    except (BatchError, BreedCAMError) as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.filename or 'the output'}: {error.strerror}")


class _Signals:
    """Has SIGTERM interrupt as SIGINT does, and remembers which of them came last."""

    def __init__(self) -> None:
        self.last = int(signal.SIGINT)

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Do so while the block runs.

        Shells start background jobs of scripts with SIGINT ignored, and SIGTERM would be, too.
        """
        before = {
            signal.SIGTERM: signal.signal(signal.SIGTERM, self._terminate),
            signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        self.last = number
        signal.raise_signal(signal.SIGINT)


class _Parser(ArgumentParser):
    """A parser that says what is wrong without the usage, which would hide it."""

    def error(self, message: str) -> NoReturn:
        _refuse([f"{message.removesuffix('.')}. See `{self.prog} --help`."])


def parser() -> ArgumentParser:
    """The command's options."""
    options = _Parser(
        prog="python -m app.batch",
        description="Explain many photos: a row for each. An interrupted run can be resumed.",
        epilog=_EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    options.add_argument("input", metavar="IN", type=Path, help="the photos")
    options.add_argument("output", metavar="OUT", type=_folder, help="folder of the output")
    options.add_argument(
        "--endpoint",
        choices=QUERIES,
        default="gradcam",
        help="whose answers the rows have (default: gradcam)",
    )
    options.add_argument(
        "--rows",
        choices=("jsonl", "parquet"),
        default="jsonl",
        help="format of the rows (default: jsonl)",
    )
    options.add_argument(
        "--overlays", action="store_true", help="write each photo's overlay, a PNG"
    )
    options.add_argument("--coco", action="store_true", help=f"write the boxes as {coco.NAME}")
    options.add_argument(
        "--part-photos",
        type=_positive,
        default=256,
        metavar="N",
        help="photos per part; a part is written as a whole (default: 256)",
    )
    options.add_argument(
        "--ray", action="store_true", help="run on a Ray cluster, which is started here by default"
    )
    options.add_argument(
        "--ray-address", metavar="ADDRESS", help="with --ray: address of a running cluster"
    )
    options.add_argument(
        "--workers",
        type=_positive,
        metavar="N",
        help="with --ray: how many processes, each with a model (default: one for each GPU, else "
        "one for each machine)",
    )
    group = options.add_argument_group("parameters of the endpoint")
    for name in _QUERY_OPTIONS:
        field = GradcamQuery.model_fields[name]
        help_text = field.description or ", ".join(get_args(field.annotation))
        group.add_argument(_option(name), metavar="X", help=help_text.replace("%", "%%"))
    return options


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def _folder(text: str) -> Path:
    if not text:
        raise ArgumentTypeError("it is empty")
    if Path(text).exists() and not Path(text).is_dir():
        raise ArgumentTypeError(f"{text!r} is not a folder")
    return Path(text)


def _run(options: Namespace, settings: Settings, query: PredictQuery) -> None:
    logged = settings.log_level if "log_level" in settings.model_fields_set else "warning"
    logs.configure(settings.log_format, logged)
    if unknown := Settings.unknown(os.environ):
        log.warning("no such setting: %s", ", ".join(unknown))
    if options.coco and not isinstance(query, ExplainQuery):
        raise UsageError("--coco needs boxes, which predict does not give")
    for name in ("workers", "ray_address"):
        if getattr(options, name) and not options.ray:
            raise UsageError(f"{_option(name)} has no effect without --ray")
    if options.output.resolve().is_relative_to(options.input.resolve()):
        raise UsageError("the output must not lie in the input")
    card = bundles.load(settings.model_path).card
    _check(card, query)
    source = open_input(options.input)
    if not len(source):
        raise BatchError(f"There are no photos in {options.input}.")
    output = Output(options.output, _manifest(options, settings, card, query, source))
    with output.held():
        missing = output.missing()
        if missing:
            for path in (output.summary_path, output.folder / coco.NAME):
                path.unlink(missing_ok=True)  # of a run whose parts were deleted afterwards
            _write(options, settings, source, output, missing)
            if missing := output.missing():
                name = output.part(missing[0]).name
                raise BatchError(f"{name} is not written: the same command goes on with it.")
        if options.coco:
            coco.write(output)
        _say(output.summarise())


def _settings() -> Settings:
    """The settings; ends the process where one of them cannot be right."""
    try:
        return Settings()
    except ValidationError as error:
        _refuse(setting_sentences(error))


def _query(options: Namespace) -> PredictQuery:
    """The endpoint's parameters; ends the process where one of them cannot be right.

    Raises:
        UsageError: the endpoint has no overlays.
    """
    values = {name: getattr(options, name) for name in _QUERY_OPTIONS}
    chosen = {name: value for name, value in values.items() if value is not None}
    if options.endpoint != "predict":
        chosen["overlay"] = options.overlays
    elif options.overlays:
        raise UsageError("--overlays needs a heatmap, which predict does not give")
    kind = QUERIES[options.endpoint]
    try:
        return kind.model_validate(chosen)
    except ValidationError as error:
        faults = [{**fault, "loc": (_option(str(fault["loc"][0])),)} for fault in error.errors()]
        names = [_option(name) for name in _QUERY_OPTIONS if name in kind.model_fields]
        _refuse(sentences(faults, names=names))


_PARAMETER = re.compile(rf"`({'|'.join(_QUERY_OPTIONS)})`")


def _as_option(parameter: re.Match[str]) -> str:
    return _option(parameter[1])


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _refuse(reasons: list[str]) -> NoReturn:
    for reason in reasons:
        sys.stderr.write(f"error: {reason.removesuffix('.')}.\n")
    sys.exit(EXIT_USAGE)


def _check(card: ModelCard, query: PredictQuery) -> None:
    """Refuse at once what would be refused with every photo.

    Raises:
        UsageError: the model has no such method, layer, rule or class, or options need others.
    """
    if isinstance(query, ExplainQuery):
        if query.mask and not query.overlay:
            raise UsageError("--mask has no effect without --overlays")
        if query.space == "photo" and not (query.mask or query.heatmap):
            raise UsageError("--space has no effect without --heatmap or --mask")
        try:
            spec = MethodAtLayers.parse(card, query.method, query.layers)
            evidence.fused_rule(card, spec, query.rule)
            classes_of(card, query)
        except RequestError as error:
            raise UsageError(_PARAMETER.sub(_as_option, str(error))) from error


def _manifest(
    options: Namespace, settings: Settings, card: ModelCard, query: PredictQuery, source: Source
) -> Manifest:
    return Manifest(
        photos=len(source),
        input=source.digest(),
        model=model_id(card),
        endpoint=options.endpoint,
        query=query.model_dump(mode="json", exclude={"box", "curve"}),
        settings=settings.model_dump(mode="json", include=_SETTINGS),
        part_photos=options.part_photos,
        rows=options.rows,
        overlays=options.overlays,
    )


def _write(
    options: Namespace, settings: Settings, source: Source, output: Output, missing: list[int]
) -> None:
    """Write the parts that are missing, with progress on standard error."""
    bounds = map(output.manifest.bounds, missing)
    done = len(source) - sum(stop - start for start, stop in bounds)
    # A part of photos that is not written is done anew: the bar begins with those that are.
    with bar("photos", total=len(source), initial=done) as progress:
        if options.ray:
            from app.batch.cluster import run

            address, workers = options.ray_address, options.workers
            run(source, output, settings, missing, address, workers, progress.update)
        else:
            asyncio.run(_explain(settings, source, output, missing, progress.update))


async def _explain(
    settings: Settings,
    source: Source,
    output: Output,
    missing: list[int],
    advance: Callable[[int], object],
) -> None:
    heap.bound()
    service = Service.open(settings)
    async with service.running(end_process) as explainer:
        await Work(explainer, source, output.manifest, advance).run(missing, output)


def _say(summary: dict[str, Any]) -> None:
    problems = summary["photos"] - summary["answered"]
    photos = "1 photo" if summary["photos"] == 1 else f"{summary['photos']:,} photos"
    line = f"{photos}: {summary['answered']:,} answered, {problems:,} refused"
    kinds = ", ".join(
        f"{kind.rpartition(':')[2]} {count:,}" for kind, count in summary["problems"].items()
    )
    sys.stderr.write(f"{line} ({kinds}).\n" if kinds else f"{line}.\n")
