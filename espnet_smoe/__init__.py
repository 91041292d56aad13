"""Supervised Mixture of Experts (arXiv:2508.10009) for ESPnet's speech-to-text task.

Importing this package is all that is needed: when ESPnet's S2T task is imported, it learns
``encoder: smoe_conformer`` and the other names of `espnet_smoe.registry`. The import itself is
cheap; it loads neither torch nor ESPnet.
"""

from types import ModuleType
from typing import TYPE_CHECKING, Any

import wrapt

if TYPE_CHECKING:
    from espnet_smoe.inference import Speech, Speech2Text

__all__ = ["Speech", "Speech2Text", "__version__"]

__version__ = "0.1.0"


def _register(_module: ModuleType) -> None:
    from espnet_smoe.registry import register

    register()


wrapt.when_imported("espnet2.tasks.s2t")(_register)


def __getattr__(name: str) -> Any:
    """`Speech2Text` and `Speech`, imported when they are first asked for."""
    if name in ("Speech", "Speech2Text"):
        from espnet_smoe import inference

        return getattr(inference, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
