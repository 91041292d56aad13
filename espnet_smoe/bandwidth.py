"""How many Hz of speech a recording really holds: narrowband (NB) or wideband (WB).

A file's sampling rate is a promise, not a fact: telephone speech is often stored at 16 kHz.
So the spectrum decides. `bandwidth_features` says what it shows; here a logistic model weighs
that into a probability. Where neither bandwidth reaches `SURE`, the label is ``ambiguous`` and a
reason says what is missing; `BandwidthEstimate.likelier` is the better guess all the same.

Known limits: wideband speech that is covered by noise above 4 kHz, or a single word without a
fricative, is mostly ambiguous; so is narrowband speech that was upsampled badly and then coded
by Opus or MP3, which smears the images that would give it away (some of it is called wideband).

Shapes: N samples, B utterances.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from espnet_smoe.bandwidth_features import Features, Spectrogram, features, spectrogram

if TYPE_CHECKING:
    import torch

BANDWIDTHS = ("wb", "nb")  # the position is the integer id in the data files
AMBIGUOUS = "ambiguous"
SURE = 0.75  # a likelier bandwidth below this probability is no decision
LEAST_RATE = 10000  # Hz; below it there are not two bands above 4.5 kHz to judge by
FULL_FRAMES = 12  # with fewer active frames (0.2 s), the log-odds shrink in proportion
MOST_LOG_ODDS = 7.0  # 0.999: what the development recordings can vouch for

# When steady noise, which may have been added later, covers the band's end on both sides of 4 kHz,
# nothing can make a recording wideband.
UNHEARD_DB = 5.5  # of `Features.rise`
UNHEARD_FLICKER_DB = 1.6  # of `Features.flicker`
UNHEARD_BELOW_DB = 10.0  # of `Features.below`
UNHEARD_LOG_ODDS = 1.0  # 0.73: ambiguous

# Coefficients of the log-odds of wideband; `evidence` gives the terms. Fitted by
# benchmarks/meter_fit.py with equal weight for both bandwidths and an L2 penalty of 1, on 5,797
# variants of recordings of 37 sources (spoken prompts and words in many languages, read and
# elicited speech, one synthetic corpus): clean, dull, whispered, distant, noisy, clipped, short
# and coded wideband; narrowband through 13 codecs, 9 resamplers, then noise, dither, clipping,
# Opus or MP3. `SURE` was set on 514 recordings of one corpus (mboshi_fr, dev).
INTERCEPT = 12.741
WEIGHTS = {  # per unit of the term: dB, correlation, log10, rank
    "rise_to_4": 0.1844,
    "rise_4_to_8": -0.1170,
    "rise_8_to_16": 0.3386,
    "share": 1.8524,
    "image": -8.6040,
    "together": 0.7507,
    "flicker": 0.7086,
    "free": 0.1751,
    "step": -0.1636,
    "cliff": -0.0565,
    "level": 0.0939,
    "above": -0.2799,
    "frames": -1.7275,
    "loudness": -3.7742,
    "covered": -0.8625,
}


class BandwidthError(ValueError):
    """The audio given cannot be measured."""


@dataclass(frozen=True)
class BandwidthEstimate:
    """What the spectrum says.

    Attributes:
        label: ``"nb"``, ``"wb"`` or ``"ambiguous"``.
        edge_hz: Upper end of the highest band with speech, in Hz (0 when there is none).
        confidence: Probability of `likelier`: 0.5 (nothing to go by) to 1.
        wb_probability: Probability of wideband, both being as likely before looking.
        reason: Why the label is ``"ambiguous"``; empty otherwise.
    """

    label: str
    edge_hz: float
    confidence: float
    wb_probability: float
    reason: str = ""

    @property
    def likelier(self) -> str:
        """The better guess, ``"nb"`` or ``"wb"``; ``"wb"`` when there is no speech."""
        return "wb" if self.wb_probability >= 0.5 else "nb"


def evidence(found: Features) -> dict[str, float]:
    """The terms that the log-odds are a weighted sum of; each is bounded.

    Args:
        found: Of a recording with active frames and bands above 4.5 kHz.
    """

    def within(value: float, low: float, high: float) -> float:
        return min(max(value, low), high)

    image = within(found.image, 0, 1)
    speech_below = within(found.below - 8, 0, 12) / 12
    return {
        "rise_to_4": within(found.rise, -5, 4),
        "rise_4_to_8": within(found.rise, 4, 8) - 4,
        "rise_8_to_16": within(found.rise, 8, 16) - 8,
        "share": found.share,
        "image": image,
        "together": found.together * (1 - image),
        "flicker": float(np.log(within(found.flicker, 0.8, 12))),
        "free": within(found.tied, 2, 14) * (within(found.above, 5, 20) - 5) / 15,
        "step": within(found.step, 0, 20),
        "cliff": within(found.cliff, 5, 35),
        "level": within(found.level, -60, -10),
        "above": within(found.above, 0, 25),
        "frames": within(float(np.log10(max(found.n_active, 1) / 50)), -1, 0.6),
        "loudness": found.loudness,
        "covered": within(8 - found.above, 0, 2) * speech_below,
    }


def log_odds(found: Features) -> float:
    """Of wideband against narrowband (natural logarithm), both as likely before looking."""
    terms = evidence(found)
    total = INTERCEPT + sum(WEIGHTS[name] * value for name, value in terms.items())
    unmoved = found.rise < UNHEARD_DB and found.flicker < UNHEARD_FLICKER_DB
    if unmoved and found.noise > 0 and found.below < UNHEARD_BELOW_DB:
        total = min(total, UNHEARD_LOG_ODDS)
    total *= min(1.0, found.n_active / FULL_FRAMES)
    return min(max(total, -MOST_LOG_ODDS), MOST_LOG_ODDS)


def _why(found: Features) -> str:
    """What keeps the evidence from deciding."""
    if found.n_active < 2 * FULL_FRAMES:
        return "too little speech"
    if found.above > 10 and (found.image > 0.3 or found.tied < 6):
        return "above 4 kHz lies what may be speech or the image of a poor resampler"
    if found.noise > 6 and found.above < 12:
        return "noise covers what may lie above 4 kHz"
    if found.rise < 6 and found.cliff < 25:
        return "hardly any speech above 4 kHz, but no cliff there either"
    return "signs of speech above 4 kHz and of a band that ends there"


def judge(found: Features, rate: int) -> BandwidthEstimate:
    """Weigh what was found in a recording, or in a part of it, of a rate in Hz."""
    if rate < LEAST_RATE:
        return BandwidthEstimate("nb", found.edge_hz, 1.0, 0.0)
    if found.n_active == 0:
        return BandwidthEstimate(AMBIGUOUS, 0.0, 0.5, 0.5, "no speech")
    wide = round(float(1 / (1 + np.exp(-log_odds(found)))), 4)
    confidence = max(wide, round(1 - wide, 4))
    edge = found.edge_hz if wide >= 0.5 else found.narrow_edge_hz
    if confidence < SURE:
        return BandwidthEstimate(AMBIGUOUS, edge, confidence, wide, _why(found))
    return BandwidthEstimate("wb" if wide >= 0.5 else "nb", edge, confidence, wide)


def analyse(x: np.ndarray, rate: int) -> Spectrogram:
    """Check and transform a recording; arguments and errors as `measure`'s."""
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
    return spectrogram(x, rate)


def measure(x: np.ndarray, rate: int) -> BandwidthEstimate:
    """Measure one utterance.

    Args:
        x: Samples (N,), at any level; float, or integers (taken as 16-bit samples).
        rate: Their sampling rate in Hz.

    Returns:
        The estimate. At 8000 Hz or below the label is ``nb`` whatever the spectrum holds;
        above, audio without any speech (silence, under 32 ms) is ``ambiguous``, likelier ``wb``.

    Raises:
        BandwidthError: Several channels, a rate that is not positive, NaN or infinite samples.
    """
    return judge(features(analyse(x, rate)), rate)


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
