"""ESPnet's options as stage programs get them behind ``--``: a YAML and what overrides it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def behind_dashes(remainder: list[str]) -> list[str]:
    """What argparse.REMAINDER holds, without its leading ``--``."""
    return remainder[1:] if remainder[:1] == ["--"] else remainder


def value_of(options: list[str], name: str) -> str | None:
    """The last value given for an option, ``--name value`` or ``--name=value``; None: not given."""
    found = None
    for index, option in enumerate(options):
        if option == f"--{name}" and index + 1 < len(options):
            found = options[index + 1]
        elif option.startswith(f"--{name}="):
            found = option.partition("=")[2]
    return found


def config_of(options: list[str]) -> dict[str, Any]:
    """The content of ``--config``."""
    path = value_of(options, "config")
    return (yaml.safe_load(Path(path).read_text(encoding="utf-8")) if path else None) or {}


def setting(options: list[str], name: str, default: Any = None) -> Any:
    """A setting as ESPnet sees it: the command line's, else the YAML's, else the default."""
    value = value_of(options, name)
    return config_of(options).get(name, default) if value is None else yaml.safe_load(value)
