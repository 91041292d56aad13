"""Manifests: rows of one utterance, ids, what is left out, and memory that does not grow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from corpus_layouts import faults_of, manifest, noise, prepare, text

from espnet_smoe.datadir import DataError

import prepare_manifest as program  # isort: skip
from spill import Sorter  # isort: skip

COLUMNS = "audio offset duration src_lang transcript tgt_lang translation bandwidth speaker id"
TRAIN = ("--sets", "train")


def write(root: Path, *rows: str, header: str = COLUMNS) -> Path:
    """train.tsv of rows whose columns are separated by `` | ``; a.wav lies beside it."""
    noise(root / "a.wav")
    lines = ["\t".join(part.strip() for part in row.split("|")) for row in rows]
    text(root / "train.tsv", header.replace(" ", "\t"), *lines)
    return root


def run(root: Path, out: str = "data") -> dict[str, dict[str, str]]:
    return prepare(program.main, "manifest", root, root / out, *TRAIN)["train"]


def reasons(root: Path, out: str = "data") -> list[str]:
    return [reason for _, reason in faults_of(root / out / "train")]


def test_rows_of_one_utterance_are_one(tmp_path: Path) -> None:
    sets = prepare(program.main, manifest(tmp_path), tmp_path, tmp_path / "data")
    assert list(sets) and {len(tables["text"]) for tables in sets.values()} == {4}
    first = next(iter(sets["valid"]["text"]))  # of a JSONL; the others are TSVs
    assert first.startswith("valid-00000000-")
    assert {table: rows[first] for table, rows in sets["valid"].items()} == {
        "wav.scp": f"{tmp_path}/audio/valid.wav#t=0,0.9",
        "text": "mañana tren perro",
        "text.st_eng": "en mañana tren perro",
        "text.st_fra": "fr mañana tren perro",
        "utt2lang": "spa",
        "utt2spk": "valid-spk0",
        "utt2bw": "wb",
    }


def test_a_target_again_is_a_further_reference(tmp_path: Path) -> None:
    write(
        tmp_path,
        "a.wav|||spa|hola|eng|hello|||u1",
        "a.wav|||spa|hola|eng|hi|||u1",
        "a.wav|||spa|hola|deu|hallo|||u1",
        "a.wav|||spa|sola||||| u2",
    )
    tables = run(tmp_path)
    assert tables["text"] == {"u1": "hola", "u2": "sola"}
    assert tables["text.st_eng"] == {"u1": "hello"}
    assert tables["text.st_eng.ref2"] == {"u1": "hi"}
    assert tables["text.st_deu"] == {"u1": "hallo"}
    assert tables["wav.scp"] == dict.fromkeys(("u1", "u2"), f"{tmp_path}/a.wav")
    assert tables["utt2spk"] == {"u1": "u1", "u2": "u2"}
    assert reasons(tmp_path) == []


def test_audio_may_be_a_channel_or_a_command(tmp_path: Path) -> None:
    write(
        tmp_path,
        "a.wav#channel=2|0.1|0.5|es|uno",
        "COMMAND|0.1|0.5|es|dos",
        "/abs/../abs/a.wav#t=1,2|||es|tres",
        header="audio offset duration src_lang transcript",
    )
    path = tmp_path / "train.tsv"
    path.write_text(path.read_text().replace("COMMAND", "cat /x/b c.wav |"))
    tables = run(tmp_path)
    assert sorted(tables["wav.scp"].values()) == [
        f"{tmp_path}/a.wav#t=0.1,0.6&channel=2",
        "cat /x/b c.wav |#t=0.1,0.6",
    ]
    assert [utt.rpartition("-")[0] for utt in tables["wav.scp"]] == ["a-00000100", "c-00000100"]
    assert reasons(tmp_path) == ["no such audio file"]


def test_made_ids_depend_on_the_row_alone(tmp_path: Path) -> None:
    rows = [f"a.wav|0.{n}|0.05|es|palabra {n}|||||" for n in range(5)]
    whole = run(write(tmp_path / "1", *rows))["text"]
    part = run(write(tmp_path / "2", *reversed(rows[1:3])))["text"]
    assert part.items() < whole.items()
    assert list(whole.values()) == [f"palabra {n}" for n in range(5)]  # in the recording's order
    odd = write(tmp_path / "3", "ñ o/á.wav|0|0.5|es|uno|||||", "a.wav|0|0.5|es|dos|||||")
    noise(odd / "ñ o" / "á.wav")
    assert len(run(odd)["text"]) == 2


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a.wav|||es||en|hi|||u", "empty transcript"),
        ("|||es|hola|en|hi|||u", "empty audio"),
        ("a.wav||| |hola||||", "9 columns; expected 10, separated by tabs"),
        ("a.wav|||klingon|hola|||||u", "language 'klingon' is unknown; accepted is ISO 639-1"),
        ("a.wav|||es|hola|en||||u", "tgt_lang 'en' with an empty translation"),
        ("a.wav|||es|hola||hi|||u", "a translation with an empty tgt_lang"),
        ("a.wav|||es|hola|en|hi|fm||u", "bandwidth 'fm'; expected nb, wb or nothing"),
        ("a.wav|||es|hola||||a b|u", "speaker 'a b'; expected no white space"),
        ("a.wav|x|1|es|hola|||||u", "offset 'x'; expected seconds"),
        ("a.wav|1|-1|es|hola|||||u", "starts at 1 s and ends at 0 s"),
        ("a.wav|nan|1|es|hola|||||u", "starts at nan s"),
        ("a.wav|1||es|hola|||||u", "offset 1 without a duration"),
        ("a.wav#t=0,1|0|1|es|hola|||||u", "audio 'a.wav#t=0,1' names a part; so do offset"),
        ("a.wav#t=2,1|||es|hola|||||u", "'a.wav#t=2,1': the part ends at 1 s"),
        ("b.wav|||es|hola|||||u", "no such audio file"),
        ("a.wav|||es|hola|||||a/b", "id 'a/b': expected letters, digits and . _"),
        (f"a.wav|||es|hola|||||{'é' * 101}", "id 'ééé"),
        ("a.wav|||es|hola\u0378|||||u", "transcript: U+0378"),
        ("a.wav|||es|otra|fr|x|||good", "another src_lang, transcript, speaker or bandwidth than"),
        ("a.wav|||es|hola|en|hello|||good", "repeats "),
        ("a.wav|0|0.1|es|hola|||||good", "its id occurs twice"),
    ],
)
def test_what_cannot_be_used_is_a_fault(tmp_path: Path, row: str, reason: str) -> None:
    tables = run(write(tmp_path, "a.wav|||es|hola|en|hello|||good", row))
    assert list(tables["text"]) == ["good"]
    (found,) = reasons(tmp_path)
    assert found.startswith(reason)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{nope", "not JSON: "),
        (b"[1]", "a JSON list; expected an object"),
        (b'{"audio": ["a"]}', "audio is ['a']; expected text or a number"),
        (b'{"audio": "\xff"}', "not UTF-8 at byte 11"),
    ],
)
def test_broken_json_is_a_fault(tmp_path: Path, line: bytes, reason: str) -> None:
    noise(tmp_path / "a.wav")
    good = {"audio": "a.wav", "offset": 0, "duration": 0.5, "src_lang": "es", "transcript": "sí"}
    data = [json.dumps(good).encode(), b"", line]
    (tmp_path / "train.jsonl").write_bytes(b"\n".join(data) + b"\n")
    assert list(run(tmp_path)["wav.scp"].values()) == [f"{tmp_path}/a.wav#t=0,0.5"]
    (found,) = reasons(tmp_path)
    assert found.startswith(reason)


def test_a_bandwidth_that_some_rows_state_is_kept_for_them(tmp_path: Path, capsys) -> None:
    rows = ("a.wav|||es|hola|||nb||u1", "a.wav|||es|sola|||||u2")
    assert run(write(tmp_path, *rows))["utt2bw"] == {"u1": "nb"}
    assert "is stated for 1 only: stage 2 measures the others" in capsys.readouterr().out


def test_a_text_of_punctuation_is_left_out_and_counted(tmp_path: Path, capsys) -> None:
    write(
        tmp_path,
        "a.wav|||es|¿Sí?|en|...|||u1",
        "a.wav|||es|...|en|yes|||u2",
    )
    lower = ("--text_case", "lower_nopunct")
    tables = prepare(program.main, "manifest", tmp_path, tmp_path / "data", *TRAIN, *lower)["train"]
    assert tables["text"] == {"u1": "sí"} and "text.st_eng" not in tables
    assert "2 texts are punctuation only: left out" in capsys.readouterr().out
    assert reasons(tmp_path) == []
    assert run(tmp_path, "raw")["text"] == {"u1": "¿Sí?", "u2": "..."}


def test_a_wrong_manifest_is_named(tmp_path: Path, capsys) -> None:
    with pytest.raises(DataError, match=r"it has neither train.tsv and train.jsonl; expected a fo"):
        run(tmp_path)
    write(tmp_path, "a.wav|hola", header="audio transcript")
    with pytest.raises(DataError, match=r"train.tsv:1: columns .* lack \['src_lang'\]; expected"):
        run(tmp_path)
    write(tmp_path, "a.wav|es|hola|x", header="audio src_lang transcript note")
    assert len(run(tmp_path)["text"]) == 1
    assert "columns not read: note" in capsys.readouterr().out
    (tmp_path / "train.jsonl").touch()
    with pytest.raises(DataError, match="it has both train.tsv and train.jsonl"):
        run(tmp_path)
    write(tmp_path / "empty")
    with pytest.raises(DataError, match="train: no utterance is left"):
        run(tmp_path / "empty")


def test_rows_are_sorted_through_files(tmp_path: Path) -> None:
    """A tiny chunk: every few records go to disk; equal keys keep their order."""
    sorter = Sorter(tmp_path, chunk=1000)
    for n in range(500):
        sorter.add(f"k{n * 7 % 100:03}", str(n))
    assert len(list(tmp_path.glob(".sort*/*"))) > 50
    pairs = list(sorter)
    assert pairs == sorted(((f"k{n * 7 % 100:03}", str(n)) for n in range(500)), key=lambda p: p[0])
    assert not list(tmp_path.iterdir())
