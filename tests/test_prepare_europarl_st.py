"""Europarl-ST: segments of speeches, in WAV or M4A."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from corpus_layouts import HAS_FFMPEG, europarl_st, faults_of, prepare, sentence

from espnet_smoe.audio import read_audio
from espnet_smoe.datadir import DataError

import prepare_europarl_st as program  # isort: skip

SPEECH = "es.20081117.22.1-12"


@pytest.fixture(autouse=True)
def forget_programs():
    program.audio_of.cache_clear()


def test_segments_are_locators(tmp_path: Path) -> None:
    sets = prepare(program.main, europarl_st(tmp_path), tmp_path, tmp_path / "data")
    assert {name: len(tables["text"]) for name, tables in sets.items()} == dict.fromkeys(
        ("train", "valid", "test"), 3
    )
    utt = f"{SPEECH}8-0001100-0001900"
    wav = tmp_path / "v1.1" / "es" / "audios" / f"{SPEECH}8.wav"
    assert {table: rows[utt] for table, rows in sets["valid"].items()} == {
        "wav.scp": f"{wav}#t=1.1,1.9",
        "text": f"Señor {sentence(10)}.",
        "text.st_eng": f"Mr {sentence(10)}.",
        "utt2lang": "spa",
        "utt2spk": "MEP_1",
    }
    again = prepare(program.main, "europarl_st_es_en", tmp_path / "v1.1", tmp_path / "again")
    assert again == sets


@pytest.mark.skipif(not HAS_FFMPEG, reason="needs ffmpeg")
def test_m4a_is_read_through_ffmpeg(tmp_path: Path) -> None:
    prepare(program.main, europarl_st(tmp_path / "a"), tmp_path / "a", tmp_path / "wav")
    corpus = europarl_st(tmp_path / "b c", m4a=True)  # a space in the path
    sets = prepare(program.main, corpus, tmp_path / "b c", tmp_path / "m4a")
    locator = sets["test"]["wav.scp"][f"{SPEECH}9-0001100-0001900"]
    assert locator.startswith("ffmpeg -nostdin -v error -i '")
    assert locator.endswith(f"{SPEECH}9.m4a' -ac 1 -f wav - |#t=1.1,1.9")
    x, rate = read_audio(locator)
    assert (rate, len(x)) == (16000, 12800)
    assert 0.01 < np.sqrt(np.mean(x**2)) < 0.2


def test_m4a_without_ffmpeg_says_what_to_do(tmp_path: Path, monkeypatch) -> None:
    europarl_st(tmp_path)
    for path in tmp_path.rglob("*.wav"):
        path.rename(path.with_suffix(".m4a"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(DataError, match=r"M4A needs ffmpeg.*or convert the audio beforehand"):
        prepare(program.main, "europarl_st_es_en", tmp_path, tmp_path / "data")
    assert not (tmp_path / "data" / "test").exists()


def test_what_cannot_be_used_is_a_fault(tmp_path: Path) -> None:
    europarl_st(tmp_path)
    folder = tmp_path / "v1.1" / "es" / "en" / "train"
    lines = [f"{SPEECH}7 0.1", f"{SPEECH}7 1.9 1.1", "es.other 0.1 0.9", f"{SPEECH}7 2 3"]
    (folder / "segments.lst").write_text("\n".join(lines) + "\n")
    for language in ("es", "en"):
        (folder / f"segments.{language}").write_text("a\nb\nc\nd\n")
    (folder / "speakers.lst").unlink()
    sets = prepare(program.main, "europarl_st_es_en", tmp_path, tmp_path / "data")
    assert sets["train"]["utt2spk"] == {f"{SPEECH}7-0002000-0003000": f"{SPEECH}7"}
    found = faults_of(tmp_path / "data" / "train")
    assert len(found) == 3
    assert "not enough values to unpack" in found[0][1]
    assert "starts at 1.9 s and ends at 1.1 s" in found[1][1]
    assert found[2] == ("es.other-0000100-0000900", "no such audio file")


def test_a_wrong_layout_is_named(tmp_path: Path) -> None:
    europarl_st(tmp_path)
    with pytest.raises(DataError, match="no folder de/; expected v1.1/<source>/<target>"):
        prepare(program.main, "europarl_st_de_en", tmp_path, tmp_path / "data")
    with pytest.raises(DataError, match="no .*es/fr/test/segments.lst, .*expected"):
        prepare(program.main, "europarl_st_es_fr", tmp_path, tmp_path / "data")
