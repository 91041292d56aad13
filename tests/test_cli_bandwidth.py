"""cli.py: `espnet-smoe bandwidth` prints a table and reports what it could not read at the end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_bandwidth import RATE, narrow, sixteen_bit, speech

from espnet_smoe.audio import write_audio
from espnet_smoe.cli import main


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    write_audio(tmp_path / "wide.wav", speech(1, 12), RATE)
    write_audio(tmp_path / "narrow.flac", narrow(speech(2)), RATE)
    joined = np.concatenate([narrow(speech(3, 12)), speech(4, 12)])
    write_audio(tmp_path / "joined.wav", sixteen_bit(joined), RATE)
    write_audio(tmp_path / "silence.wav", np.zeros(RATE), RATE)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    return tmp_path


def rows(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()]


def test_a_line_per_file(recordings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [str(recordings / name) for name in ("wide.wav", "narrow.flac", "silence.wav")]
    assert main(["bandwidth", *names]) == 0
    header, *lines = rows(capsys.readouterr().out)
    assert header == ["name", "rate", "label", "edge", "confidence", "reason"]
    assert [line[:3] for line in lines] == [
        [names[0], "16000", "wb"],
        [names[1], "16000", "nb"],
        [names[2], "16000", "ambiguous"],
    ]
    assert [line[5] for line in lines] == ["", "", "no speech"]


def test_segments_and_a_table(recordings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = recordings / "wav.scp"
    table.write_text(f"u1 {recordings / 'joined.wav'}\nu2 {recordings / 'wide.wav'}\n")
    assert main(["bandwidth", "--segments", str(table)]) == 0
    header, *lines = rows(capsys.readouterr().out)
    assert header[:5] == ["name", "start", "end", "rate", "label"]
    assert [(line[0], line[4]) for line in lines] == [("u1", "nb"), ("u1", "wb"), ("u2", "wb")]
    assert float(lines[0][2]) == pytest.approx(12, abs=1)


def test_unusable_files_are_named_at_the_end(
    recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, gone = str(recordings / "broken.wav"), str(recordings / "gone.wav")
    assert main(["bandwidth", broken, str(recordings / "wide.wav"), gone]) == 1
    captured = capsys.readouterr()
    assert len(rows(captured.out)) == 2
    assert "2 of 3 unusable" in captured.err
    assert broken in captured.err
    assert "does not exist" in captured.err
