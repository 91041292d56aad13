"""Kaldi-style tables and data directories."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_smoe.datadir import (
    DataError,
    publish_dir,
    read_table,
    require_same_keys,
    write_table,
    write_text,
)

UTTS = st.text(st.characters(codec="utf-8", exclude_categories=["Z", "C"]), min_size=1, max_size=8)
VALUES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]), max_size=20)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(UTTS, VALUES.map(lambda v: " ".join(v.split())), max_size=6))
def test_a_table_survives_writing_and_reading(
    tmp_path_factory: pytest.TempPathFactory, table: dict[str, str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "table"
    write_table(path, table)
    read = read_table(path, allow_empty=True)
    assert read == table
    assert list(read) == sorted(table)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("u1 a\nu1 b\n", r"text:2: utterance 'u1' occurs twice"),
        ("u2 a\nu1 b\n", r"text:2: utterance 'u1' is not sorted: it follows 'u2'"),
        ("u1 a\nu2\n", r"text:2: utterance 'u2' has an empty value"),
        ("u1 a\nu2  \n", r"text:2: utterance 'u2' has an empty value"),
        ("u1 a\n\nu2 b\n", r"text:2: empty line; every line is '<utterance> <value>'"),
        ("u1 a\n \n", r"text:2: empty line"),
    ],
)
def test_a_broken_table_raises(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "text").write_text(text)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "text")


def test_empty_values_are_read_where_allowed(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("u1\nu2 hola casa\nu3 \n")
    expected = {"u1": "", "u2": "hola casa", "u3": ""}
    assert read_table(tmp_path / "text", allow_empty=True) == expected


def test_tabs_line_ends_and_a_missing_last_newline_are_read(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes("u1\thola casa\r\nu2 perro\r\nü3 grande".encode())
    assert read_table(tmp_path / "text") == {"u1": "hola casa", "u2": "perro", "ü3": "grande"}


def test_a_missing_file_and_wrong_bytes_raise(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"utt2bw: no such file; run the stage that writes it"):
        read_table(tmp_path / "utt2bw")
    (tmp_path / "text").write_bytes(b"u1 \xff\n")
    with pytest.raises(DataError, match=r"text: not UTF-8 at byte 3"):
        read_table(tmp_path / "text")


def test_an_empty_file_is_an_empty_table(tmp_path: Path) -> None:
    (tmp_path / "text").touch()
    assert read_table(tmp_path / "text") == {}


def test_a_file_appears_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(tmp_path / "text", "old\n")

    def killed(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        write_text(tmp_path / "text", "new\n")
    assert (tmp_path / "text").read_text() == "old\n"
    monkeypatch.undo()
    write_text(tmp_path / "text", "new\n")
    assert [p.name for p in tmp_path.iterdir()] == ["text"]
    assert (tmp_path / "text").read_text() == "new\n"


def test_write_table_makes_the_directory(tmp_path: Path) -> None:
    write_table(tmp_path / "a" / "b" / "utt2n", {"u2": 7, "u1": 16000})
    assert (tmp_path / "a" / "b" / "utt2n").read_text() == "u1 16000\nu2 7\n"


def test_a_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "data"
    with publish_dir(target) as partial:
        (partial / "text").write_text("one")
        assert not target.exists()
    assert (target / "text").read_text() == "one"

    with pytest.raises(RuntimeError, match="half-way"), publish_dir(target) as partial:
        (partial / "text").write_text("two")
        raise RuntimeError("half-way")
    assert (target / "text").read_text() == "one"

    with publish_dir(target) as partial:
        assert list(partial.iterdir()) == []  # nothing of the broken run
        (partial / "other").write_text("three")
    assert [p.name for p in target.iterdir()] == ["other"]
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_a_kill_between_the_two_renames_is_repaired_by_a_rerun(tmp_path: Path) -> None:
    target = tmp_path / "data"
    (tmp_path / "data.old").mkdir()
    (tmp_path / "data.old" / "text").write_text("one")
    (tmp_path / "data.partial").mkdir()
    with publish_dir(target) as partial:
        (partial / "text").write_text("two")
    assert (target / "text").read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_tables_must_cover_the_same_utterances() -> None:
    require_same_keys({"a": 1}, {"a": 2}, names=("wav.scp", "text"))
    with pytest.raises(DataError, match=r"text has no line for 1 utterance\(s\) of wav.scp: b"):
        require_same_keys({"a": 1, "b": 1}, {"a": 2}, names=("wav.scp", "text"))
    with pytest.raises(DataError, match=r"wav.scp has no line for 1 utterance\(s\) of text: c"):
        require_same_keys({"a": 1}, {"a": 2, "c": 2}, names=("wav.scp", "text"))
    many = {f"u{i}": 0 for i in range(9)}
    with pytest.raises(DataError, match=r"9 utterance\(s\) of a: u0, u1, u2, u3, u4, \.\.\."):
        require_same_keys(many, {}, names=("a", "b"))
