"""The Mboshi-French preparer: both layouts, the fixed validation set, and its errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from stage_data import RECIPE  # noqa: F401

from espnet_smoe.datadir import DataError, read_table
from espnet_smoe.faults import FAULTS_NAME, read_faults

import corpus  # isort: skip  (stage_data puts the recipe's local/ on the path)
import prepare_mboshi_fr as mboshi  # isort: skip

TAIL = "2015-09-08-11-33-57_samsung-SM-T530_mdw_elicit_Dico18"
# (split, utterance, transcript, translation); the first two are one sentence, spoken twice
CORPUS = [
    ("train", f"abiayi_{TAIL}_1", "Kyéma yeékirá Ikóó", "Ce singe que vend Ikoo"),
    ("train", f"kouarata_{TAIL}_1", "Kyéma yeékirá Ikóó", "Ce singe que vend Ikoo"),
    ("train", f"abiayi_{TAIL}_10", "Mósώsώώ ngá s' okándá", 'Range-moi, l\'habit: "là".'),
    ("train", f"martial_{TAIL}_7", "Wó adí sωndω", "C'est un  cercopithèque"),
    ("dev", f"abiayi_{TAIL}_102", "Wa a\u0301mi obia", "Il a flanqué"),
]


def write_audio(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(160, dtype=np.float32), 16000, format="WAV")


@pytest.fixture
def public(tmp_path):
    """The repository's layout, with the derived files that lie beside the originals."""
    root = tmp_path / "repository"
    for split, utt, transcript, translation in CORPUS:
        stem = root / "full_corpus_newsplit" / split / utt
        write_audio(stem.with_name(f"{utt}.wav"))
        for suffix, text in ((".mb", transcript), (".fr", translation)):
            stem.with_name(utt + suffix).write_text(text + "\n", encoding="utf-8")
            stem.with_name(f"{utt}{suffix}.cleaned").write_text("derived\n")
        stem.with_name(f"{utt}.fr.cleaned.noPunct").write_text("derived\n")
        stem.with_name(f"{utt}.stm").write_text("derived\n")
    return root


