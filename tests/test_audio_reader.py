"""ESPnet's data type ``audio``: every locator, at 16 kHz, from a table that stays on disk."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile
from espnet2.tasks import s2t  # noqa: F401  (registers the data type)
from espnet2.train.dataset import DATA_TYPES, ESPnetDataset
from espnet2.train.iterable_dataset import IterableESPnetDataset

import espnet_smoe  # noqa: F401
from espnet_smoe import audio_reader
from espnet_smoe.audio import AudioError, read_audio, resample, to_int16
from espnet_smoe.audio_reader import AudioReader
from espnet_smoe.datadir import write_table


@pytest.fixture
def scp(tmp_path: Path) -> Path:
    """Two utterances at 8 kHz, one of them a command, and one at 16 kHz."""
    rng = np.random.default_rng(0)
    for name, rate in (("a", 8000), ("b", 16000)):
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * rng.standard_normal(rate // 2), rate)
    wavs = {
        "u": tmp_path / "b.wav",
        "u-1": f"cat {tmp_path / 'a.wav'} |#t=0.1,0.3",
        "ü": tmp_path / "a.wav",
    }
    write_table(tmp_path / "wav.scp", wavs)
    return tmp_path / "wav.scp"


def test_any_id_is_found_wherever_its_line_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    alphabet = list("ab-_0éあ😀")
    utts = {"".join(rng.choice(alphabet, rng.integers(1, 6))) for _ in range(300)}
    table = {utt: f"audio/{utt} x.wav" for utt in sorted(utts)}
    path = tmp_path / "wav.scp"
    write_table(path, table)
    monkeypatch.setattr(audio_reader, "BLOCK", 64)
    for text in (path.read_text(), path.read_text().rstrip("\n")):
        path.write_text(text)
        reader = AudioReader(path)
        assert list(reader) == list(table)
        assert {utt: reader.locator(utt) for utt in table} == table
        assert all(utt in reader for utt in table)
        assert not any(other in reader for other in ("", "a x", "zz", "a" * 9))


def test_a_missing_utterance_is_named(scp: Path) -> None:
    with pytest.raises(KeyError, match="wav.scp .* has no utterance 'v'"):
        AudioReader(scp)["v"]
    scp.write_text("")
    assert len(AudioReader(scp)) == 0
    assert "u" not in AudioReader(scp)


def test_a_bad_file_is_named_with_its_utterance(scp: Path) -> None:
    (scp.parent / "b.wav").write_bytes(b"")
    with pytest.raises(AudioError, match="utterance 'u': audio file .*b.wav' cannot be read"):
        AudioReader(scp)["u"]


def test_spawned_loader_processes_get_the_reader(scp: Path) -> None:
    """Its pickle holds the table's name, not the table."""
    data = pickle.dumps(AudioReader(scp, "float64"))
    assert len(data) < 300
    copy = pickle.loads(data)
    assert copy["u"].dtype == np.float64
    np.testing.assert_array_equal(copy["u"], AudioReader(scp)["u"])


def test_no_stock_type_takes_the_name() -> None:
    import re

    first = next(name for name in DATA_TYPES if re.match(name, audio_reader.DATA_TYPE))
    assert first == audio_reader.DATA_TYPE


def test_espnets_datasets_hear_every_utterance_at_16_khz(scp: Path) -> None:
    entry = (str(scp), "speech", "audio")
    training = ESPnetDataset([entry])
    inference = dict(IterableESPnetDataset([entry]))
    assert list(inference) == ["u", "u-1", "ü"]
    for utt in inference:
        x = to_int16(resample(*read_audio(AudioReader(scp).locator(utt)), 16000)) / 32768
        assert training[utt][1]["speech"].dtype == np.float32
        np.testing.assert_array_equal(training[utt][1]["speech"], x)
        np.testing.assert_array_equal(inference[utt]["speech"], x)
    assert len(inference["u-1"]["speech"]) == 3200
