"""LibriSpeech: transcripts only, and what is left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpus_layouts import faults_of, librispeech, noise, prepare, sentence

from espnet_smoe.datadir import DataError

import prepare_librispeech as program  # isort: skip


@pytest.mark.parametrize("below", [".", "LibriSpeech"])
def test_sets_and_tables(tmp_path: Path, below: str) -> None:
    librispeech(tmp_path)
    sets = prepare(program.main, "librispeech", tmp_path / below, tmp_path / "data")
    assert {name: len(tables["text"]) for name, tables in sets.items()} == {
        "train": 4,
        "valid": 4,  # dev-clean and dev-other
        "test_clean": 2,
        "test_other": 2,
    }
    utt = "87-121126-0001"
    flac = tmp_path / "LibriSpeech" / "test-clean" / "87" / "121126" / f"{utt}.flac"
    assert {table: rows[utt] for table, rows in sets["test_clean"].items()} == {
        "wav.scp": str(flac),
        "text": f"it's {sentence(16)}",
        "utt2lang": "eng",
        "utt2spk": "87",
    }


def test_raw_text_stays_upper_case(tmp_path: Path) -> None:
    options = ("librispeech", tmp_path, tmp_path / "data", "--text_case", "raw")
    librispeech(tmp_path)
    texts = prepare(program.main, *options)["train"]["text"]
    assert texts["84-121123-0000"] == f"IT'S {sentence(0).upper()}"


def test_what_cannot_be_used_is_a_fault(tmp_path: Path) -> None:
    librispeech(tmp_path)
    folder = tmp_path / "LibriSpeech" / "train-clean-100" / "84" / "121123"
    (folder / "84-121123-0000.flac").unlink()
    noise(folder / "84-121123-0009.flac")
    noise(folder.parents[1] / "85" / "7" / "85-7-0000.flac")  # 85 reads for dev-clean
    prepare(program.main, "librispeech", tmp_path, tmp_path / "data")
    assert sorted(faults_of(tmp_path / "data" / "train")) == [
        (
            "",
            "reader 85 is in train-clean-100 but listed for dev-clean in SPEAKERS.TXT",
        ),
        ("84-121123-0000", "no such audio file"),
        ("84-121123-0009", "no transcript"),
    ]


def test_a_wrong_layout_is_named(tmp_path: Path) -> None:
    librispeech(tmp_path)
    (tmp_path / "LibriSpeech" / "test-other").rename(tmp_path / "elsewhere")
    with pytest.raises(
        DataError, match="none of test-other for the set test_other; expected Libri"
    ):
        prepare(program.main, "librispeech", tmp_path, tmp_path / "data")
