"""faults.py: faults come back as they were noted, each once."""

from __future__ import annotations

from pathlib import Path

import pytest

from espnet_smoe.datadir import DataError
from espnet_smoe.faults import FAULTS_NAME, SHOWN, Fault, read_faults, summary, write_faults


def test_faults_come_back_once(tmp_path: Path) -> None:
    faults = [Fault("u2", "a b.wav", "does not\nexist"), Fault("", "text", "leer: ''")]
    assert read_faults(tmp_path) == []
    write_faults(tmp_path, faults + faults)
    assert read_faults(tmp_path) == faults
    write_faults(tmp_path, [])
    assert not (tmp_path / FAULTS_NAME).exists()


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    (tmp_path / FAULTS_NAME).write_text('{"utt": "u"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=rf"{FAULTS_NAME}:1: not a fault"):
        read_faults(tmp_path)


def test_a_summary_shows_the_first_and_how_many_more() -> None:
    text = summary((Fault(f"u{i}", "f", "bad") for i in range(SHOWN + 3)), "13 left out")
    assert text.startswith("13 left out:\n  utterance u0: f: bad")
    assert text.endswith(f"... and 3 more; {FAULTS_NAME} has all of them")
