"""How many Hz of speech a recording really holds: narrowband (NB) or wideband (WB).

A file's sampling rate is a promise, not a fact: telephone speech is often stored at 16 kHz.
So the spectrum decides. Speech flickers: within one utterance, fricatives and bursts lift each
band far above what vowels leave there, while a noise floor (quantisation, dither, line noise,
room) stays where it is. A band holds speech when its strongest active frames rise above its
own floor, above the rounding noise of 16-bit samples, and above a small share of the speech's
level. The highest such band gives the edge; an edge beyond 4.4 kHz means wideband.

Known limits: under a second of wideband speech without a fricative may look narrowband;
narrowband speech that was clipped after upsampling, or upsampled by linear interpolation, may
look wideband (its images are recognised in most cases). Speech that nowhere rises above steady
noise beyond 4 kHz counts as narrowband. The confidence is a monotone function of the margin,
not a calibrated probability.

Shapes: N samples, T frames, F frequency bins, K bands, B utterances.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

BANDWIDTHS = ("wb", "nb")  # the position is the integer id in the data files
NB_RATE = 8000  # Hz; a file at this rate or below cannot be wideband

FRAME_SECONDS = 0.032  # 31.25 Hz per bin, and short enough to isolate one fricative
HOP_SECONDS = 0.016
BAND_HZ = 400.0  # 13 bins: the level of steady noise then varies by only about 3 dB
SPEECH_FLOOR_HZ = 100.0  # below lies DC and mains hum, which says nothing about speech
WIDE_FROM_HZ = 4400.0  # 4 kHz plus the slope that resamplers leave around it
WIDE_TO_HZ = 8000.0  # what the model hears; above it (44.1, 48 kHz files) nothing is decided

ACTIVE_RANGE_DB = 30.0  # a frame is active within this range of the loud frames
LOUD_PERCENTILE = 95.0  # of all frames' power: the loud frames, not a single click
PEAK_SHARE = 0.03  # the strongest share of active frames speaks for a band (fricatives) ...
PEAK_FRAMES = 3  # ... but at least so many, so that one click does not
FLOOR_PERCENTILE = 20.0  # of a band's active frames: its level when only the floor is there
IMAGE_SHARE = 0.5  # the loudest share of a mirrored band's frames, where its image shows
IMAGE_PERCENTILE = 20.0  # of image over mirrored band there; speech only adds to an image

MIN_RISE_DB = 9.0  # above the band's own floor; steady noise reaches 6 in 13 bins
MIN_ROUNDING_DB = 10.0  # above the rounding noise, when the samples lie on the 16-bit grid
MIN_LEVEL_DB = -58.0  # against the speech's mean density; float rounding and stop bands lie below
CONFIDENCE_DB = 4.0  # margin at which the remaining doubt has fallen to 1/e
SURE_FRAMES = 10  # with fewer active frames, confidence shrinks in proportion

TINY = 1e-30  # power; keeps log10 finite
ROUNDING_POWER = (1 / 32768) ** 2 / 12  # variance of rounding to 16 bits, full scale 1


class BandwidthError(ValueError):
    """The audio given cannot be measured."""


@dataclass(frozen=True)
class BandwidthEstimate:
    """What the spectrum says.

    Attributes:
        label: ``"nb"`` or ``"wb"``.
        edge_hz: Upper end of the highest band with speech, in Hz (0 when there is none).
        confidence: 0 (nothing to go by) to 1.
    """

    label: str
    edge_hz: float
    confidence: float
    reason: str = ""

    @property
    def likelier(self) -> str:
        return self.label


def _decibel(power: np.ndarray | float) -> np.ndarray:
    return 10 * np.log10(np.maximum(power, TINY))


def _frames(x: np.ndarray, size: int, hop: int) -> np.ndarray:
    """Cut into whole frames (T, size) and leave out the ones that digital edits spoil.

    A run of exact zeros (training pads, gaps) or a clipped peak makes a step, whose spectrum
    reaches every frequency.
    """
    voiced = np.flatnonzero(x)
    if len(voiced) == 0:
        return np.empty((0, size), dtype=np.float32)
    x = x[voiced[0] : voiced[-1] + 1]
    if len(x) < size:
        return np.empty((0, size), dtype=np.float32)
    zeros = x == 0
    at_limit = (x == x.max()) | (x == x.min())
    clipped = np.zeros(len(x), dtype=bool)
    clipped[1:] = at_limit[1:] & at_limit[:-1]

    def per_frame(flags: np.ndarray) -> np.ndarray:
        total = np.concatenate(([0], np.cumsum(flags)))
        starts = np.arange(0, len(x) - size + 1, hop)
        return total[starts + size] - total[starts]

    frames = np.lib.stride_tricks.sliding_window_view(x, size)[::hop]
    clean = (per_frame(zeros) <= size // 8) & (per_frame(clipped) == 0)
    return frames[clean] if clean.any() else frames


def _margins(x: np.ndarray, rate: int) -> tuple[np.ndarray, np.ndarray, int]:
    """How far each band's evidence for speech lies above what is required.

    Returns:
        The bands' lower ends in Hz (K,), their margins in dB (K,), the number of active frames.
    """
    size, hop = round(FRAME_SECONDS * rate), round(HOP_SECONDS * rate)
    frames = _frames(x, size, hop)
    hz = np.fft.rfftfreq(size, 1 / rate)
    lows = np.arange(0.0, rate / 2 - BAND_HZ / 2, BAND_HZ)
    if len(frames) == 0:
        return lows, np.full(len(lows), -np.inf), 0
    window = np.hanning(size).astype(np.float32)
    spectrum_TF = np.fft.rfft(frames * window)
    power_TF = (spectrum_TF.real**2 + spectrum_TF.imag**2) / np.square(window).sum()

    speech_T = power_TF[:, hz >= SPEECH_FLOOR_HZ].mean(axis=1)
    loud = float(_decibel(np.percentile(speech_T, LOUD_PERCENTILE)))
    active = _decibel(speech_T) > loud - ACTIVE_RANGE_DB
    if loud <= _decibel(TINY) + ACTIVE_RANGE_DB:
        active[:] = False
    n_active = int(active.sum())
    if n_active == 0:
        return lows, np.full(len(lows), -np.inf), 0

    starts = np.searchsorted(hz, lows)
    counts = np.diff(np.append(starts, len(hz)))
    level_TK = _decibel(np.add.reduceat(power_TF[active], starts, axis=1) / counts)
    floor_TK = np.percentile(level_TK, FLOOR_PERCENTILE, axis=0) + np.zeros_like(level_TK)
    wide = np.flatnonzero((lows >= WIDE_FROM_HZ) & (lows < WIDE_TO_HZ))
    floor_TK[:, wide] = np.maximum(floor_TK[:, wide], _images(level_TK, wide))
    least = loud + MIN_LEVEL_DB
    grid = x * np.float32(32768)
    if np.array_equal(grid, np.rint(grid)):
        least = max(least, float(_decibel(ROUNDING_POWER)) + MIN_ROUNDING_DB)
    margin_TK = np.minimum(level_TK - floor_TK - MIN_RISE_DB, level_TK - least)
    strongest = min(max(PEAK_FRAMES, round(PEAK_SHARE * n_active)), n_active)
    return lows, np.sort(margin_TK, axis=0)[-strongest], n_active


def _images(level_TK: np.ndarray, wide: np.ndarray) -> np.ndarray:
    """The level that a poor 8 kHz resampler's images would have in the wide bands.

    An image is the band below, mirrored at 4 kHz and attenuated by a constant. The attenuation
    is read off the frames in which the mirrored band is loud; real speech, which is not tied
    to the mirrored band, rises above that in its fricatives.

    Args:
        level_TK: Level of each active frame and band in dB (T, K).
        wide: Indices of the wide bands.
    """
    mirror_TK = level_TK[:, round(NB_RATE / BAND_HZ) - 1 - wide]
    loudest = max(1, round(IMAGE_SHARE * len(mirror_TK)))
    loud_TK = np.argsort(mirror_TK, axis=0)[-loudest:]
    ratio_TK = np.take_along_axis(level_TK[:, wide] - mirror_TK, loud_TK, axis=0)
    return mirror_TK + np.percentile(ratio_TK, IMAGE_PERCENTILE, axis=0)


def measure(x: np.ndarray, rate: int) -> BandwidthEstimate:
    """Measure one utterance.

    Args:
        x: Samples (N,), at any level; float, or integers (taken as they are).
        rate: Their sampling rate in Hz.

    Returns:
        The estimate. At 8000 Hz or below the label is ``nb`` whatever the spectrum holds;
        above, audio without any speech (silence, under 32 ms) is ``wb`` with confidence 0.

    Raises:
        BandwidthError: Several channels, a rate that is not positive, NaN or infinite samples.
    """
    x = np.asarray(x)
    if x.ndim != 1:
        raise BandwidthError(f"audio has shape {x.shape}; accepted is one channel, (samples,)")
    if rate <= 0:
        raise BandwidthError(f"sampling rate {rate} is impossible; accepted is a positive rate")
    if np.issubdtype(x.dtype, np.integer):
        x = x / np.float32(32768)
    x = x.astype(np.float32, copy=False)
    if not np.isfinite(x).all():
        raise BandwidthError(f"sample {np.flatnonzero(~np.isfinite(x))[0]} is NaN or infinite")

    lows, margin_K, n_active = _margins(x, rate)
    speech = (margin_K > 0) & (lows + BAND_HZ > SPEECH_FLOOR_HZ)
    deciding = (lows >= WIDE_FROM_HZ) & (lows < WIDE_TO_HZ)
    if rate <= NB_RATE or not deciding.any():
        edge = lows[speech].max(initial=-BAND_HZ) + BAND_HZ
        return BandwidthEstimate("nb", float(min(edge, rate / 2)), 1.0)
    if n_active == 0:
        return BandwidthEstimate("wb", 0.0, 0.0)
    margin = float(margin_K[deciding].max())
    wide = margin > 0
    below = speech if wide else speech & (lows + BAND_HZ <= NB_RATE / 2)
    edge = lows[below].max(initial=-BAND_HZ) + BAND_HZ
    doubt = 0.5 * np.exp(-abs(margin) / CONFIDENCE_DB)
    confidence = (1 - doubt) * min(1.0, n_active / SURE_FRAMES)
    return BandwidthEstimate(
        "wb" if wide else "nb", float(min(edge, rate / 2)), float(round(confidence, 4))
    )


def measure_batch(
    x_BN: torch.Tensor, lengths_B: torch.Tensor, rate: int
) -> list[BandwidthEstimate]:
    """Measure every utterance of a padded batch; the padding is not looked at.

    Args:
        x_BN: Samples (B, N), on any device.
        lengths_B: The number of samples of each utterance (B,).
        rate: Their sampling rate in Hz.

    Raises:
        BandwidthError: As ``measure``, and shapes or lengths that do not fit; names the row.
    """
    if x_BN.ndim != 2 or tuple(lengths_B.shape) != (len(x_BN),):
        raise BandwidthError(
            f"batch of shape {tuple(x_BN.shape)} with lengths of shape "
            f"{tuple(lengths_B.shape)}; accepted is (utterances, samples) with (utterances,)"
        )
    rows = x_BN.detach().float().cpu().numpy()
    estimates = []
    for row, length in enumerate(lengths_B.tolist()):
        if not 0 <= length <= rows.shape[1]:
            raise BandwidthError(
                f"row {row} of the batch has length {length}; accepted is 0 to {rows.shape[1]}"
            )
        try:
            estimates.append(measure(rows[row, :length], rate))
        except BandwidthError as error:
            raise BandwidthError(f"row {row} of the batch: {error}") from error
    return estimates
