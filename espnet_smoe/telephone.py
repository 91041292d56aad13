"""A simulated telephone line."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
import soundfile

from espnet_smoe.audio import resample
from espnet_smoe.locator import AudioError

NB_RATE = 8000  # Hz, the rate of a telephone line
TELEPHONE_BAND_HZ = (300.0, 3400.0)  # the pass band that ITU-T G.712 gives a voice channel
TELEPHONE_TRANSITION_HZ = 100.0  # width of each of the filter's slopes
TELEPHONE_STOP_DB = 60.0  # attenuation outside; G.711 itself has about 38 dB of SNR
TELEPHONE_CODECS = {"ulaw": "ULAW", "alaw": "ALAW"}  # name: libsndfile's subtype


@lru_cache(maxsize=1)
def _telephone_filter() -> np.ndarray:
    """Linear-phase band-pass at 8 kHz: an ideal band cut out by a Kaiser window (odd length)."""
    width = 2 * np.pi * TELEPHONE_TRANSITION_HZ / NB_RATE  # radians per sample
    half = int(np.ceil((TELEPHONE_STOP_DB - 7.95) / (2.285 * width))) // 2 + 1  # Kaiser's rule
    n = np.arange(-half, half + 1)
    low, high = (2 * edge / NB_RATE for edge in TELEPHONE_BAND_HZ)
    ideal = high * np.sinc(high * n) - low * np.sinc(low * n)
    return np.asarray(ideal * np.kaiser(len(n), 0.1102 * (TELEPHONE_STOP_DB - 8.7)))


def telephone(x: np.ndarray, rate: int, *, codec: str = "ulaw") -> np.ndarray:
    """Send audio through a simulated telephone line: 8 kHz, 300-3400 Hz, G.711.

    The codecs limit no band by themselves, so the filter comes first. Samples beyond full
    scale are clipped, as a line does.

    Args:
        x: Samples (N,).
        rate: Their rate in Hz.
        codec: ``"ulaw"`` (North America, Japan) or ``"alaw"`` (elsewhere).

    Returns:
        float32 (round(N * 8000 / rate),) at 8000 Hz, aligned in time with ``x``.

    Raises:
        AudioError: Unknown codec, or audio of several channels.
    """
    if codec not in TELEPHONE_CODECS:
        raise AudioError(
            f"telephone codec {codec!r} is unknown; accepted: {', '.join(TELEPHONE_CODECS)}"
        )
    narrow = resample(x, rate, NB_RATE)
    if len(narrow) == 0:
        return narrow
    taps = _telephone_filter()
    half = len(taps) // 2
    filtered = np.convolve(narrow, taps)[half : half + len(narrow)]
    memory = io.BytesIO()
    subtype = TELEPHONE_CODECS[codec]
    soundfile.write(memory, filtered.clip(-1, 1), NB_RATE, format="RAW", subtype=subtype)
    memory.seek(0)
    coded, _ = soundfile.read(
        memory, dtype="float32", format="RAW", subtype=subtype, samplerate=NB_RATE, channels=1
    )
    return np.asarray(coded)
