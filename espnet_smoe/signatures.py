"""Constructor signatures that show the base class's options beside our own.

ESPnet prints and saves a class's defaults by reading its constructor's signature; one that
ends in ``**options`` would hide every option of the ESPnet class below it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

Class = TypeVar("Class", bound=type)


def adds_options_to(base: type) -> Callable[[Class], Class]:
    """Class decorator: the signature is the base's parameters and then the class's own."""

    def decorate(cls: Class) -> Class:
        inherited = list(inspect.signature(base).parameters.values())
        known = {p.name for p in inherited}
        constructor: Any = cls.__init__  # type: ignore[misc]
        own = [
            p
            for p in inspect.signature(constructor).parameters.values()
            if p.kind is p.KEYWORD_ONLY and p.name not in known
        ]
        signature: Any = inspect.Signature(
            [p for p in inherited if p.kind is not p.VAR_KEYWORD] + own
        )
        cls.__signature__ = signature  # type: ignore[attr-defined]
        return cls

    return decorate
