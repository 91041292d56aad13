"""journal.py: what was written whole is there again, whatever the kill left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espnet_smoe.journal import Journal

ENTRIES = [{"utt": "a", "text": "ñandú\nb"}, {"utt": "\udcff"}, {"utt": "c", "n": [1, None]}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("journal")


@given(cut=st.integers(0, 200), tail=st.sampled_from([b"", b"\0\0\0", b"[1]\n{}\n", b"{]\n"]))
def test_after_a_kill_at_any_byte_the_whole_lines_are_there(
    folder: Path, cut: int, tail: bytes
) -> None:
    path = folder / "j"
    path.unlink(missing_ok=True)
    with Journal(path) as journal:
        for entry in ENTRIES:
            journal.add(entry)
    data = path.read_bytes()
    path.write_bytes(data[:cut] + tail)
    whole = data[:cut].count(b"\n")
    with Journal(path) as journal:
        assert journal.entries == ENTRIES[:whole]
        journal.add({"utt": "d"})
        journal.close()
        journal.add({"utt": "e"})
    assert Journal(path).entries == [*ENTRIES[:whole], {"utt": "d"}, {"utt": "e"}]


def test_it_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "j"
    with Journal(path) as journal:
        assert journal.entries == []
        assert not path.exists()
        journal.add({"old": 1})
        journal.start({"head": 2})
        journal.add({"new": 3})
    assert Journal(path).entries == [{"head": 2}, {"new": 3}]
