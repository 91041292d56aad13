"""bandwidth.py: narrowband and wideband speech are told apart, whatever the level and padding."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_smoe.audio import resample, to_int16
from espnet_smoe.bandwidth import (
    BANDWIDTHS,
    SURE,
    WEIGHTS,
    BandwidthError,
    evidence,
    measure,
    measure_batch,
)
from espnet_smoe.bandwidth_features import Features
from espnet_smoe.telephone import telephone

RATE = 16000
# Of bounded ranges already.
UNBOUNDED = {"share", "together", "loudness"}


def speech(seed: int, seconds: float = 2.0, hiss_db: float = -20.0) -> np.ndarray:
    """Something like speech at 16 kHz: buzzing vowels, hissing fricatives, pauses.

    Args:
        seed: Of the random generator.
        seconds: Length.
        hiss_db: Level of the fricatives, which alone reach beyond 4 kHz, against the vowels.
    """
    rng = np.random.default_rng(seed)
    parts, total = [], 0
    while total < seconds * RATE:
        kind = ("vowel", "hiss", "vowel", "pause")[len(parts) % 4]
        n = int(rng.uniform(0.06, 0.18) * RATE)
        time = np.arange(n) / RATE
        if kind == "vowel":
            pitch = rng.uniform(90, 220)
            partials = np.arange(1, int(3800 / pitch))
            tilt = 10 ** (-np.log2(partials) * 9 / 20)
            phases = rng.uniform(0, 2 * np.pi, len(partials))
            waves = np.sin(2 * np.pi * pitch * partials[:, None] * time + phases[:, None])
            part = 0.1 * tilt @ waves
        elif kind == "hiss":
            part = 0.1 * 10 ** (hiss_db / 20) * rng.standard_normal(n)
        else:
            part = 1e-4 * rng.standard_normal(n)
        parts.append(part * np.hanning(n) ** 0.3)
        total += n
    return np.concatenate(parts)[: int(seconds * RATE)].astype(np.float32)


def sixteen_bit(x: np.ndarray) -> np.ndarray:
    return to_int16(x) / np.float32(32768)


def narrow(x: np.ndarray, codec: str = "ulaw") -> np.ndarray:
    return resample(telephone(x, RATE, codec=codec), 8000, RATE)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("hiss_db", [-10, -30, -45])
def test_wideband_speech_is_wideband(seed: int, hiss_db: float) -> None:
    estimate = measure(sixteen_bit(speech(seed, hiss_db=hiss_db)), RATE)
    assert estimate.edge_hz > 6000
    if hiss_db > -45:  # hiss 45 dB below the vowels may be too little to decide by
        assert (estimate.label, estimate.likelier) == ("wb", "wb")
        assert estimate.confidence > 0.8
    assert estimate.label != "nb"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("codec", ["ulaw", "alaw"])
@pytest.mark.parametrize("level", [1.0, 0.01])
def test_telephone_speech_at_16_khz_is_narrowband(seed: int, codec: str, level: float) -> None:
    x = narrow(level * speech(seed), codec)
    for audio in (x, sixteen_bit(x)):
        estimate = measure(audio, RATE)
        assert estimate.likelier == "nb"
        assert estimate.edge_hz <= 4000
        if level == 1.0:  # G.711's noise hides quiet speech, and with it the band's end
            assert estimate.label == "nb"
            assert estimate.edge_hz >= 2800


@pytest.mark.parametrize("make", [lambda x: x, narrow])
@settings(max_examples=15, deadline=None)
@given(gain_db=st.floats(-60, 20), seed=st.integers(0, 20))
def test_level_does_not_matter(make, gain_db: float, seed: int) -> None:  # type: ignore[no-untyped-def]
    x = make(speech(seed))
    louder = measure(x * np.float32(10 ** (gain_db / 20)), RATE)
    assert louder.label == measure(x, RATE).label
    assert louder.wb_probability == pytest.approx(measure(x, RATE).wb_probability, abs=0.03)


@pytest.mark.parametrize("make", [lambda x: x, narrow])
@settings(max_examples=10, deadline=None)
@given(
    offset=st.floats(-0.3, 0.3),
    hum=st.floats(0, 0.2),
    hum_hz=st.sampled_from([50, 60]),
    seed=st.integers(0, 20),
)
def test_dc_and_mains_hum_do_not_matter(make, offset, hum, hum_hz, seed) -> None:  # type: ignore[no-untyped-def]
    x = make(speech(seed))
    time = np.arange(len(x), dtype=np.float32) / RATE
    moved = x + np.float32(offset) + np.float32(hum) * np.sin(2 * np.pi * hum_hz * time)
    assert measure(moved.astype(np.float32), RATE).label == measure(x, RATE).label


@settings(max_examples=10, deadline=None)
@given(before=st.integers(0, 20000), after=st.integers(0, 60000), seed=st.integers(0, 20))
def test_silence_around_changes_nothing(before: int, after: int, seed: int) -> None:
    x = speech(seed)
    x = x[np.flatnonzero(x)[0] : np.flatnonzero(x)[-1] + 1]
    assert measure(np.pad(x, (before, after)), RATE) == measure(x, RATE)


@pytest.mark.parametrize("make", [lambda x: sixteen_bit(x), lambda x: sixteen_bit(narrow(x))])
def test_appended_zeros_change_nothing(make) -> None:  # type: ignore[no-untyped-def]
    x = make(speech(1))[:-3000]  # cut within speech: padding then makes a step
    x = x[: np.flatnonzero(x)[-1] + 1]
    padded = np.concatenate((np.zeros(500, np.float32), x, np.zeros(400000, np.float32)))
    assert measure(padded, RATE) == measure(x[np.flatnonzero(x)[0] :], RATE)


@pytest.mark.parametrize("rate", [16000, 22050, 44100, 48000])
def test_hidden_narrowband_at_any_rate(rate: int) -> None:
    x = speech(2)
    hidden = sixteen_bit(resample(telephone(x, RATE), 8000, rate))
    assert measure(hidden, rate).label == "nb"
    wide = measure(sixteen_bit(resample(x, RATE, rate)), rate)
    assert wide.label == "wb"
    assert wide.edge_hz <= 8000 + 400  # never more than the original held


def test_steady_noise_above_4_khz_is_not_speech() -> None:
    x = narrow(speech(3))
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(len(x)).astype(np.float32)
    for noise_db in (-70, -50):
        assert measure(x + 0.1 * np.float32(10 ** (noise_db / 20)) * noise, RATE).label == "nb"
    drowned = measure(x + 0.1 * np.float32(10 ** (-35 / 20)) * noise, RATE)
    assert drowned.likelier == "nb"
    assert drowned.label == "nb" or "noise" in drowned.reason
    dither = (rng.random(len(x)) - rng.random(len(x))) / 32768
    assert measure(sixteen_bit(x + dither), RATE).label == "nb"


def test_images_of_linear_interpolation_are_not_speech() -> None:
    x = telephone(speech(4), RATE)
    doubled = np.interp(np.arange(2 * len(x)) / 2, np.arange(len(x)), x)
    assert measure(sixteen_bit(doubled), RATE).label == "nb"


@pytest.mark.parametrize("rate", [6000, 8000])
def test_low_rates_are_narrowband_by_definition(rate: int) -> None:
    estimate = measure(np.random.default_rng(0).standard_normal(rate) * 0.1, rate)
    assert (estimate.label, estimate.confidence) == ("nb", 1.0)
    assert estimate.edge_hz <= rate / 2


@pytest.mark.parametrize("x", [np.zeros(0), np.zeros(16000), np.full(100, 0.1)])
def test_without_speech_the_rate_decides_and_says_so(x: np.ndarray) -> None:
    estimate = measure(x, RATE)
    assert (estimate.label, estimate.reason) == ("ambiguous", "no speech")
    assert (estimate.likelier, estimate.confidence, estimate.wb_probability) == ("wb", 0.5, 0.5)
    assert (measure(x, 8000).label, measure(x, 8000).likelier) == ("nb", "nb")


def test_short_audio_is_less_sure() -> None:
    x = speech(5)
    assert measure(x[: RATE // 10], RATE).confidence < measure(x, RATE).confidence


def test_a_scrap_of_speech_is_ambiguous_and_says_why() -> None:
    estimate = measure(speech(5)[: RATE // 20], RATE)
    assert (estimate.label, estimate.reason) == ("ambiguous", "too little speech")


def test_wideband_drowned_in_noise_is_not_called_narrowband() -> None:
    rng = np.random.default_rng(0)
    x = speech(6, hiss_db=-40)
    estimate = measure(x + np.float32(0.03) * rng.standard_normal(len(x)), RATE)
    assert estimate.label == "ambiguous"
    assert estimate.reason == "noise covers what may lie above 4 kHz"


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 20), kind=st.sampled_from(["wide", "narrow", "noise"]))
def test_an_estimate_agrees_with_itself(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    x = {"wide": speech, "narrow": lambda s: narrow(speech(s))}.get(
        kind, lambda s: rng.standard_normal(8000).astype(np.float32)
    )(seed)
    e = measure(x, RATE)
    assert e.confidence == pytest.approx(max(e.wb_probability, 1 - e.wb_probability))
    assert e.likelier == ("wb" if e.wb_probability >= 0.5 else "nb")
    assert e.label in (e.likelier, "ambiguous")
    assert (e.label == "ambiguous") == (e.reason != "") == (e.confidence < SURE)


def test_integers_mean_16_bit_samples() -> None:
    x = speech(6)
    assert measure(to_int16(x), RATE) == measure(sixteen_bit(x), RATE)


def test_impossible_audio_is_an_error() -> None:
    with pytest.raises(BandwidthError, match=r"shape \(2, 8\)"):
        measure(np.zeros((2, 8)), RATE)
    with pytest.raises(BandwidthError, match="rate 0"):
        measure(np.zeros(8), 0)
    with pytest.raises(BandwidthError, match="sample 3 is NaN"):
        measure(np.array([0, 0, 0, np.nan]), RATE)


def test_a_batch_equals_its_utterances() -> None:
    one_by_one = [speech(7), narrow(speech(8, 1.5)), speech(9, 1.0)]
    lengths = torch.tensor([len(x) for x in one_by_one])
    batch = torch.full((3, int(lengths.max())), 0.7)  # padding that would be loud if it were read
    for row, x in enumerate(one_by_one):
        batch[row, : len(x)] = torch.from_numpy(x)
    estimates = measure_batch(batch, lengths, RATE)
    assert estimates == [measure(x, RATE) for x in one_by_one]
    assert [estimate.label for estimate in estimates] == ["wb", "nb", "wb"]


def test_a_batch_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(BandwidthError, match="lengths of shape"):
        measure_batch(torch.zeros(2, 8), torch.tensor([8]), RATE)
    with pytest.raises(BandwidthError, match="row 1 of the batch has length 9"):
        measure_batch(torch.zeros(2, 8), torch.tensor([8, 9]), RATE)
    broken = torch.zeros(2, 8)
    broken[1, 0] = torch.inf
    with pytest.raises(BandwidthError, match="row 1 of the batch: sample 0 is NaN"):
        measure_batch(broken, torch.tensor([8, 8]), RATE)


def test_every_term_has_its_weight_and_is_bounded() -> None:
    extreme = {name: 1e9 for name in Features.__annotations__ if name not in UNBOUNDED}
    assert evidence(Features(**extreme)).keys() == WEIGHTS.keys()
    assert all(abs(value) < 100 for value in evidence(Features(**extreme)).values())


def test_the_integer_ids_are_those_of_the_data_files() -> None:
    assert (BANDWIDTHS.index("wb"), BANDWIDTHS.index("nb")) == (0, 1)


def test_importing_the_audio_modules_does_not_import_torch() -> None:
    code = (
        "import sys, espnet_smoe.audio, espnet_smoe.bandwidth, espnet_smoe.bandwidth_segments; "
        "sys.exit('torch' in sys.modules or 'espnet2' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