@pytest.fixture
def tsv(tmp_path):
    root = tmp_path / "tsv"
    root.mkdir()
    for name in ("train", "dev"):
        lines = ["utt_id\tduration_s\ttranscript\ttranslation"]
        for split, utt, transcript, translation in CORPUS:
            if split == name:
                lines.append(f"{utt}\t0.01\t{transcript}\t{translation}")
                write_audio(root / split / f"{utt}.opus")
        (root / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def run(corpus: Path, out: Path, *extra: str) -> dict[str, dict[str, dict[str, str]]]:
    mboshi.main(["--corpus_dir", str(corpus), "--out", str(out), "--n_valid", "1", *extra])
    return {
        folder.name: {p.name: read_table(p) for p in folder.iterdir() if p.name != FAULTS_NAME}
        for folder in out.iterdir()
    }


def faults(corpus: Path, tmp_path: Path) -> list[tuple[str, str]]:
    """Utterances and reasons, of every set."""
    run(corpus, tmp_path / "faulty")
    return sorted(
        (fault.utt, fault.reason)
        for folder in (tmp_path / "faulty").iterdir()
        for fault in read_faults(folder)
    )


def test_public_layout(public, tmp_path):
    sets = run(public, tmp_path / "data")
    assert sorted(sets) == ["dev", "train", "valid"]
    utt = f"abiayi_{TAIL}_102"
    audio = public / "full_corpus_newsplit" / "dev" / f"{utt}.wav"
    assert sets["dev"] == {
        "wav.scp": {utt: str(audio.resolve())},
        "text": {utt: "wa ámi obia"},
        "text.st_fra": {utt: "il a flanqué"},
        "utt2lang": {utt: "mdw"},
        "utt2spk": {utt: "abiayi"},
    }
    assert len(sets["train"]["text"]) + len(sets["valid"]["text"]) == 4
    assert run(public / "full_corpus_newsplit", tmp_path / "again") == sets


def test_both_layouts_give_the_same_texts_and_split(public, tsv, tmp_path):
    a, b = run(public, tmp_path / "a"), run(tsv, tmp_path / "b")
    for name in ("train", "valid", "dev"):
        for table in ("text", "text.st_fra", "utt2lang", "utt2spk"):
            assert a[name][table] == b[name][table]
    assert all(path.endswith(".opus") for path in b["train"]["wav.scp"].values())


@pytest.mark.parametrize(
    ("case", "transcript", "translation"),
    [
        ("lower_nopunct", "mósώsώώ ngá s' okándá", "range-moi l'habit là"),
        ("raw", "Mósώsώώ ngá s' okándá", 'Range-moi, l\'habit: "là".'),
    ],
)
def test_text_case(tsv, tmp_path, capsys, case, transcript, translation):
    sets = run(tsv, tmp_path / "data", "--text_case", case)
    everything = {**sets["train"]["text"], **sets["valid"]["text"]}
    french = {**sets["train"]["text.st_fra"], **sets["valid"]["text.st_fra"]}
    assert everything[f"abiayi_{TAIL}_10"] == transcript
    assert french[f"abiayi_{TAIL}_10"] == translation
    assert f"--text_case {case}" in capsys.readouterr().out


def test_validation_set_is_fixed_and_holds_no_training_sentence():
    utterances = [
        corpus.Utterance(f"s{i % 3}_{i:04}", "x.wav", "mdw", f"w{i // 2} w{i % 7 // 7}")
        for i in range(600)
    ]
    train, valid = corpus.split_valid(utterances, n_valid=51, seed=1)
    assert 51 <= len(valid) <= 52 and len(train) + len(valid) == 600
    assert not {u.transcript for u in train} & {u.transcript for u in valid}
    assert corpus.split_valid(utterances[::-1], n_valid=51, seed=1) == (train, valid)
    assert corpus.split_valid(utterances, n_valid=51, seed=2)[1] != valid
    with pytest.raises(DataError, match="--n_valid 600: expected 1 to 599"):
        corpus.split_valid(utterances, n_valid=600, seed=1)


def test_missing_translation_is_a_fault_unless_allowed(public, tmp_path):
    utt = f"abiayi_{TAIL}_102"
    (public / "full_corpus_newsplit" / "dev" / f"{utt}.fr").write_text(" \n")
    assert faults(public, tmp_path) == [(utt, "empty translation (st_fra); kept for asr only")]
    sets = run(public, tmp_path / "data", "--allow_missing_translation", "true")
    assert list(sets["dev"]["text"]) == [utt] and "text.st_fra" not in sets["dev"]
    assert read_faults(tmp_path / "data" / "dev") == []


def test_all_problems_are_collected(public, tmp_path):
    train = public / "full_corpus_newsplit" / "train"
    (train / f"abiayi_{TAIL}_10.mb").unlink()
    (train / f"martial_{TAIL}_7.wav").unlink()
    (train / f"abiayi_{TAIL}_1.wav").write_bytes(b"")
    write_audio(train / f"abiayi_{TAIL}_11.wav")
    write_audio(train / f"abiayi_{TAIL}_12.wav")
    for number in (11, 12):
        (train / f"abiayi_{TAIL}_{number}.mb").write_text(f"wa {number}\n")
        (train / f"abiayi_{TAIL}_{number}.fr").write_text("il\n")
    assert faults(public, tmp_path) == [
        (f"abiayi_{TAIL}_1", "empty audio file"),
        (f"abiayi_{TAIL}_10", "empty transcript"),
        (f"martial_{TAIL}_7", "no such audio file"),
    ]


@pytest.mark.parametrize(
    ("line", "utt", "reason"),
    [
        ("a b_1\t1\tx\ty", "a b_1", "id 'a b_1': expected <speaker>_<name>"),
        ("nospeaker\t1\tx\ty", "nospeaker", "id 'nospeaker': expected <speaker>_<name>"),
        (f"abiayi_{TAIL}_102\t1\tx\ty", f"abiayi_{TAIL}_102", "its id occurs twice"),
        ("s_1\t1\tx", "s_1", "3 columns; expected 4"),
        ("s_1\t1\tx\u0378\ty", "s_1", "transcript: U+0378"),
    ],
)
def test_broken_lines_are_named(tsv, tmp_path, line, utt, reason):
    write_audio(tsv / "dev" / "s_1.wav")
    with (tsv / "dev.tsv").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    ((named, found),) = faults(tsv, tmp_path)
    assert named == utt and found.startswith(reason)


def test_wrong_header_is_named(tsv, tmp_path):
    (tsv / "dev.tsv").write_text("utt\ttext\n")
    with pytest.raises(DataError, match=r"dev.tsv:1: columns \['utt', 'text'\]; expected"):
        run(tsv, tmp_path / "data")


def test_text_that_is_not_utf8_is_named(public, tmp_path):
    path = public / "full_corpus_newsplit" / "train" / f"abiayi_{TAIL}_10.fr"
    path.write_bytes("flanqué".encode("latin-1"))
    assert faults(public, tmp_path) == [(f"abiayi_{TAIL}_10", "not UTF-8 at byte 6")]


def test_another_directory_says_what_is_accepted(tmp_path):
    with pytest.raises(DataError, match="besacier/mboshi-french-parallel-corpus"):
        run(tmp_path, tmp_path / "data")
