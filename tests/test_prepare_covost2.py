"""CoVoST 2: the published files, the official splits, several targets, and what is left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpus_layouts import covost2, faults_of, prepare, sentence, text

from espnet_smoe.audio import read_header
from espnet_smoe.datadir import DataError

import prepare_covost2 as program  # isort: skip

CLIP = "common_voice_es_1900000"


def test_published_files_are_joined_as_the_official_script_does(tmp_path: Path) -> None:
    sets = prepare(program.main, covost2(tmp_path / "c"), tmp_path / "c", tmp_path / "data")
    sizes = {name: list(tables["text"]) for name, tables in sets.items()}
    assert sizes == {
        "train": [f"{CLIP}{n}" for n in range(4)],  # train_covost is training
        "valid": [f"{CLIP}{n}" for n in (4, 5)],
        "test": [f"{CLIP}{n}" for n in (6, 7)],  # dev_covost is nothing
    }
    clip = tmp_path / "c" / "clips" / f"{CLIP}4.mp3"
    assert {table: rows[f"{CLIP}4"] for table, rows in sets["valid"].items()} == {
        "wav.scp": str(clip),
        "text": f"La {sentence(4)}, dijo.",
        "text.st_eng": f'The "{sentence(4)}", he said.',  # quotes are escaped in the TSV
        "utt2lang": "spa",
        "utt2spk": f"{4:064x}",
    }
    assert (read_header(clip).rate, read_header(clip).format) == (48000, "MP3")


def test_official_splits_give_the_same(tmp_path: Path) -> None:
    for name, official in (("a", False), ("b", True)):
        covost2(tmp_path / name, official=official)
    a, b = (
        prepare(program.main, "covost2_es_en", tmp_path / name, tmp_path / f"data_{name}")
        for name in "ab"
    )
    for tables in (*a.values(), *b.values()):
        tables.pop("wav.scp")
    assert a == b


def test_files_may_lie_in_the_language_folder(tmp_path: Path) -> None:
    covost2(tmp_path / "es")
    sets = prepare(program.main, "covost2_es_en", tmp_path, tmp_path / "data")
    assert len(sets["train"]["text"]) == 4


def test_several_targets_and_regional_codes(tmp_path: Path) -> None:
    covost2(tmp_path)
    for target in ("de", "zh-CN"):
        rows = [f"{CLIP}{n}.mp3\t{target} {n}\t{s}" for n, s in enumerate(["train", "dev", "test"])]
        text(tmp_path / f"covost_v2.en_{target}.tsv", "path\ttranslation\tsplit", *rows)
    with (tmp_path / "covost_v2.en_zh-CN.tsv").open("a") as file:
        file.write(f"{CLIP}2.mp3\tzh\ttrain\n{CLIP}3.mp3\tzh\ttrain\n")
    sets = prepare(program.main, "covost2_en_de_zh-CN", tmp_path, tmp_path / "data")
    assert sets["train"]["text.st_deu"] == {f"{CLIP}0": "de 0"}
    assert sets["train"]["text.st_zho"] == {f"{CLIP}0": "zh-CN 0", f"{CLIP}3": "zh"}
    assert list(sets["train"]["text"]) == [f"{CLIP}0", f"{CLIP}3"]  # 2 is in the test set
    assert set(sets["train"]["utt2lang"].values()) == {"eng"}


def test_what_cannot_be_used_is_a_fault(tmp_path: Path) -> None:
    covost2(tmp_path)
    (tmp_path / "clips" / f"{CLIP}0.mp3").unlink()
    (tmp_path / "clips" / f"{CLIP}1.mp3").write_bytes(b"")
    path = tmp_path / "covost_v2.es_en.tsv"
    lines = path.read_text().split("\n")
    lines[3] = f"{CLIP}2.mp3\t \ttrain"
    lines[-1:] = [f"other.mp3\thello\ttrain\n{CLIP}3.mp3\tagain\ttrain\n{CLIP}4.mp3\tcut"]
    path.write_text("\n".join(lines))
    sets = prepare(program.main, "covost2_es_en", tmp_path, tmp_path / "data")
    assert list(sets["train"]["text"]) == [f"{CLIP}2", f"{CLIP}3"]
    assert list(sets["train"]["text.st_eng"]) == [f"{CLIP}3"]
    assert sorted(faults_of(tmp_path / "data" / "train")) == [
        (f"{CLIP}0", "no such audio file"),
        (f"{CLIP}1", "empty audio file"),
        (f"{CLIP}2", "empty translation (st_eng); kept for asr only"),
        (f"{CLIP}3", "occurs twice"),
        (f"{CLIP}4", "2 columns; expected 3"),
        (
            "other",
            f"not in {tmp_path}/validated.tsv: CoVoST 2 belongs to Common Voice release 4",
        ),
    ]


@pytest.mark.parametrize(
    ("corpus", "lost", "message"),
    [
        ("covost2_es_en", "clips", r"no clips/ of Common Voice; expected Common Voice release 4"),
        ("covost2_es_en", "validated.tsv", "no validated.tsv of Common Voice; expected"),
        ("covost2_es_en", "covost_v2.es_en.tsv", "no covost_v2.es_en.tsv; expected"),
        ("covost2_es_de", "", "no covost_v2.es_de.tsv; expected"),
        ("covost2_es", "", "--corpus covost2_es: expected covost2_<source>_<target>"),
        ("covost2_es_xyzw", "", "language 'xyzw' is unknown; accepted is ISO 639-1"),
        ("covost2_es_spa", "", "a language is named twice"),
    ],
)
def test_a_wrong_layout_is_named(tmp_path: Path, corpus: str, lost: str, message: str) -> None:
    covost2(tmp_path / "c")
    if lost:
        (tmp_path / "c" / lost).rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=message):
        prepare(program.main, corpus, tmp_path / "c", tmp_path / "data")


def test_a_lacking_column_is_named(tmp_path: Path) -> None:
    covost2(tmp_path)
    text(tmp_path / "covost_v2.es_en.tsv", "path\ttranslation")
    with pytest.raises(DataError, match=r"covost_v2.es_en.tsv:1: no column split; it has \['path'"):
        prepare(program.main, "covost2_es_en", tmp_path, tmp_path / "data")
