"""A model's weights in a file, read without unpickling.

A checkpoint is ESPnet's (``.pth``: tensors by name, as `torch.save` writes them) or safetensors.
"""

from __future__ import annotations

import logging
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

logger = logging.getLogger(__name__)

SAFETENSORS = ".safetensors"
SUFFIXES = (".pth", SAFETENSORS)


class ModelError(ValueError):
    """A model cannot be found, loaded or written."""


def read_weights(path: str | Path, *, mapped: bool = False) -> dict[str, torch.Tensor]:
    """Read a checkpoint.

    Args:
        path: ``.safetensors``, or what `torch.save` wrote: a mapping of names to tensors (one
            below ``module``, as DeepSpeed has it, too).
        mapped: Let the tensors stay in the file until they are used, where its form allows; the
            file must not be written to before.

    Returns:
        The tensors by name, on the CPU.

    Raises:
        ModelError: It cannot be read, is truncated, or holds anything but tensors by name; code in
            it is not run.
    """
    try:
        if Path(path).suffix == SAFETENSORS:
            state = safetensors.torch.load_file(path)
        else:
            # only the present form, a zip, can be mapped
            state = torch.load(
                path,
                map_location="cpu",
                weights_only=True,
                mmap=mapped and zipfile.is_zipfile(path),
            )
    except (OSError, EOFError) as error:
        raise ModelError(f"checkpoint {str(path)!r} cannot be read: {error}") from error
    except (pickle.UnpicklingError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"checkpoint {str(path)!r} is broken, or holds more than weights: {error}"
        ) from error
    if isinstance(state, dict):
        state = state.get("module", state)
    if not isinstance(state, dict):
        raise ModelError(
            f"checkpoint {str(path)!r} holds a {type(state).__name__}; accepted: weights by name"
        )
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ModelError(
                f"checkpoint {str(path)!r} holds a {type(value).__name__} named {name!r}; "
                "accepted: weights by name"
            )
    return state


def load_weights(
    model: nn.Module, path: str | Path, *, only: Callable[[str], bool] = lambda name: True
) -> None:
    """Load a checkpoint that has every weight of the model; ESPnet would leave the rest random.

    Args:
        model: Is changed in place.
        path: The checkpoint.
        only: Whether a weight of the checkpoint, by its name, is meant for the model.

    Raises:
        ModelError: The checkpoint cannot be read, lacks a weight, or is of another shape.
    """
    weights = read_weights(path, mapped=True)
    weights = {name: value for name, value in weights.items() if only(name)}
    fit_weights(model, weights, origin=f"checkpoint {str(path)!r}")


def fit_weights(model: nn.Module, weights: Mapping[str, torch.Tensor], *, origin: str) -> None:
    """Give a model weights that are its own, all of them.

    Args:
        model: Is changed in place.
        weights: By name; names that the model lacks are logged, and not used.
        origin: Where they came from, for error messages.

    Raises:
        ModelError: A weight is missing or of another shape.
    """
    try:
        missing, unknown = model.load_state_dict(dict(weights), strict=False)
    except (RuntimeError, ValueError) as error:  # sizes differ; a lacking expert
        raise ModelError(f"{origin} does not fit its config: {error}") from error
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise ModelError(f"{origin} lacks {', '.join(missing[:5])}{more}, which its config has")
    if unknown:
        logger.warning(
            "%s: %d weights that the config lacks: %s", origin, len(unknown), unknown[:5]
        )


def write_weights(weights: Mapping[str, torch.Tensor], path: str | Path) -> None:
    """Write a checkpoint: as `torch.save` does, or safetensors if `path` ends so.

    Args:
        weights: By name. Tensors that share memory are written each by itself.
        path: Is there whole, or not at all.

    Raises:
        ModelError: It cannot be written.
    """
    path = Path(path)
    own = {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        if path.suffix == SAFETENSORS:
            safetensors.torch.save_file(own, partial)
        else:
            torch.save(own, partial)
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        raise ModelError(f"checkpoint {str(path)!r} cannot be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
