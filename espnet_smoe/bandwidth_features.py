"""What the spectrum of a recording shows about its upper band: numbers for `bandwidth` to weigh.

Speech flickers: fricatives and bursts lift each band far above what vowels leave there, while a
noise floor (rounding, dither, line, room) stays where it is. So a band's evidence in a frame is
how far it rises above the band's own floor, above the image that a poor resampler would leave
(the spectrum below 4 kHz, mirrored), and above what 16-bit rounding and stop bands leave.
Beside it stands what a narrow band leaves: a cliff near 4 kHz, in the speech or in the floor.

Shapes: N samples, T frames, F frequency bins, K bands of `BAND_HZ` from 0 Hz.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft

NB_RATE = 8000  # Hz; a file at this rate or below cannot be wideband
FRAME_SECONDS = 0.032  # 31.25 Hz per bin, and short enough to isolate one fricative
HOP_SECONDS = 0.016
BAND_HZ = 250.0  # 8 bins; divides 4 kHz, so that bands mirror onto bands
TOP_HZ = 8000.0  # what the model hears; above it (44.1, 48 kHz files) nothing is decided
CHUNK_FRAMES = 1024  # transformed at a time, so that an hour of audio needs no gigabytes

HUM_HZ = 250.0  # below lie DC and mains hum, which say nothing about speech
ACTIVE_RANGE_DB = 30.0  # a frame is active within this range of the loud frames
LOUD_PERCENTILE = 95.0  # of all frames' power: the loud frames, not a single click
PEAK_SHARE = 0.03  # the strongest share of active frames speaks for a band (fricatives) ...
PEAK_FRAMES = 3  # ... but at least so many, so that one click does not
FLOOR_PERCENTILE = 20.0  # of a band's active frames: its level when only the floor is there
# Frames that reach this share of the highest peak may hold clipping's overtones; both are counted
# from the lowest frame's peak, which DC and hum reach without speech.
NEAR_PEAK = 0.75
IMAGE_SHARE = 0.5  # the loudest share of a mirrored band's frames, where its image shows
IMAGE_PERCENTILE = 20.0  # of image over mirrored band there; speech only adds to an image
IMAGE_FRAMES = (3, 24)  # strongest frames whose fine structure is compared with its mirror image
IMAGE_HZ = (4500.0, 7600.0)  # where; 400 to 3500 Hz mirrored
IMAGE_SMOOTH = 9  # bins; what varies more slowly is not fine structure

FIRST_WIDE = 18  # band from 4500 Hz: 4 kHz plus the slope that resamplers leave around it
JOINED = 4  # neighbouring bands whose evidence is averaged: fricatives are broad, ripples are not
RISE_RANGE_DB = (-5.0, 25.0)  # a band's say in that average
EDGE_RISE_DB = 9.0  # of a band's strongest frames above its floor; steady noise reaches 7
LEAST_DB = -60.0  # against the loud frames' mean density; float rounding, stop bands lie below
ROUNDING_POWER = (1 / 32768) ** 2 / 12  # variance of rounding to 16 bits, full scale 1
ROUNDING_DB = 6.0  # above it when the samples lie on the 16-bit grid
TINY = 1e-20  # power; keeps log10 finite


@dataclass(frozen=True)
class Spectrogram:
    """Levels of a recording's frames.

    Attributes:
        level_TK: Density per band in dB, float32 (T, K), K = 32 or as many as the rate has.
        power_T: Density from `HUM_HZ` to `TOP_HZ` in dB, float32 (T,).
        peak_T: Highest absolute sample (T,).
        clean_T: False where digital edits spoil the frame (T,).
        rounded: The samples lie on the 16-bit grid.
        x: The samples, without leading and trailing zeros (N,).
        rate: Hz.
        size, hop: Samples per frame and from frame to frame.
        offset: Samples cut off before ``x``.
    """

    level_TK: np.ndarray
    power_T: np.ndarray
    peak_T: np.ndarray
    clean_T: np.ndarray
    rounded: bool
    x: np.ndarray
    rate: int
    size: int
    hop: int
    offset: int


def decibel(power: np.ndarray | float) -> np.ndarray:
    """10 log10, finite for 0."""
    return 10 * np.log10(np.maximum(power, TINY))


@lru_cache(maxsize=16)
def _window(size: int) -> np.ndarray:
    window = np.hanning(size + 1)[:size]
    return (window / np.sqrt(np.square(window).sum())).astype(np.float32)


def spectrogram(x: np.ndarray, rate: int) -> Spectrogram:
    """Transform a recording; T is 0 when it is shorter than a frame or all zeros.

    Args:
        x: float32 (N,).
        rate: Hz.
    """
    size, hop = round(FRAME_SECONDS * rate), round(HOP_SECONDS * rate)
    hz = np.arange(size // 2 + 1) * (rate / size)
    n_bands = int(min(rate / 2, TOP_HZ) / BAND_HZ)
    starts = np.searchsorted(hz, np.arange(n_bands) * BAND_HZ - rate / size / 2)
    stop = int(np.searchsorted(hz, n_bands * BAND_HZ - rate / size / 2))
    counts = np.diff(np.append(starts, stop)).astype(np.float32)
    voiced = np.flatnonzero(x)
    offset = int(voiced[0]) if len(voiced) else 0
    x = x[offset : voiced[-1] + 1] if len(voiced) else x[:0]
    grid = x[: 4 * rate] * np.float32(32768)
    rounded = bool(np.array_equal(grid, np.rint(grid)))
    if len(x) < size:
        none = np.empty(0, dtype=np.float32)
        level_TK = np.empty((0, n_bands), dtype=np.float32)
        return Spectrogram(level_TK, none, none, none > 0, rounded, x, rate, size, hop, offset)
    frames = np.lib.stride_tricks.sliding_window_view(x, size)[::hop]
    band_TK = np.empty((len(frames), n_bands), dtype=np.float32)
    window = _window(size)
    for start in range(0, len(frames), CHUNK_FRAMES):
        spectrum_TF = scipy.fft.rfft(frames[start : start + CHUNK_FRAMES] * window)[:, :stop]
        power_TF = spectrum_TF.real**2 + spectrum_TF.imag**2
        band_TK[start : start + CHUNK_FRAMES] = np.add.reduceat(power_TF, starts, axis=1) / counts
    power_T = decibel(band_TK[:, int(HUM_HZ / BAND_HZ) :].mean(axis=1))
    # Peaks and flags hop by hop; a frame is two hops (and a sample or so at odd rates).
    n_hops = len(frames) + 1
    whole = x[: n_hops * hop]
    whole = np.pad(whole, (0, n_hops * hop - len(whole))).reshape(n_hops, hop)
    high_H, low_H = whole.max(axis=1), whole.min(axis=1)
    zeros_H = (whole == 0).sum(axis=1)
    limit_H = (whole == high_H.max()).sum(axis=1), (whole == low_H.min()).sum(axis=1)
    clipped_H = np.maximum(limit_H[0] - 1, 0) + np.maximum(limit_H[1] - 1, 0)
    peak_H = np.maximum(high_H, -low_H)
    clean_T = (zeros_H[:-1] + zeros_H[1:] <= size // 8) & (clipped_H[:-1] + clipped_H[1:] == 0)
    peak_T = np.maximum(peak_H[:-1], peak_H[1:])
    return Spectrogram(
        decibel(band_TK), power_T, peak_T, clean_T, rounded, x, rate, size, hop, offset
    )


@dataclass(frozen=True)
class Features:
    """What `features` finds in some frames; levels and differences in dB.

    Attributes:
        n_active: Active frames that no digital edit spoils.
        edge_hz: Upper end of the highest band with speech (0 when there is none).
        narrow_edge_hz: The same, up to 4 kHz.
        rise: How far the strongest frames' upper band rises above floor, image and rounding.
        share: log10 of the share of active frames that rise by more than 6 dB.
        together: Correlation over time of the upper band with the bands just below 4 kHz.
        image: Correlation of the upper band's fine structure with the mirrored lower band's.
        cliff: Steepest drop of the speech's level within 750 Hz, between 3 and 4.5 kHz.
        step: The same for the floor.
        level: The upper band's level in its strongest frames, against the loud frames; `LEAST_DB`
            when it is no more than rounding or a stop band.
        below: How far speech rises above its floor from 2.5 to 3.5 kHz.
        above: The same from 4.5 to 5.5 kHz.
        loudness: Mean rank (0 to 1) by power of the frames with the most evidence.
        tied: How little the upper band's bands vary against their mirrored ones; images by 2 to 5.
        noise: The floor from 4.5 to 5.5 kHz above rounding and stop bands.
        flicker: The upper band's mean level in its strongest frames against its median.
    """

    n_active: int
    edge_hz: float
    narrow_edge_hz: float
    rise: float = 0.0
    share: float = 0.0
    together: float = 0.0
    image: float = 0.0
    cliff: float = 0.0
    step: float = 0.0
    level: float = 0.0
    below: float = 0.0
    above: float = 0.0
    loudness: float = 0.0
    tied: float = 0.0
    flicker: float = 0.0
    noise: float = 0.0


def _sorted_at(values: np.ndarray, percentile: float) -> np.ndarray:
    """A percentile over axis 0 without interpolation; quicker than `np.percentile`."""
    index = min(len(values) - 1, int(len(values) * percentile / 100))
    return np.partition(values, index, axis=0)[index]


def _edge(rise_K: np.ndarray) -> float:
    """Upper end in Hz of the highest band with speech; a lone weak band is none."""
    speech_K = rise_K > EDGE_RISE_DB
    speech_K[1:] &= rise_K[:-1] > EDGE_RISE_DB / 2
    found = np.flatnonzero(speech_K)
    return float((found[-1] + 1) * BAND_HZ) if len(found) else 0.0


def _images(level_TK: np.ndarray, wide: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The level that a poor 8 kHz resampler's images would have in the wide bands.

    An image is the band below, mirrored at 4 kHz and attenuated by a constant. The attenuation
    is read off the frames in which the mirrored band is loud; real speech, which is not tied
    to the mirrored band, rises above that in its fricatives.

    Returns:
        That level (T, K wide), and how far the attenuation varies over the frames (K wide,).
    """
    mirror_TK = level_TK[:, round(NB_RATE / BAND_HZ) - 1 - wide]
    ratio_TK = level_TK[:, wide] - mirror_TK
    ratio_TK = np.where(mirror_TK >= np.median(mirror_TK, axis=0), ratio_TK, np.inf)
    usual_K = _sorted_at(ratio_TK, IMAGE_PERCENTILE * IMAGE_SHARE)
    spread_K = _sorted_at(ratio_TK, (100 - IMAGE_PERCENTILE) * IMAGE_SHARE) - usual_K
    return mirror_TK + usual_K, spread_K


