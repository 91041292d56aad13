"""audio.py: reading, resampling, the telephone channel, whole files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kaldiio
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_smoe import audio
from espnet_smoe.audio import (
    AudioError,
    header_problem,
    read_at,
    read_audio,
    read_header,
    resample,
    samples_at,
)
from espnet_smoe.locator import AudioHeader


def tone(hz: float, rate: int, seconds: float = 1.0, level: float = 0.3) -> np.ndarray:
    time = np.arange(round(rate * seconds)) / rate
    return (level * np.sin(2 * np.pi * hz * time)).astype(np.float32)


def power_db(x: np.ndarray) -> float:
    middle = x[len(x) // 4 : -len(x) // 4]
    return float(10 * np.log10(np.square(middle, dtype=np.float64).mean() + 1e-30))


@pytest.mark.parametrize(
    ("suffix", "subtype", "rate"),
    [
        ("wav", "PCM_16", 16000),
        ("wav", "ULAW", 8000),
        ("flac", "PCM_16", 44100),
        ("ogg", "OPUS", 48000),
        ("mp3", "MPEG_LAYER_III", 16000),
        ("nist", "PCM_16", 8000),
    ],
)
def test_reads_what_libsndfile_reads(tmp_path: Path, suffix: str, subtype: str, rate: int) -> None:
    path = tmp_path / f"a.{suffix}"
    x = tone(1000, rate)
    soundfile.write(path, x, rate, subtype=subtype)
    y, read_rate = audio.read_audio(path)
    header = audio.read_header(path)
    assert (read_rate, header.rate, header.channels) == (rate, rate, 1)
    assert header.subtype == subtype
    assert y.dtype == np.float32
    assert abs(len(y) - len(x)) <= 0.1 * rate
    assert power_db(y) == pytest.approx(power_db(x), abs=0.5)


def test_reads_an_entry_of_a_kaldi_archive(tmp_path: Path) -> None:
    samples = audio.to_int16(tone(500, 16000))
    kaldiio.save_ark(
        str(tmp_path / "a.ark"),
        {"u1": (16000, samples)},
        scp=str(tmp_path / "a.scp"),
        write_function="soundfile",
        write_kwargs={"format": "flac"},
    )
    entry = (tmp_path / "a.scp").read_text().split()[1]
    x, rate = audio.read_audio(entry)
    assert rate == 16000
    np.testing.assert_array_equal(audio.to_int16(x), samples)
    assert audio.read_header(entry).frames == 16000


def test_errors_name_utterance_and_file(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"'u7'.*gone\.wav' does not exist"):
        audio.read_audio(tmp_path / "gone.wav", utt="u7")
    with pytest.raises(AudioError, match=r"'u7'.*gone\.wav' does not exist"):
        audio.read_header(tmp_path / "gone.wav", utt="u7")
    (tmp_path / "text.wav").write_text("not audio")
    with pytest.raises(AudioError, match=r"'u8'.*text\.wav' cannot be read"):
        audio.read_audio(tmp_path / "text.wav", utt="u8")
    with pytest.raises(AudioError, match=r"'u9'.*its command ended with status"):
        audio.read_audio("sph2pipe -f wav a.sph |", utt="u9")
    with pytest.raises(AudioError, match=r"'u9'.*does not exist|'u9'.*cannot be read"):
        audio.read_audio(f"{tmp_path}/no.ark:12", utt="u9")


def test_unusable_content_is_an_error(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "two.wav", np.zeros((100, 2)), 8000)
    with pytest.raises(AudioError, match="2 channels; accepted is 1"):
        audio.read_audio(tmp_path / "two.wav")
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 8000)
    with pytest.raises(AudioError, match=r"none\.wav' holds no samples"):
        audio.read_audio(tmp_path / "none.wav")
    with pytest.raises(AudioError, match=r"none\.wav' holds no samples"):
        audio.read_header(tmp_path / "none.wav")
    bad = np.zeros(10, dtype=np.float32)
    bad[4] = np.nan
    soundfile.write(tmp_path / "nan.wav", bad, 8000, subtype="FLOAT")
    with pytest.raises(AudioError, match="holds 1 NaN or infinite samples, the first at 4"):
        audio.read_audio(tmp_path / "nan.wav")


def test_a_flac_cut_short_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    noise = np.random.default_rng(0).standard_normal(16000) * 0.1
    soundfile.write(path, noise, 16000)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError, match=r"a\.flac' (is cut short|cannot be read)"):
        audio.read_audio(path)


@pytest.mark.parametrize(("rate", "target"), [(48000, 16000), (8000, 16000), (22050, 16000)])
def test_resampling_keeps_level_length_and_pitch(rate: int, target: int) -> None:
    y = audio.resample(tone(1000, rate), rate, target)
    assert len(y) == target
    assert y.dtype == np.float32
    np.testing.assert_allclose(y[500:-500], tone(1000, target)[500:-500], atol=1e-3)


def test_resampling_removes_what_would_alias() -> None:
    assert power_db(audio.resample(tone(6000, 16000), 16000, 8000)) < -100


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=200))
def test_sixteen_bit_samples_survive_writing(samples: list[int]) -> None:
    values = np.array(samples, dtype=np.int16)
    np.testing.assert_array_equal(audio.to_int16(values / np.float32(32768)), values)


def test_writing_is_bit_exact_and_leaves_no_partial_file(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(-32768, 32768, 4000).astype(np.int16)
    path = tmp_path / "deep" / "a.flac"
    audio.write_audio(path, values / np.float32(32768), 16000)
    read, rate = soundfile.read(path, dtype="int16")
    np.testing.assert_array_equal(read, values)
    assert rate == 16000
    assert [file.name for file in path.parent.iterdir()] == ["a.flac"]


def test_writing_clips_and_never_wraps(tmp_path: Path) -> None:
    audio.write_audio(tmp_path / "a.wav", np.array([2.0, -2.0]), 16000)
    x, _ = audio.read_audio(tmp_path / "a.wav")
    np.testing.assert_allclose(x, [32767 / 32768, -1.0])


def test_what_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"cannot write .*a\.xyz"):
        audio.write_audio(tmp_path / "a.xyz", np.zeros(4), 16000)
    with pytest.raises(AudioError, match=r"a\.wav.*NaN"):
        audio.write_audio(tmp_path / "a.wav", np.array([np.nan]), 16000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000])
def test_samples_at_is_what_resampling_gives(tmp_path: Path, rate: int) -> None:
    for frames in (1, 2, 799, 5001, 12345):
        path = tmp_path / f"{frames}.wav"
        soundfile.write(path, np.zeros(frames), rate)
        expected = len(resample(*read_audio(path), 16000))
        assert samples_at(read_header(path), 16000) == expected
        if expected:
            assert len(read_at(path, 16000)) == expected


def test_a_header_is_held_against_the_tables() -> None:
    def problem(any_rate: bool = False, **header: Any) -> str | None:
        found = AudioHeader(**{"rate": 8000, "channels": 1, "frames": 400, "subtype": "", **header})
        return header_problem(found, rate=16000, samples=800, any_rate=any_rate)

    assert problem(rate=16000, frames=800, format="WAV") is None
    assert problem(any_rate=True, format="WAV") is None
    assert problem(any_rate=True, frames=417, format="OGG") is None  # an estimate
    for wrong in ({}, {"rate": 16000, "frames": 799}, {"rate": 16000, "channels": 2}):
        text = str(problem(**{"format": "WAV", **wrong}))
        assert "expected 16000 Hz, 1 channel, 800 samples" in text
    shorter = problem(any_rate=True, frames=399, format="WAV")
    assert str(shorter).startswith("8000 Hz, 1 channel(s), 399 samples; expected 16000 Hz")
    assert str(shorter).endswith("(resampled it has 798)")


def test_a_header_that_estimates_says_so(tmp_path: Path) -> None:
    for name, exact in (("a.wav", True), ("a.flac", True), ("a.ogg", False), ("a.mp3", False)):
        soundfile.write(tmp_path / name, np.zeros(16000), 16000)
        assert read_header(tmp_path / name).exact == exact
