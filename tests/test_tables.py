"""Tables read, joined, ordered and written a row at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_smoe.datadir import DataError, iter_table, read_table, write_table
from espnet_smoe.faults import Fault
from espnet_smoe.tables import Broken, TableWriter, join, reordered, rows, spill_sort

IDS = st.text(st.sampled_from("ab-_0Zé"), min_size=1, max_size=5)
TABLES = st.lists(st.dictionaries(IDS, st.sampled_from(["x", "y z"]), max_size=8), max_size=4)


@settings(max_examples=200, deadline=None)
@given(TABLES)
def test_a_streaming_join_equals_a_join_of_dicts(tables: list[dict[str, str]]) -> None:
    found = list(join(*(sorted(table.items()) for table in tables)))
    expected = sorted({utt for table in tables for utt in table})
    assert found == [(utt, tuple(table.get(utt) for table in tables)) for utt in expected]


@settings(max_examples=200, deadline=None)
@given(st.sets(IDS, max_size=12), st.lists(st.sampled_from(["_asr", "_st", "_a_b"]), unique=True))
def test_examples_come_in_their_own_order_and_few_wait(utts: set[str], tasks: list[str]) -> None:
    waiting = 0

    def groups() -> object:
        nonlocal waiting
        for utt in sorted(utts):
            waiting += len(tasks)
            yield utt, [(utt + task, utt) for task in tasks]
            beginnings = {utt[:n] for n in range(1, len(utt) + 1)} & utts
            assert waiting <= len(beginnings) * len(tasks)

    names = []
    for name, utt in reordered(groups()):
        waiting -= 1
        assert name.startswith(utt)
        names.append(name)
    assert names == sorted(utt + task for utt in utts for task in tasks)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=20), st.integers(1, 7))
def test_a_sort_with_spills_is_a_sort(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[int], run_rows: int
) -> None:
    items = [(number, place) for place, number in enumerate(numbers)]
    directory = tmp_path_factory.getbasetemp()
    found = spill_sort(items, directory=directory, key=lambda item: item[0], run_rows=run_rows)
    assert list(found) == sorted(items)  # stable


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(IDS, st.sampled_from(["x", "y z"]), max_size=8))
def test_a_sound_table_reads_alike_line_by_line_and_whole(
    tmp_path_factory: pytest.TempPathFactory, table: dict[str, str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "sound"
    write_table(path, table)
    noted: list[Fault] = []
    assert list(rows(path, noted.append)) == list(iter_table(path)) == sorted(table.items())
    assert read_table(path) == table
    assert noted == []


def test_broken_lines_become_values_of_their_utterances(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"u1 a\nu2\n\nu3 b\xff\nu4 c\nu4 d\nu5 e\r\n")
    noted: list[Fault] = []
    assert list(rows(path, noted.append)) == [
        ("u1", "a"),
        ("u2", Broken("line 2 has an empty value")),
        ("u3", Broken("line 4 is not UTF-8 at its byte 4")),
        ("u4", Broken("occurs twice, in lines 5 and 6")),
        ("u5", "e"),
    ]
    assert noted == [Fault("", str(path), "line 3 is empty")]


def test_a_table_that_is_not_sorted_is_one_fault_and_read_sorted(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("u3 c\nu1 a\nu2 b\nu1 d\n", encoding="utf-8")
    noted: list[Fault] = []
    assert list(rows(path, noted.append)) == [
        ("u1", Broken("occurs twice, in lines 2 and 4")),
        ("u2", "b"),
        ("u3", "c"),
    ]
    assert [str(fault) for fault in noted] == [
        f"{path}: line 2: utterance 'u1' follows 'u3'; the ids are not sorted (sort the file by id)"
    ]


def test_a_missing_table_raises(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"utt2bw: no such file; run the stage that writes it"):
        next(rows(tmp_path / "utt2bw", print))


def test_a_written_table_is_sorted_and_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "utt2n"
    with TableWriter(path) as table:
        table.write("u1", 7)
        assert not path.exists()
        table.write("u2", "")
    assert path.read_text(encoding="utf-8") == "u1 7\nu2\n"
    assert table.count == 2
    with (
        pytest.raises(DataError, match=r"utt2n: utterance 'u1' is written after 'u2'"),
        TableWriter(path) as table,
    ):
        table.write("u2", 1)
        table.write("u1", 1)
    assert path.read_text(encoding="utf-8") == "u1 7\nu2\n"
    assert [p.name for p in path.parent.iterdir()] == ["utt2n"]
