"""MuST-C: segments of talks, several targets, and what is left out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from corpus_layouts import faults_of, mustc, prepare, sentence

from espnet_smoe.audio import read_audio
from espnet_smoe.datadir import DataError

import prepare_mustc as program  # isort: skip


def test_segments_are_locators(tmp_path: Path) -> None:
    sets = prepare(program.main, mustc(tmp_path / "c"), tmp_path / "c", tmp_path / "data")
    assert {name: len(tables["text"]) for name, tables in sets.items()} == {
        "train": 6,
        "valid": 3,
        "tst-COMMON": 3,
        "tst-HE": 3,
    }
    utt = "ted_3-0001050-0001850"
    wav = tmp_path / "c" / "en-de" / "data" / "dev" / "wav" / "ted_3.wav"
    assert {table: rows[utt] for table, rows in sets["valid"].items()} == {
        "wav.scp": f"{wav}#t=1.05,1.85",
        "text": f"The {sentence(31)}. (Laughter)",
        "text.st_deu": f"Das de {sentence(31)}.",
        "utt2lang": "eng",
        "utt2spk": "spk.3",
    }
    whole, rate = read_audio(wav)
    part, _ = read_audio(sets["valid"]["wav.scp"][utt])
    assert (part == whole[int(1.05 * rate) : int(1.85 * rate)]).all()


def test_the_folder_itself_and_version_1(tmp_path: Path) -> None:
    mustc(tmp_path)
    for path in tmp_path.rglob("*.yaml"):  # version 1's lines
        path.write_text(path.read_text().replace("rW: ", "x: ").replace("uW: 0, ", ""))
    sets = prepare(program.main, "mustc_en_de", tmp_path / "en-de", tmp_path / "data")
    assert len(sets["train"]["text"]) == 6


def test_targets_share_utterances_and_held_out_talks(tmp_path: Path, capsys) -> None:
    corpus = mustc(tmp_path, ("de", "fr"))
    french = tmp_path / "en-fr" / "data" / "train" / "txt"
    lines = (french / "train.en").read_text().split("\n")
    lines[0] = "Well, otherwise."
    (french / "train.en").write_text("\n".join(lines))
    yaml = (french / "train.yaml").read_text().replace("ted_2", "ted_3")  # German's dev talk
    (french / "train.yaml").write_text(yaml)
    sets = prepare(program.main, corpus, tmp_path, tmp_path / "data")
    train = sets["train"]
    assert len(train["text"]) == 7
    assert train["text"]["ted_1-0000050-0000850-fra"] == "Well, otherwise."
    assert "ted_1-0000050-0000850" not in train["text.st_fra"]
    both = "ted_1-0001050-0001850"
    assert train["text.st_deu"][both] == f"Das de {sentence(11)}."
    assert train["text.st_fra"][both] == f"Das fr {sentence(11)}."
    assert not any("ted_3" in utt for utt in train["text"])
    assert "train: 3 segments left out: their recordings are held out" in capsys.readouterr().out
    assert faults_of(tmp_path / "data" / "train") == []


def test_what_cannot_be_used_is_a_fault(tmp_path: Path) -> None:
    mustc(tmp_path)
    data = tmp_path / "en-de" / "data" / "train"
    (data / "wav" / "ted_2.wav").unlink()
    lines = (data / "txt" / "train.yaml").read_text().split("\n")
    lines[0] = lines[0].replace("0.800000", "-0.8")
    lines[1] = "- {duration: 0.8, speaker_id: spk.1, wav: ted_1.wav}"
    (data / "txt" / "train.yaml").write_text("\n".join(lines))
    sets = prepare(program.main, "mustc_en_de", tmp_path, tmp_path / "data")
    assert list(sets["train"]["text"]) == ["ted_1-0002050-0002850"]
    found = faults_of(tmp_path / "data" / "train")
    assert ("ted_1.wav", "starts at 0.05 s and ends at -0.75 s; expected 0 <= start < end") in found
    assert any("has no 'offset'; expected duration, offset" in reason for _, reason in found)
    assert [utt for utt, reason in found if reason == "no such audio file"] == [
        f"ted_2-000{n}050-000{n}850" for n in range(3)
    ]


def test_a_line_separator_in_a_text_ends_no_line(tmp_path: Path) -> None:
    mustc(tmp_path)
    path = tmp_path / "en-de" / "data" / "dev" / "txt" / "dev.de"
    path.write_text(path.read_text().replace("Das", "Das\u2028", 1))
    sets = prepare(program.main, "mustc_en_de", tmp_path, tmp_path / "data")
    assert sets["valid"]["text.st_deu"]["ted_3-0000050-0000850"] == f"Das de {sentence(30)}."


def test_texts_of_other_lengths_are_named(tmp_path: Path) -> None:
    mustc(tmp_path)
    path = tmp_path / "en-de" / "data" / "dev" / "txt" / "dev.de"
    path.write_text("Nur eine.\n")
    with pytest.raises(DataError, match=r"dev.de: 1 lines; .*dev.yaml has 3"):
        prepare(program.main, "mustc_en_de", tmp_path, tmp_path / "data")


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ("mustc_en_fr", "no en-fr/data; expected en-<target>/data"),
        ("mustc_de_en", "MuST-C's speech is English: mustc_en_<target>"),
        ("mustc_en_de", "no .*tst-HE/txt/tst-HE.yaml; expected"),
    ],
)
def test_a_wrong_layout_is_named(tmp_path: Path, corpus: str, message: str) -> None:
    mustc(tmp_path)
    shutil.rmtree(tmp_path / "en-de" / "data" / "tst-HE")
    with pytest.raises(DataError, match=message):
        prepare(program.main, corpus, tmp_path, tmp_path / "data")
