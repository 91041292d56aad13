"""telephone.py: the simulated telephone line."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_smoe import amr, audio
from espnet_smoe import telephone as line
from espnet_smoe.audio import AudioError


def tone(hz: float, rate: int, seconds: float = 1.0, level: float = 0.3) -> np.ndarray:
    time = np.arange(round(rate * seconds)) / rate
    return (level * np.sin(2 * np.pi * hz * time)).astype(np.float32)


def power_db(x: np.ndarray) -> float:
    middle = x[len(x) // 4 : -len(x) // 4]
    return float(10 * np.log10(np.square(middle, dtype=np.float64).mean() + 1e-30))


def test_impossible_values_are_errors() -> None:
    with pytest.raises(AudioError, match=r"shape \(2, 4\)"):
        audio.resample(np.zeros((2, 4)), 8000, 16000)
    with pytest.raises(AudioError, match="sampling rate 0"):
        audio.resample(np.zeros(4), 0, 16000)
    with pytest.raises(AudioError, match="target rate -1"):
        audio.resample(np.zeros(4), 8000, -1)
    with pytest.raises(AudioError, match="codec 'g729' is unknown; accepted: all, ulaw, alaw"):
        line.telephone(np.zeros(4), 8000, codec="g729")
    with pytest.raises(AudioError, match="no telephone codec"):
        line.parse_codecs(" ")


@pytest.mark.parametrize("codec", ["ulaw", "alaw"])
def test_telephone_passes_300_to_3400_hz_only(codec: str) -> None:
    def gain(hz: float) -> float:
        x = tone(hz, 16000)
        return power_db(line.telephone(x, 16000, codec=codec)) - power_db(x)

    for hz in (400, 1000, 3300):
        assert abs(gain(hz)) < 0.5
    for hz in (100, 200, 3500, 3900, 6000):
        assert gain(hz) < -40


def test_telephone_keeps_time_and_has_few_values() -> None:
    burst = np.zeros(16000, dtype=np.float32)
    burst[8000:8400] = tone(1000, 16000, 0.025)
    y = line.telephone(burst, 16000)
    assert len(y) == 8000
    energy = np.square(y)
    centre = float((energy * np.arange(len(y))).sum() / energy.sum())
    assert centre == pytest.approx(8200 / 2, abs=3)
    assert len(np.unique(y)) <= 256  # G.711 has 8 bits


def test_telephone_clips_loud_audio_instead_of_wrapping() -> None:
    x = tone(1000, 16000, level=3.0)
    y = line.telephone(x, 16000)
    narrow = audio.resample(x, 16000, 8000)
    assert np.abs(y).max() <= 1
    loud = np.abs(narrow) > 1.5
    loud[:200] = loud[-200:] = False
    assert (np.sign(y[loud]) == np.sign(narrow[loud])).all()


def speech_like(seed: int) -> np.ndarray:
    """Noise at 16 kHz that comes and goes four times a second."""
    rng = np.random.default_rng(seed)
    envelope = 0.5 - 0.5 * np.cos(2 * np.pi * 4 * np.arange(16000) / 16000)
    return (0.1 * envelope * rng.standard_normal(16000)).astype(np.float32)


@pytest.mark.parametrize("codec", line.available_codecs())
def test_every_codec_keeps_length_time_and_level(codec: str) -> None:
    x = speech_like(1)
    clean = line.telephone(x, 16000)
    y = line.telephone(x, 16000, codec=codec)
    assert (y.shape, y.dtype) == ((8000,), np.float32)
    lags = [np.dot(y[1000 + lag : 7000 + lag], clean[1000:7000]) for lag in range(-20, 21)]
    assert abs(int(np.argmax(lags)) - 20) <= 1
    assert abs(power_db(y) - power_db(clean)) < 4  # noise is what full-rate GSM is worst at


@pytest.mark.parametrize("codec", line.available_codecs())
@pytest.mark.parametrize("samples", [1, 31, 333, 1601])
def test_odd_lengths_survive_every_codec(codec: str, samples: int) -> None:
    assert line.telephone(speech_like(2)[:samples], 8000, codec=codec).shape == (samples,)


@settings(max_examples=25, deadline=None)
@given(level=st.floats(-40, -16), gain_db=st.floats(-30, 10))
def test_the_level_is_what_was_asked_for(level: float, gain_db: float) -> None:
    x = speech_like(3) * np.float32(10 ** (gain_db / 20))
    y = line.telephone(x, 16000, line=line.Line(level_db=level))
    assert line.speech_level_db(y) == pytest.approx(level, abs=0.5)


def test_silence_has_no_level_to_raise() -> None:
    assert not line.telephone(np.zeros(800), 8000, line=line.Line(level_db=-26.0)).any()


def test_line_noise_has_its_level_and_its_band() -> None:
    y = line.telephone(np.zeros(32000), 8000, line=line.Line(noise_db=-50.0, seed=1))
    assert power_db(y) == pytest.approx(-50, abs=0.7)
    power = np.abs(np.fft.rfft(y)) ** 2
    hz = np.fft.rfftfreq(len(y), 1 / 8000)
    assert power[hz > 3600].mean() < 0.01 * power[(hz > 400) & (hz < 3300)].mean()


def test_random_lines_differ_and_are_seeded() -> None:
    def draw(seed: int) -> list[line.Line]:
        rng = np.random.default_rng(seed)
        return [line.Line.random(rng, ("ulaw", "gsm"), noise_prob=0.5) for _ in range(200)]

    lines = draw(1)
    assert lines == draw(1) != draw(2)
    assert {each.codec for each in lines} == {"ulaw", "gsm"}
    assert 60 < sum(each.noise_db is not None for each in lines) < 140
    low, high = line.LEVEL_RANGE_DB
    assert all(each.level_db is not None and low <= each.level_db <= high for each in lines)


def test_amr_is_optional_and_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amr, "_library", lambda: None)
    assert "amr_nb" not in line.parse_codecs("all")
    with pytest.raises(AudioError, match="'amr_nb' needs libopencore-amrnb"):
        line.telephone(np.zeros(400), 8000, codec="amr_nb")
    with pytest.raises(RuntimeError, match="is not installed"):
        amr.code(np.zeros(4, np.int16))
