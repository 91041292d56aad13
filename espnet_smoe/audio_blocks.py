"""Any audio that a caller may hand over, block by block: a locator, an array, a tensor.

A file is never held as a whole, so that its length costs no memory. Everything comes out as
float32 (N, C), N samples of C channels, and is checked on the way: what cannot be heard as
audio raises an `InputError` that names the recording, what was found and what is accepted.
"""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from espnet_smoe.audio import unreadable
from espnet_smoe.locator import AudioError, blocks_of, parse_locator

if TYPE_CHECKING:
    import torch

Array: TypeAlias = "np.ndarray | torch.Tensor"
Audio: TypeAlias = "str | Path | Array | tuple[Array, int]"

BLOCK_SECONDS = 30.0
MOST_CHANNELS = 64  # an array with a longer second axis lies on its side
RATES = (1000, 1_000_000)  # Hz; others are a mistake of units
INTEGERS = ("int8", "int16", "int32", "uint8")  # whose full scale is that of the type
ACCEPTED = (
    "accepted is a path, an array or tensor of shape (samples,) or (samples, channels), or the "
    "pair (array, rate)"
)


class InputError(AudioError):
    """A recording cannot be used; names it, the value and what is accepted."""


def checked_rate(rate: Any, named: str) -> int:
    """A sampling rate in Hz as an int.

    Raises:
        InputError: It is no number, no whole one, or outside `RATES`.
    """
    fits = isinstance(rate, Real | np.number) and not isinstance(rate, bool)
    if not fits or not RATES[0] <= float(rate) <= RATES[1] or float(rate) != int(rate):
        raise InputError(
            f"{named} has sampling rate {rate!r}; accepted is a whole number of Hz from "
            f"{RATES[0]} to {RATES[1]}"
        )
    return int(rate)


def _as_array(given: Any, named: str) -> np.ndarray:
    """The samples as a NumPy array of the dtype given (N,) or (N, C)."""
    if hasattr(given, "detach"):
        tensor = given.detach().cpu()
        given = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    if not isinstance(given, np.ndarray):
        raise InputError(f"{named} is a {type(given).__name__}; {ACCEPTED}")
    if given.dtype.kind != "f" and given.dtype.name not in INTEGERS:
        raise InputError(
            f"{named} has dtype {given.dtype}; accepted are floating-point numbers, at full "
            f"scale from -1 to 1, and {', '.join(INTEGERS)}"
        )
    shape = given.shape
    if given.ndim not in (1, 2) or (given.ndim == 2 and shape[1] > MOST_CHANNELS):
        hint = " (transpose it)" if given.ndim == 2 and shape[0] <= MOST_CHANNELS else ""
        raise InputError(
            f"{named} has shape {shape}{hint}; accepted are (samples,) and (samples, channels) "
            f"with 1 to {MOST_CHANNELS} channels"
        )
    if given.ndim == 2 and shape[1] > 1 and 0 < shape[0] <= MOST_CHANNELS:
        raise InputError(
            f"{named} has shape {shape}, which may be {shape[1]} samples of {shape[0]} channels; "
            f"accepted is (samples, channels) with more than {MOST_CHANNELS} samples"
        )
    return given[:, None] if given.ndim == 1 else given


def _scaled(x: np.ndarray) -> np.ndarray:
    """float32; integers by their type's full scale to [-1, 1), unsigned ones around the middle."""
    if x.dtype.kind == "f":
        with np.errstate(over="ignore"):  # becomes infinite, which is reported
            return np.ascontiguousarray(x, dtype=np.float32)
    full = np.float32(2.0 ** (8 * x.dtype.itemsize - 1))
    middle = full if x.dtype.kind == "u" else np.float32(0)
    return np.asarray((x.astype(np.float32) - middle) / full)


def _array_blocks(given: Any, rate: int, named: str) -> Iterator[tuple[np.ndarray, int]]:
    x_NC = _as_array(given, named)
    size = round(BLOCK_SECONDS * rate)
    for start in range(0, len(x_NC), size):
        yield _scaled(x_NC[start : start + size]), rate


def _file_blocks(path: str | Path, name: str | None) -> Iterator[tuple[np.ndarray, int]]:
    utt = name if name != str(path) else None
    seconds = 0.0
    try:
        where = parse_locator(path)
    except AudioError as error:
        raise InputError(str(error)) from error
    try:
        for x_NC, rate in blocks_of(where, BLOCK_SECONDS):
            yield x_NC, rate
            seconds += len(x_NC) / rate
    except Exception as error:  # kaldiio passes on whatever its decoder raises
        reached = f"; read up to {seconds:.2f} s" if seconds else ""
        raise InputError(f"{unreadable(path, where, utt, error)}{reached}") from error


def audio_blocks(
    audio: Audio, *, fs: int, name: str | None = None
) -> Iterator[tuple[np.ndarray, int]]:
    """Read a recording block by block.

    Args:
        audio: A locator (see `espnet_smoe.locator`), an array or tensor (N,) or (N, C), or the
            pair of one and its rate in Hz. Integers are scaled to [-1, 1); floats stay as
            they are.
        fs: The rate in Hz of an array that comes without one.
        name: The recording's name in errors; default: the path, or ``"array"``.

    Yields:
        float32 (N, C), at most `BLOCK_SECONDS`, and the rate in Hz, the same for all blocks.

    Raises:
        InputError: The recording is missing, not audio, cut short, empty, holds NaN or infinite
            samples, or is of a type, shape or rate that cannot be meant.
    """
    if isinstance(audio, str | Path):
        named = f"audio file {str(audio)!r}"
        if name is not None and name != str(audio):
            named = f"utterance {name!r}: {named}"
        blocks = _file_blocks(audio, name)
    else:
        named = f"audio {name or 'array'!r}"
        given, rate = audio, fs
        if isinstance(audio, tuple):
            if len(audio) != 2:
                raise InputError(f"{named} is a tuple of {len(audio)}; {ACCEPTED}")
            given, rate = audio
            if isinstance(given, Real) and not isinstance(rate, Real):
                raise InputError(f"{named} is the pair (rate, array); {ACCEPTED}")
        blocks = _array_blocks(given, checked_rate(rate, named), named)
    done = 0
    for x_NC, rate in blocks:
        checked_rate(rate, named)
        bad = np.flatnonzero(~np.isfinite(x_NC).all(axis=1))
        if len(bad):
            raise InputError(
                f"{named} holds NaN or infinite samples, the first at {done + bad[0]} "
                f"({(done + bad[0]) / rate:.2f} s); accepted are finite numbers"
            )
        done += len(x_NC)
        yield x_NC, rate
    if done == 0:
        raise InputError(f"{named} holds no samples; accepted is at least one")
