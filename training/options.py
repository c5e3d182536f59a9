"""How options appear in `--help`: placeholders that a person can type, defaults as typed."""

import inspect
from argparse import Action, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, CliSettingsSource

__all__ = ["Directory", "File", "Metavar", "help_text", "metavar", "settings_source"]


@dataclass(frozen=True)
class Metavar:
    """The placeholder of an option's value, where its type does not say enough."""

    text: str


Directory = Annotated[Path, Metavar("DIR")]
File = Annotated[Path, Metavar("FILE")]

_BY_TYPE: dict[Any, str] = {int: "N", float: "X", str: "TEXT", Path: "PATH"}


class _Parser(ArgumentParser):
    """A parser that says what is wrong without the usage, which would hide it."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse what is unknown at once: else the command would, whose help has no options."""
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return namespace, unknown

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message.removesuffix('.')}. See `{self.prog} --help`.\n")


def settings_source(settings: type[BaseSettings]) -> CliSettingsSource[Any]:
    """A parser of the settings' subcommands, whose help is that of this module."""

    def add_argument(parser: ArgumentParser, *flags: str, **options: Any) -> Action:
        field = _field(settings, options.get("dest", ""))
        if field is not None:
            # argparse formats help with `%`.
            options["help"] = help_text(field, flags[0]).replace("%", "%%")
            if "metavar" in options:  # flags take no value
                options["metavar"] = metavar(field.annotation, field.metadata)
        return parser.add_argument(*flags, **options)

    def add_parser(subparsers: Any, name: str, **options: Any) -> ArgumentParser:
        options["description"] = inspect.cleandoc(options["description"])
        return subparsers.add_parser(name, **options)  # type: ignore[no-any-return]

    root = _Parser(
        prog=settings.model_config["cli_prog_name"],
        description=inspect.getdoc(settings),
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return CliSettingsSource(
        settings, root_parser=root, add_argument_method=add_argument, add_parser_method=add_parser
    )


def _field(settings: type[BaseModel], dest: str) -> FieldInfo | None:
    """The field that an option fills, such as `train.batch_size`; None for `--help`."""
    *subcommands, name = dest.split(".")
    model: type[BaseModel] = settings
    for subcommand in subcommands:
        model = next(
            kind
            for kind in get_args(model.model_fields[subcommand].annotation)
            if kind is not type(None)
        )
    return model.model_fields.get(name)


def metavar(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """The placeholder of a value.

    Args:
        annotation: the field's type.
        metadata: of the field; a `Metavar` in it decides.
    """
    for entry in metadata:
        if isinstance(entry, Metavar):
            return entry.text
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return metavar(arguments[0], arguments[1:])
    if origin is Literal:
        return "{" + ",".join(_typed(value) for value in arguments) + "}"
    if origin is tuple:
        return f"{metavar(arguments[0])},..."
    if origin is not None:  # a union with None
        return metavar(*[kind for kind in arguments if kind is not type(None)])
    return _BY_TYPE[annotation]


def help_text(field: FieldInfo, flag: str = "") -> str:
    """A field's description with its default as it would be typed.

    Without a value, the description says what happens; a switch is off by default.

    Args:
        field: of a subcommand.
        flag: the option's name, `--augment`, which is a switch's default.
    """
    description = field.description or ""
    if field.is_required():
        note = "required"
    else:
        value = field.default
        if value is None or value is False or value in ("", ()):
            return description
        note = f"default: {flag if value is True else _typed(value)}"
    return f"{description} ({note})".lstrip()


def _typed(value: Any) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, tuple):
        return ",".join(map(_typed, value))
    if isinstance(value, float):
        return f"{value:g}"
    return str(value.value if isinstance(value, Enum) else value)