def _image_likeness(s: Spectrogram, frames: np.ndarray) -> float:
    """Correlation (-1 to 1) of fine structure in `IMAGE_HZ` with that of its mirror image."""
    cut = np.lib.stride_tricks.sliding_window_view(s.x, s.size)[frames * s.hop]
    spectrum_TF = scipy.fft.rfft(cut * _window(s.size))
    level_TF = decibel(spectrum_TF.real**2 + spectrum_TF.imag**2)
    step = s.rate / s.size
    high_F = np.arange(round(IMAGE_HZ[0] / step), int(min(IMAGE_HZ[1], s.rate / 2 - 200) / step))
    low_F = np.rint(NB_RATE / step - high_F).astype(int)
    if len(high_F) <= 2 * IMAGE_SMOOTH:
        return 0.0
    kernel = np.ones(IMAGE_SMOOTH) / IMAGE_SMOOTH

    def fine(level_TF: np.ndarray) -> np.ndarray:
        total = np.cumsum(np.pad(level_TF, ((0, 0), (1, 0))), axis=1)
        smooth = (total[:, IMAGE_SMOOTH:] - total[:, :-IMAGE_SMOOTH]) * kernel[0]
        half = IMAGE_SMOOTH // 2
        return level_TF[:, half:-half] - smooth

    high, low = fine(level_TF[:, high_F]), fine(level_TF[:, low_F])
    return float((high * low).sum() / np.sqrt((high**2).sum() * (low**2).sum() + TINY))


