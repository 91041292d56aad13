"""A simulated telephone line: 8 kHz, 300-3400 Hz, a level, line noise, and a real codec.

The codecs are libsndfile's own (AMR-NB: libopencore-amrnb, where it is found). None of them
limits the band by itself, so the filter comes first. Shapes: N samples.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import soundfile

from espnet_smoe import amr
from espnet_smoe.audio import resample, to_int16
from espnet_smoe.locator import AudioError

NB_RATE = 8000  # Hz, the rate of a telephone line
TELEPHONE_BAND_HZ = (300.0, 3400.0)  # the pass band that ITU-T G.712 gives a voice channel
TELEPHONE_TRANSITION_HZ = 100.0  # width of each of the filter's slopes
TELEPHONE_STOP_DB = 60.0  # attenuation outside; G.711 itself has about 38 dB of SNR
LEVEL_RANGE_DB = (-36.0, -16.0)  # speech level on lines, dB re full scale; ITU-T P.56's -26 +- 10
NOISE_RANGE_DB = (-70.0, -45.0)  # circuit noise, dB re full scale
ACTIVE_FRAME = 160  # samples: 20 ms, over which speech is told from pauses ...
ACTIVE_RANGE_DB = 25.0  # ... by its level below the loudest frame's
TINY = 1e-12  # power


def _in_container(x: np.ndarray, container: str, subtype: str) -> np.ndarray:
    """Through a coding of libsndfile: float32 (N,) to float32 (at least N,)."""
    memory = io.BytesIO()
    soundfile.write(memory, x.clip(-1, 1), NB_RATE, format=container, subtype=subtype)
    memory.seek(0)
    raw = {"format": "RAW", "subtype": subtype, "samplerate": NB_RATE, "channels": 1}
    coded, _ = soundfile.read(memory, dtype="float32", **(raw if container == "RAW" else {}))
    return np.asarray(coded)


def _amr_nb(x: np.ndarray) -> np.ndarray:
    return amr.code(to_int16(x)) / np.float32(32768)


CODECS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "ulaw": partial(_in_container, container="RAW", subtype="ULAW"),  # G.711, 64 kbit/s
    "alaw": partial(_in_container, container="RAW", subtype="ALAW"),
    "g721": partial(_in_container, container="AU", subtype="G721_32"),  # ADPCM; now G.726-32
    "g723_24": partial(_in_container, container="AU", subtype="G723_24"),  # ADPCM; now G.726-24
    "gsm": partial(_in_container, container="RAW", subtype="GSM610"),  # full rate, 13 kbit/s
    "opus": partial(_in_container, container="OGG", subtype="OPUS"),  # at 8 kHz
    "amr_nb": _amr_nb,  # 12.2 kbit/s
}


def available_codecs() -> tuple[str, ...]:
    """The codecs that work on this machine: AMR-NB needs libopencore-amrnb."""
    return tuple(name for name in CODECS if name != "amr_nb" or amr.is_available())


def parse_codecs(names: str | Sequence[str]) -> tuple[str, ...]:
    """Check a choice of codecs.

    Args:
        names: Names, or one string of them between spaces; ``all`` stands for every available one.

    Raises:
        AudioError: None given, or one that is unknown or not available here.
    """
    listed = names.split() if isinstance(names, str) else list(names)
    listed = [c for name in listed for c in (available_codecs() if name == "all" else (name,))]
    if not listed:
        raise AudioError(f"no telephone codec is given; accepted: all, {', '.join(CODECS)}")
    for name in listed:
        if name not in CODECS:
            raise AudioError(
                f"telephone codec {name!r} is unknown; accepted: all, {', '.join(CODECS)}"
            )
        if name not in available_codecs():
            raise AudioError(
                f"telephone codec {name!r} needs libopencore-amrnb (Debian: libopencore-amrnb0), "
                "which is not installed"
            )
    return tuple(dict.fromkeys(listed))


@dataclass(frozen=True)
class Line:
    """One telephone line.

    Attributes:
        codec: A key of `CODECS`.
        level_db: Level that the active speech gets, dB re full scale; None: as it comes.
        noise_db: Level of the circuit's noise, dB re full scale; None: none.
        seed: Of the noise.
    """

    codec: str = "ulaw"
    level_db: float | None = None
    noise_db: float | None = None
    seed: int = 0

    @staticmethod
    def random(
        rng: np.random.Generator,
        codecs: Sequence[str],
        *,
        random_level: bool = True,
        noise_prob: float = 0.0,
    ) -> Line:
        """Draw a line: its codec evenly, its level and noise evenly (in dB) from their ranges."""
        codec = codecs[int(rng.integers(len(codecs)))]
        level, noise = rng.uniform(*LEVEL_RANGE_DB), rng.uniform(*NOISE_RANGE_DB)
        noisy = rng.uniform() < noise_prob
        seed = int(rng.integers(2**31))
        return Line(
            codec, float(level) if random_level else None, float(noise) if noisy else None, seed
        )

    def __str__(self) -> str:
        level = "" if self.level_db is None else f" {self.level_db:.1f} dB"
        noise = "" if self.noise_db is None else f" noise {self.noise_db:.1f} dB"
        return f"{self.codec}{level}{noise}"


@lru_cache(maxsize=1)
def _telephone_filter() -> np.ndarray:
    """Linear-phase band-pass at 8 kHz: an ideal band cut out by a Kaiser window (odd length)."""
    width = 2 * np.pi * TELEPHONE_TRANSITION_HZ / NB_RATE  # radians per sample
    half = int(np.ceil((TELEPHONE_STOP_DB - 7.95) / (2.285 * width))) // 2 + 1  # Kaiser's rule
    n = np.arange(-half, half + 1)
    low, high = (2 * edge / NB_RATE for edge in TELEPHONE_BAND_HZ)
    ideal = high * np.sinc(high * n) - low * np.sinc(low * n)
    return np.asarray(ideal * np.kaiser(len(n), 0.1102 * (TELEPHONE_STOP_DB - 8.7)))


def speech_level_db(x: np.ndarray) -> float:
    """RMS level of the frames in which somebody speaks, dB re full scale.

    A plain stand-in for ITU-T P.56's active speech level: the 20 ms frames within 25 dB of the
    loudest.
    """
    power = np.square(x[: len(x) // ACTIVE_FRAME * ACTIVE_FRAME], dtype=np.float64)
    power = power.reshape(-1, ACTIVE_FRAME).mean(axis=1) if len(power) else np.square(x)
    level = 10 * np.log10(np.maximum(power, TINY))
    active = power[level > level.max() - ACTIVE_RANGE_DB]
    return float(10 * np.log10(max(active.mean(), TINY)))


def telephone(
    x: np.ndarray, rate: int, *, codec: str | None = None, line: Line | None = None
) -> np.ndarray:
    """Send audio through a simulated telephone line.

    Band-pass, level, noise, codec, in this order. Samples beyond full scale are clipped, as a
    line does.

    Args:
        x: Samples (N,).
        rate: Their rate in Hz.
        codec: A codec on an otherwise clean line; default ``"ulaw"`` (G.711).
        line: The line; instead of `codec`.

    Returns:
        float32 (round(N * 8000 / rate),) at 8000 Hz, aligned in time with ``x``.

    Raises:
        AudioError: Unknown codec, or audio of several channels.
    """
    line = line or Line(codec or "ulaw")
    parse_codecs((line.codec,))
    narrow = resample(x, rate, NB_RATE)
    if len(narrow) == 0:
        return narrow
    taps = _telephone_filter()
    half = len(taps) // 2
    filtered = np.convolve(narrow, taps)[half : half + len(narrow)]
    if line.level_db is not None and np.any(filtered):
        filtered *= 10 ** ((line.level_db - speech_level_db(filtered)) / 20)
    if line.noise_db is not None:
        noise = np.random.default_rng(line.seed).standard_normal(len(filtered) + len(taps) - 1)
        noise = np.convolve(noise, taps, mode="valid")  # of the circuit: in its band
        filtered += noise * (10 ** (line.noise_db / 20) / np.linalg.norm(taps))
    coded = CODECS[line.codec](filtered.astype(np.float32))
    return np.asarray(coded[: len(narrow)], dtype=np.float32)
