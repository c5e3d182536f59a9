"""Every knob: its default, its bounds, and one line of help."""

import ipaddress
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

__all__ = ["MAX_OVERLAY_SIZE", "PROJECT", "Settings"]

MAX_OVERLAY_SIZE = 1024
"""Longest side of an overlay, pixels: no more of a photo is kept while it is in work."""

PROJECT = Path(__file__).resolve().parent.parent
"""Where relative model paths start: the directory that holds `app/`."""


MIN_KEY_LENGTH = 16
"""Characters of an API key: 64 bits even where all of them are hexadecimal digits."""

_MIN_KEY_ALPHABET = 5  # different characters; 16 random hexadecimal digits have about ten
_KEY = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)  # token68, RFC 9110, 11.2
_ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d+)?", re.ASCII)
_HOST = re.compile(r"(\*\.)?([a-z0-9_-]+\.)*[a-z0-9_-]+|\[[0-9a-f:.]+\]", re.ASCII)
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*", re.ASCII)


def _refuse(message: str, **context: object) -> PydanticCustomError:
    """An error with these words alone; `{name}` in them stands for `context[name]`."""
    return PydanticCustomError("setting", message, context)


def _items(value: object) -> object:
    """The items of a comma-separated list; () of None; anything else as it is."""
    if isinstance(value, str):
        return tuple(item for item in map(str.strip, value.split(",")) if item)
    return () if value is None else value


def _keys(value: object) -> object:
    """Keys from a comma-separated list.

    Raises:
        PydanticCustomError: there is none, or one is weak; the message holds no key.
    """
    keys = _items(value)
    if value is not None and not keys:
        raise _refuse("there is no key in it; unset it to serve without keys")
    if isinstance(keys, tuple):
        for number, key in enumerate(keys, 1):
            text = key.get_secret_value() if isinstance(key, SecretStr) else str(key)
            if not _KEY.fullmatch(text):
                raise _refuse(
                    "key {number} has characters other than ASCII letters, digits and ._~+/-",
                    number=number,
                )
            if len(text) < MIN_KEY_LENGTH:
                raise _refuse(
                    "key {number} is weak: it has {count} characters; {least} are needed, chosen "
                    "at random",
                    number=number,
                    count=len(text),
                    least=MIN_KEY_LENGTH,
                )
            if len(set(text)) < _MIN_KEY_ALPHABET:
                raise _refuse(
                    "key {number} is weak: it repeats {count} character(s); choose it at random, "
                    "as `openssl rand -hex 32` does",
                    number=number,
                    count=len(set(text)),
                )
    return keys


def _keys_in_file(value: object) -> object:
    """Keys from the file of that path: one a line; empty lines and those with # are left out.

    Raises:
        PydanticCustomError: as of `_keys`, or the file cannot be read.
    """
    if not isinstance(value, str | Path):
        return _keys(value)
    if value == "":
        raise _refuse("it names no file; unset it to serve without keys")
    try:
        lines = Path(value).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise _refuse("cannot read the file: {reason}", reason=str(error.strerror)) from None
    except UnicodeError:
        raise _refuse("cannot read the file: it is not UTF-8") from None
    lines = [line.strip() for line in lines]
    return _keys(tuple(line for line in lines if line and not line.startswith("#")))


def _origins(value: object) -> object:
    """Origins as browsers write them, or `*`."""
    origins = tuple(str(item).lower() for item in _listed(value))
    for origin in origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise _refuse(
                "'{origin}' is no origin: write https://name or https://name:port, without a path",
                origin=origin,
            )
    return origins


def _hosts(value: object) -> object:
    """Names as in a `Host` header without its port, `*.name` for all below one, or `*`."""
    hosts = tuple(str(item).lower() for item in _listed(value))
    if not hosts:
        raise _refuse("it names no host; * stands for any")
    for host in hosts:
        if host != "*" and not _HOST.fullmatch(host):
            raise _refuse("'{host}' is no host: write a name, *.name or *, no port", host=host)
    return hosts


