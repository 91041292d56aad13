"""A system of the study on a corpus: the corpus's training config with what the system changes.

The corpora's configs (``conf/train_mini.yaml``, ``conf/train_mboshi_fr.yaml``) are S-MoE
conformers. A system's file (``conf/study/systems/<system>.yaml``) holds only what differs from
them, so that all systems of a corpus agree in everything else:

    encoder: conformer                        # merged over the corpus's, mappings key by key
    encoder_conf: {experts: null}             # null in encoder_conf or decoder_conf: no such option
    scale: {decoder_conf.linear_units: 2}     # the corpus's value times 2
    blocks: first_half                        # experts there only, on both sides
    data: ...                                 # for the harness; untouched

Nothing of torch or ESPnet is imported.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

SIDES = ("encoder_conf", "decoder_conf")  # where null takes an option out
# Which of n blocks have experts: half of them, rounded up, so that every choice is of one size.
BLOCKS: dict[str, Callable[[int], list[int]]] = {
    "first_half": lambda n: list(range((n + 1) // 2)),
    "last_half": lambda n: list(range(n // 2, n)),
    "every_other": lambda n: list(range(0, n, 2)),
}


class StudyConfigError(ValueError):
    """A system does not fit the corpus's config."""


def merge_system(config: dict[str, Any], system: dict[str, Any]) -> dict[str, Any]:
    """The training config of a system on a corpus.

    Args:
        config: The corpus's training config; is not changed.
        system: The system's file.

    Returns:
        A new config. ``scale`` and ``blocks`` are worked in, ``data`` is the system's as it is, and
        any other key, an ESPnet option or not, is merged.

    Raises:
        StudyConfigError: A ``scale`` of what is no number or not there, an unknown ``blocks``, or
            ``blocks`` without ``num_blocks``.
    """
    special = ("scale", "blocks", "data")
    merged = copy.deepcopy(config)
    _merge(merged, {key: value for key, value in system.items() if key not in special})
    for side in SIDES:
        if isinstance(merged.get(side), dict):
            _take_out(merged[side], system.get(side))
    for path, factor in _mapping(system.get("scale"), "scale").items():
        _scale(merged, path, factor)
    if system.get("blocks") is not None:
        _set_blocks(merged, system["blocks"])
    if "data" in system:
        merged["data"] = copy.deepcopy(system["data"])
    return merged


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise StudyConfigError(f"{name} is {value!r}; accepted: a mapping")
    return value


def _merge(target: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = copy.deepcopy(value)


def _take_out(target: dict[str, Any], changes: Any) -> None:
    """Take out what the changes set to null; nulls of the corpus's own stay."""
    for key, value in _mapping(changes, "encoder_conf or decoder_conf").items():
        if value is None:
            del target[key]
        elif isinstance(value, Mapping) and isinstance(target[key], dict):
            _take_out(target[key], value)


def _scale(config: dict[str, Any], path: str, factor: Any) -> None:
    *parents, key = path.split(".")
    place: Any = config
    for parent in parents:
        place = place.get(parent) if isinstance(place, dict) else None
    value = place.get(key) if isinstance(place, dict) else None
    for what, number in ((f"{path} of the corpus", value), (f"scale.{path}", factor)):
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise StudyConfigError(f"{what} is {number!r}; accepted: a number")
    scaled = value * factor
    if isinstance(value, int):
        if scaled != int(scaled):
            raise StudyConfigError(
                f"scale.{path}: {value} times {factor} is {scaled}; accepted: a factor that gives "
                "a whole number"
            )
        scaled = int(scaled)
    place[key] = scaled


def _set_blocks(config: dict[str, Any], blocks: Any) -> None:
    if blocks not in BLOCKS:
        raise StudyConfigError(f"blocks is {blocks!r}; accepted: {', '.join(BLOCKS)}")
    for side in SIDES:
        number = (config.get(side) or {}).get("num_blocks")
        if isinstance(number, bool) or not isinstance(number, int):
            raise StudyConfigError(
                f"blocks is {blocks!r}, but {side}.num_blocks is {number!r}; accepted: a number"
            )
        config[side]["expert_blocks"] = BLOCKS[blocks](number)
