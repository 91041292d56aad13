"""telephone.py: the simulated telephone line."""

from __future__ import annotations

import numpy as np
import pytest

from espnet_smoe import audio
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
    with pytest.raises(AudioError, match="codec 'gsm' is unknown; accepted: ulaw, alaw"):
        line.telephone(np.zeros(4), 8000, codec="gsm")


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