def _proxies(value: object) -> object:
    """Addresses and networks, or `*`."""
    proxies = tuple(str(item) for item in _listed(value))
    for proxy in proxies:
        try:
            if proxy != "*":
                ipaddress.ip_network(proxy)
        except ValueError:
            raise _refuse("'{proxy}' is neither an address nor a network", proxy=proxy) from None
    return proxies


def _listed(value: object) -> Iterable[object]:
    items = _items(value)
    return items if isinstance(items, list | tuple) else (items,)


def _prefix(value: object) -> object:
    """A path without its last slash; empty for `/`."""
    prefix = str(value).rstrip("/")
    if not _PREFIX.fullmatch(prefix) or {".", ".."} & set(prefix.split("/")):
        raise _refuse("'{prefix}' is no path: write it like /breedcam", prefix=str(value))
    return prefix


def _room_for_one(value: int, info: ValidationInfo) -> int:
    """Bytes that hold at least one body."""
    if value < (max_bytes := info.data.get("max_bytes", 0)):
        raise _refuse(
            "{value} is less than BREEDCAM_MAX_BYTES, {max_bytes}: no photo of that size fits in",
            value=value,
            max_bytes=max_bytes,
        )
    return value


Names = tuple[str, ...]
Keys = tuple[SecretStr, ...]


