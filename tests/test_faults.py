"""faults.py: faults come back as they were noted, each once."""

from __future__ import annotations

from pathlib import Path

import pytest

from espnet_smoe.datadir import DataError
from espnet_smoe.faults import (
    FAULTS_NAME,
    SHOWN,
    Fault,
    fault_of,
    read_faults,
    summary,
    write_faults,
)
from espnet_smoe.locator import AudioError


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


def test_the_fault_of_an_error_says_what_is_known_once() -> None:
    for error in (
        "utterance 'u1': audio file 'a b.wav' is bad",
        "is bad",
        "utterance 'u1': is bad",
    ):
        assert fault_of("u1", "a b.wav", AudioError(error)) == Fault("u1", "a b.wav", "is bad")
    other = fault_of("u1", "a.wav", AudioError("audio file 'a.wav': the part ends"))
    assert other.reason == "the part ends"
