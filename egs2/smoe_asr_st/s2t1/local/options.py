"""ESPnet's options as stage programs get them behind ``--``: a YAML and what overrides it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

UTT2CATEGORY = "utt2category"  # beside the first data file: ESPnet's folded batches of one category
CATEGORY2UTT = "category2utt"  # the same, for iterator_type: category


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


def conf_value(options: list[str], conf: str, name: str, default: Any = None) -> Any:
    """One setting of a ``<part>_conf``: of ``--<conf> name=value``, else of the YAML.

    ESPnet's command line adds to the YAML's mapping; a mapping in braces is read too.
    """
    found = (config_of(options).get(conf) or {}).get(name, default)
    given = [options[i + 1] for i, option in enumerate(options[:-1]) if option == f"--{conf}"]
    given += [o.partition("=")[2] for o in options if o.startswith(f"--{conf}=")]
    for text in given:
        key, equals, value = text.partition("=")
        if equals and key == name:
            found = yaml.safe_load(value)
        elif text.lstrip().startswith("{"):
            found = (yaml.safe_load(text) or {}).get(name, found)
    return found


def iterator_type(options: list[str], *, training: bool) -> str:
    """ESPnet's iterator of training or validation: ``task`` follows stage 6's plan."""
    chosen = setting(options, "iterator_type", "sequence")
    if not training:
        chosen = setting(options, "valid_iterator_type") or chosen
    return str(chosen)


def data_dir(options: list[str], part: str) -> Path | None:
    """Directory of the first data file of ``train`` or ``valid``, where ESPnet looks for more."""
    name = f"--{part}_data_path_and_name_and_type"
    values = [options[i + 1] for i, option in enumerate(options[:-1]) if option == name]
    return Path(values[0].split(",")[0]).parent if values else None