def features(s: Spectrogram, start: int = 0, stop: int | None = None) -> Features:
    """What frames ``start`` to ``stop`` of a recording show."""
    part = slice(start, stop)
    power_T, clean_T = s.power_T[part], s.clean_T[part]
    if len(power_T) == 0:
        return Features(0, 0.0, 0.0)
    loud = float(_sorted_at(power_T, LOUD_PERCENTILE))
    if loud <= decibel(TINY) + ACTIVE_RANGE_DB:
        return Features(0, 0.0, 0.0)
    active_T = power_T > loud - ACTIVE_RANGE_DB
    if (active_T & clean_T).sum() >= PEAK_FRAMES:
        active_T &= clean_T
    level_TK = s.level_TK[part][active_T]
    n_active, n_bands = level_TK.shape
    least = loud + LEAST_DB
    if s.rounded:
        least = max(least, float(decibel(ROUNDING_POWER)) + ROUNDING_DB)
    floor_K = _sorted_at(level_TK, FLOOR_PERCENTILE)
    strongest = min(max(PEAK_FRAMES, round(PEAK_SHARE * n_active)), n_active)
    top_K = np.partition(level_TK, n_active - strongest, axis=0)[n_active - strongest]
    rise_K = top_K - np.maximum(floor_K, least)
    edge_hz = _edge(rise_K)
    narrow_edge_hz = _edge(rise_K[: int(NB_RATE / 2 / BAND_HZ)])
    if n_bands <= FIRST_WIDE:
        return Features(n_active, min(edge_hz, s.rate / 2), narrow_edge_hz)

    wide = np.arange(FIRST_WIDE, n_bands)
    image_TK, spread_K = _images(level_TK, wide)
    floor_TK = np.maximum(image_TK, np.maximum(floor_K[wide], least))
    evidence_TK = (level_TK[:, wide] - floor_TK).clip(*RISE_RANGE_DB)
    joined = min(JOINED, len(wide))
    total_TK = np.cumsum(np.pad(evidence_TK, ((0, 0), (1, 0))), axis=1)
    evidence_T = ((total_TK[:, joined:] - total_TK[:, :-joined]) / joined).max(axis=1)
    peak_T = s.peak_T[part][active_T]
    quiet, highest = peak_T.min(), s.peak_T[part].max()
    calm_T = peak_T - quiet < NEAR_PEAK * (highest - quiet)
    if calm_T.sum() > strongest:
        evidence_T = np.where(calm_T, evidence_T, RISE_RANGE_DB[0])
    order = np.argsort(-evidence_T, kind="stable")
    n_fine = min(max(IMAGE_FRAMES[0], strongest), IMAGE_FRAMES[1], n_active)
    best = order[:n_fine]

    flicker_T = (level_TK[:, wide] - floor_K[wide]).clip(*RISE_RANGE_DB).mean(axis=1)
    below_T = (level_TK[:, 11:15] - floor_K[11:15]).clip(-5, 40).mean(axis=1)
    flicker = _sorted_at(flicker_T, 100 * (1 - PEAK_SHARE)) - np.median(flicker_T)
    spread = float(flicker_T.std() * below_T.std())
    covariance = float(((flicker_T - flicker_T.mean()) * (below_T - below_T.mean())).mean())
    power_rank = np.argsort(np.argsort(power_T[active_T]))
    real_K, real_floor_K = np.maximum(top_K, least), np.maximum(floor_K, least)
    return Features(
        n_active=n_active,
        edge_hz=edge_hz,
        narrow_edge_hz=narrow_edge_hz,
        rise=float(evidence_T[order[strongest - 1]]),
        share=float(np.log10((evidence_T > 6).mean() + 1e-3)),
        together=covariance / spread if spread > 1e-6 else 0.0,
        image=_image_likeness(s, start + np.flatnonzero(active_T)[best]),
        cliff=float((real_K[12:16] - real_K[15:19]).max()),
        step=float((real_floor_K[12:16] - real_floor_K[15:19]).max()),
        level=float(np.where(top_K > least, top_K - loud, LEAST_DB)[wide].max()),
        below=float(rise_K[10:14].max()),
        above=float(rise_K[18:22].max()),
        loudness=float(power_rank[best].mean() / max(1, n_active - 1)),
        tied=float(np.median(spread_K)),
        flicker=float(flicker),
        noise=float(real_floor_K[18:22].mean() - least),
    )
