"""A training config in the terms of stock ESPnet: without this package's classes and options.

Which class of ESPnet one of ours stands for, and which options are ours alone, is read from the
classes themselves, so a user's own subclasses are served too.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from espnet_smoe.checkpoints import ModelError

STOCK_PACKAGE = "espnet2."
OWN_ITERATOR = "task"  # follows this package's batch plan
# What ESPnet's `Speech2Text` and its `decode_long` read from preprocessor_conf, with no default.
READ_BY_STOCK = (
    *("fs", "speech_length", "speech_resolution"),
    *("notime_symbol", "first_time_symbol", "last_time_symbol"),
)


def no_padding(fs: int) -> float:
    """The ``speech_length``, in seconds, with which ESPnet's `Speech2Text` does not pad.

    It cuts the audio to ``int(speech_length * fs)`` samples, or pads it up to there: with -1
    nothing is ever padded, and one sample is cut. 0 and above would cut more.
    """
    return -1.5 / fs


def stock_config(config: Mapping[str, Any], *, speech_length: float | None) -> dict[str, Any]:
    """Translate a training config.

    Args:
        config: ESPnet's training config, whose classes this package's or ESPnet's choices have.
        speech_length: Seconds, for ``preprocessor_conf``; None: as it is.

    Returns:
        A config that names ESPnet's own classes, with options that these have.

    Raises:
        ModelError: A class extends none of ESPnet's.
    """
    from espnet2.tasks import s2t  # slow, so only where it is needed

    stock = dict(config)
    for part, choices in (
        ("encoder", s2t.encoder_choices),
        ("decoder", s2t.decoder_choices),
        ("model", s2t.model_choices),
        ("preprocessor", s2t.preprocessor_choices),
    ):
        if config.get(part) is None:
            continue
        name, cls = stock_class(choices, config[part])
        known = inspect.signature(cls).parameters
        options = dict(config.get(f"{part}_conf") or {})
        if not any(p.kind is p.VAR_KEYWORD for p in known.values()):
            options = {key: value for key, value in options.items() if key in known}
        if part == "preprocessor":
            defaults = {key: known[key].default for key in READ_BY_STOCK if key in known}
            options = {**defaults, **options}
            if speech_length is not None:
                options["speech_length"] = speech_length
        stock[part], stock[f"{part}_conf"] = name, options
    for key in ("iterator_type", "valid_iterator_type"):
        if stock.get(key) == OWN_ITERATOR:
            del stock[key]
    return stock


def stock_class(choices: Any, name: str) -> tuple[str, type]:
    """ESPnet's own class that a class is or extends.

    Args:
        choices: ESPnet's `ClassChoices` of one part of the model.
        name: One of its names.

    Returns:
        Its name in the choices, and itself.

    Raises:
        ModelError: There is none.
    """
    classes = choices.classes.items()
    names = {cls: known for known, cls in classes if cls.__module__.startswith(STOCK_PACKAGE)}
    own = choices.get_class(name)
    for cls in own.__mro__:
        if cls in names:
            return names[cls], cls
    raise ModelError(
        f"{choices.name} {name!r} ({own.__name__}) extends no class of ESPnet's choices; accepted: "
        f"classes that extend one of {', '.join(names.values())}"
    )
