"""docker-compose.yml as the tests read it: its services, and one as `docker run` takes it."""

import re
from typing import Any

import yaml

from app.settings import PROJECT

__all__ = ["COMPOSE", "default_profile", "limits", "services"]

COMPOSE = PROJECT / "docker-compose.yml"

Service = dict[str, Any]

_VARIABLE = re.compile(r"\$\{\w+:-([^}]*)\}")

_FLAGS = {"init": "--init", "read_only": "--read-only"}
_VALUES = {
    "mem_limit": "--memory",
    "memswap_limit": "--memory-swap",
    "pids_limit": "--pids-limit",
    "restart": "--restart",
}
_LISTS = {"cap_drop": "--cap-drop", "security_opt": "--security-opt", "tmpfs": "--tmpfs"}
_ELSEWHERE = {"build", "env_file", "image", "networks", "ports", "profiles", "volumes"}
"""What a test sets itself, or what concerns compose alone."""


def services(*profiles: str) -> dict[str, Service]:
    """The services that these profiles start, with every variable at its default."""
    text = _VARIABLE.sub(r"\1", COMPOSE.read_text(encoding="utf-8"))
    everything: dict[str, Service] = yaml.safe_load(text)["services"]
    return {
        name: service
        for name, service in everything.items()
        if not service.get("profiles") or set(profiles) & set(service["profiles"])
    }


def default_profile() -> str:
    """What `docker compose up` starts."""
    variables = (PROJECT / ".env").read_text(encoding="utf-8")
    [profile] = re.findall(r"^COMPOSE_PROFILES=(\w+)$", variables, re.M)
    return str(profile)


def limits(service: Service) -> list[str]:
    """Environment, limits and policies of a service, as options of `docker run`.

    Raises:
        KeyError: the service has a key that is not known here.
    """
    options: list[str] = []
    for key, value in service.items():
        if key in _FLAGS:
            options += [_FLAGS[key]] if value else []
        elif key in _VALUES:
            options += [_VALUES[key], str(value)]
        elif key in _LISTS:
            options += [part for item in value for part in (_LISTS[key], item)]
        elif key == "environment":
            options += [part for name in value for part in ("--env", f"{name}={value[name]}")]
        elif key == "logging":
            options += ["--log-driver", value["driver"]]
            options += [
                part
                for name, setting in value["options"].items()
                for part in ("--log-opt", f"{name}={setting}")
            ]
        elif key == "stop_grace_period":
            options += ["--stop-timeout", value.removesuffix("s")]
        elif key not in _ELSEWHERE:
            raise KeyError(key)
    return options