class Settings(BaseSettings):
    """Read from the environment, each name with `BREEDCAM_` before it."""

    model_config = SettingsConfigDict(
        env_prefix="BREEDCAM_", frozen=True, extra="forbid", hide_input_in_errors=True
    )

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for every one")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 picks a free one")
    model: Path = Field(
        Path("models/dogs120"),
        description="`models/<name>` (its newest version) or `models/<name>/<version>`; a relative "
        "path starts at the project, not at the working directory",
    )
    model_poll_s: float = Field(
        10.0,
        ge=0,
        le=3600,
        description="seconds between two looks for another version in `models/<name>`; 0: only on "
        "SIGHUP",
    )
    engine: Literal["auto", "openvino", "tensorflow"] = Field(
        "auto",
        description="`openvino`, `tensorflow`, or auto: TensorFlow where it and an NVIDIA GPU are "
        "found, else OpenVINO",
    )
    device: Literal["auto", "cpu", "gpu"] = Field(
        "auto",
        description="`cpu`, `gpu` or auto; a GPU that is asked for and absent is a warning, and "
        "the CPU is used",
    )
    precision: Literal["auto", "float32", "bfloat16", "float16", "int8"] = Field(
        "auto",
        description="`float32`, `bfloat16`, `float16` (GPUs only), `int8` (CPUs only), or auto: "
        "int8 where the model has it and the CPU has VNNI or AMX, else bfloat16 where CPU or GPU "
        "has it, float16 on older GPUs with tensor cores, else float32",
    )
    threads: int = Field(0, ge=0, le=1024, description="inference threads; 0: one a core")
    max_bytes: int = Field(20_000_000, ge=1024, description="bytes of a request's body")
    max_pixels: int = Field(50_000_000, ge=1, description="pixels of a photo, width x height")
    max_pending: int = Field(
        32, ge=1, le=100_000, description="requests in work at once; one more is answered 429"
    )
    max_batch: int = Field(8, ge=1, le=64, description="photos in one call of the model")
    max_pending_bytes: Annotated[int, AfterValidator(_room_for_one)] = Field(
        256_000_000,
        validate_default=True,
        description="bytes of the bodies that are being read or in work, and of the answers that "
        "are being sent; at least `BREEDCAM_MAX_BYTES`",
    )
    batch_wait_ms: Annotated[float, Field(ge=0, le=1000)] | Literal["auto"] = Field(
        "auto", description="how long a batch waits to fill up; auto: 0 on a CPU, 3 on a GPU"
    )
    deadline_s: float = Field(
        30.0, gt=0, le=3600, description="from a request's arrival; past it the answer is 504"
    )
    stuck_s: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="a call of the model that takes longer hangs: `/livez` fails, and the process "
        "ends to be restarted",
    )
    decoders: int = Field(
        2,
        ge=1,
        le=64,
        description="processes that decode photos; one more decodes large ones",
    )
    decode_s: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="processor time for decoding a photo, seconds; past it the answer is 413",
    )
    max_pending_pixels: int = Field(
        500_000_000,
        ge=1,
        description="pixels, weighed by their cost, of the large photos that wait or are decoded; "
        "one more is answered 429",
    )
    max_connections: int = Field(
        512,
        ge=1,
        le=100_000,
        description="open connections; one more takes the place of one that does nothing, or is "
        "answered 503",
    )
    header_timeout_s: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="for a request's header to arrive; past it the answer is 408",
    )
    read_timeout_s: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="in each such time, 1 kB a second of a body must arrive, or the answer is 408",
    )
    write_timeout_s: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="in each such time, a client must take 1 kB a second of its answer, or is "
        "disconnected",
    )
    keep_alive_s: float = Field(
        10.0, gt=0, le=3600, description="how long a connection may stay open between requests"
    )
    image_threads: int = Field(2, ge=1, le=64, description="threads that draw and write answers")
    overlay_size: int = Field(
        512, ge=16, le=MAX_OVERLAY_SIZE, description="default longest side of the overlay, pixels"
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="`text`, or `json`: one object a line"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least level that is logged"
    )
    api_keys: Annotated[Keys, NoDecode, BeforeValidator(_keys)] = Field(
        None,
        validate_default=True,
        description="keys, separated by commas; where there are any, requests need one",
    )
    api_keys_file: Annotated[Keys, NoDecode, BeforeValidator(_keys_in_file)] = Field(
        None,
        validate_default=True,
        description="file with more keys, one a line; lines that start with # are comments",
    )
    cors_origins: Annotated[Names, NoDecode, BeforeValidator(_origins)] = Field(
        None,
        validate_default=True,
        description="origins whose pages may call the service, separated by commas; `*` for any",
    )
    trusted_hosts: Annotated[Names, NoDecode, BeforeValidator(_hosts)] = Field(
        "*",
        validate_default=True,
        description="names in `Host` that are answered, separated by commas; `*.example.org` for "
        "all below a name, `*` for any",
    )
    trusted_proxies: Annotated[Names, NoDecode, BeforeValidator(_proxies)] = Field(
        "127.0.0.1,::1",
        validate_default=True,
        description="addresses and networks of proxies whose `X-Forwarded-For` and "
        "`X-Forwarded-Proto` are believed",
    )
    root_path: Annotated[str, BeforeValidator(_prefix)] = Field(
        "/",
        validate_default=True,
        description="path prefix under which a proxy serves this, whether it strips it or not",
    )
    docs: bool = Field(True, description="serve `/docs` and `/openapi.json`")
    ratings: Path | None = Field(
        None,
        description="SQLite file that keeps what raters think of heatmaps, with `/ratings`; unset: "
        "off",
    )
    metrics: bool = Field(True, description="serve `/metrics`")

    @classmethod
    def unknown(cls, environment: Iterable[str]) -> list[str]:
        """Variables that look like settings and are none: typing errors, most likely."""
        prefix = cls.model_config["env_prefix"]
        known = {f"{prefix}{name}".upper() for name in cls.model_fields}
        return sorted(
            name
            for name in environment
            if name.upper().startswith(prefix) and name.upper() not in known
        )

    @property
    def keys(self) -> Keys:
        """The keys of `api_keys` and `api_keys_file`; without any, the service is open."""
        return self.api_keys + self.api_keys_file

    def batch_wait_s(self, *, on_gpu: bool) -> float:
        """`batch_wait_ms` in seconds, or what suits the device."""
        wait_ms = self.batch_wait_ms
        if wait_ms == "auto":
            wait_ms = 3.0 if on_gpu else 0.0
        return wait_ms / 1000

    @property
    def engine_options(self) -> dict[str, Any]:
        """The arguments of `engines.create`."""
        return self.model_dump(include={"engine", "device", "precision", "threads"})

    @property
    def model_path(self) -> Path:
        """`model`, absolute."""
        return PROJECT / self.model
