"""Background noise around a speaker: white, pink, or babble, the same bits on every machine.

Randomness is SHAKE-256 of a key, and all sums are integers, so that noise depends on its key only.
Shapes: N samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from decimal import Context, Decimal
from math import isqrt

import numpy as np

KINDS = ("white", "pink", "babble")
OCTAVES = 11  # of pink noise, from half the sampling rate down
TALKERS = 6  # of babble
TALKER_LEVEL = 2000  # root mean square of each of them
FULL_SCALE = 32767
GAIN_BITS, RATIO_BITS = 20, 40  # of the fixed-point gain, and of the power ratio before it


def numbers(key: str, count: int) -> np.ndarray:
    """Return int64 (count,), evenly distributed over 0 to 65,535."""
    data = hashlib.shake_256(key.encode()).digest(2 * count)
    return np.frombuffer(data, "<u2").astype(np.int64)


def white(key: str, size: int) -> np.ndarray:
    """Return int64 (size,): sums of four even numbers, nearly Gaussian."""
    return numbers(key, 4 * size).reshape(4, size).sum(axis=0) - 2 * 65535


def pink(key: str, size: int) -> np.ndarray:
    """Return int64 (size,): power falling by 3 dB an octave.

    The sum of white noises of which each holds its values twice as long as the one before
    (the method of R. F. Voss and J. McCartney).
    """
    total = np.zeros(size, np.int64)
    starts = numbers(f"{key} starts", OCTAVES)
    for octave in range(OCTAVES):
        held = white(f"{key} {octave}", (size >> octave) + 2)
        start = int(starts[octave]) % (1 << octave)
        total += np.repeat(held, 1 << octave)[start : start + size]
    return total


def level(x: np.ndarray, target: int = TALKER_LEVEL) -> np.ndarray:
    """Scale int (N,) to a root mean square of about ``target``; int64 (N,)."""
    x = x.astype(np.int64)
    power = int(x @ x)
    return x * target // max(1, isqrt(power // len(x)))


def babble(key: str, size: int, pool: Sequence[np.ndarray]) -> np.ndarray:
    """Return int64 (size,): several people of the pool at once, each from anywhere on.

    Args:
        key: Chooses them.
        size: N.
        pool: Speech of one level (`level`); who is done begins again.
    """
    chosen = numbers(key, 2 * TALKERS)
    total = np.zeros(size, np.int64)
    for number, place in chosen.reshape(TALKERS, 2):
        talk = pool[int(number) % len(pool)]
        start = int(place) * len(talk) >> 16
        total += np.resize(np.roll(talk, -start), size)
    return total


def power_ratio(tenths: int) -> int:
    """Return 10 ** (-tenths / 100), noise over speech, with `RATIO_BITS` bits behind the point."""
    context = Context(prec=30)
    ratio = context.power(Decimal(10), context.divide(Decimal(-tenths), Decimal(100)))
    return int(context.multiply(ratio, Decimal(1 << RATIO_BITS)))


def mix(speech: np.ndarray, noise: np.ndarray, tenths: int) -> np.ndarray:
    """Add noise to speech.

    Args:
        speech: int16 (N,).
        noise: int64 (N,), of any level.
        tenths: Signal-to-noise ratio over the whole utterance, tenths of a dB.

    Returns:
        int16 (N,). What would exceed full scale is made quieter, speech and noise alike.
    """
    x = speech.astype(np.int64)
    speech_power, noise_power = int(x @ x), max(1, int(noise @ noise))
    squared = speech_power * power_ratio(tenths) << 2 * GAIN_BITS
    gain = isqrt((squared // noise_power) >> RATIO_BITS)
    total = x + ((noise * gain + (1 << (GAIN_BITS - 1))) >> GAIN_BITS)
    peak = int(np.abs(total).max())
    if peak > FULL_SCALE:
        total = total * FULL_SCALE // peak
    return np.asarray(total, "<i2")
