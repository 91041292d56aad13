"""Several corpora in one: ids, tables that some lack, faults; and the codes of languages."""

from __future__ import annotations

from pathlib import Path

import pytest
import stage_data  # noqa: F401 - puts the recipe's local/ on the path

from espnet_smoe.datadir import DataError, read_table, write_table
from espnet_smoe.faults import Fault, read_faults, write_faults

import combine_corpora  # isort: skip
from languages import ISO_639_3, language, pair, translation_task  # isort: skip


def make(parts: Path, corpus: str, name: str, utts: list[str], *, task: str, bw: bool) -> None:
    folder = parts / corpus / name
    write_table(folder / "wav.scp", {utt: f"{corpus}/{utt}.wav" for utt in utts})
    write_table(folder / "text", {utt: f"{corpus} {utt}" for utt in utts})
    write_table(folder / f"text.{task}", {utts[0]: "hello"})
    write_table(folder / "utt2lang", dict.fromkeys(utts, "spa"))
    if bw:
        write_table(folder / "utt2bw", dict.fromkeys(utts, "nb"))


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    folder = tmp_path / "corpora"
    for name in ("train", "valid", "test"):
        make(folder, "x", name, ["a", "b"], task="st_eng", bw=True)
        make(folder, "y", name, ["b", "c"], task="st_deu", bw=False)
    return folder


def combine(parts: Path) -> None:
    options = ["--parts", str(parts), "--corpora", "x y", "--out", str(parts.parent / "all")]
    combine_corpora.main(options)


def test_only_ids_in_common_get_their_corpus(parts: Path, tmp_path: Path) -> None:
    write_faults(parts / "y" / "train", [Fault("b", "f", "bad"), Fault("d", "f", "gone")])
    combine(parts)
    assert sorted(p.name for p in (tmp_path / "all").iterdir()) == [
        *("train", "valid", "x_test", "y_test")
    ]
    train = tmp_path / "all" / "train"
    assert read_table(train / "wav.scp") == {
        "a": "x/a.wav",
        "c": "y/c.wav",
        "x_b": "x/b.wav",
        "y_b": "y/b.wav",
    }
    assert read_table(train / "text.st_eng") == {"a": "hello"}
    assert read_table(train / "text.st_deu") == {"y_b": "hello"}
    assert read_table(train / "utt2bw") == {"a": "nb", "x_b": "nb"}  # the others are measured
    assert read_faults(train) == [Fault("y_b", "f", "bad"), Fault("d", "f", "gone")]
    assert list(read_table(tmp_path / "all" / "x_test" / "utt2bw")) == ["a", "b"]


def test_a_bandwidth_that_all_state_is_kept(parts: Path, tmp_path: Path) -> None:
    write_table(parts / "y" / "train" / "utt2bw", {"b": "wb", "c": "wb"})
    combine(parts)
    labels = read_table(tmp_path / "all" / "train" / "utt2bw")
    assert labels == {"a": "nb", "c": "wb", "x_b": "nb", "y_b": "wb"}


def test_a_new_id_that_is_taken_is_named(parts: Path) -> None:
    make(parts, "y", "train", ["b", "x_b"], task="st_deu", bw=False)
    with pytest.raises(DataError, match="utterance 'x_b': its new id 'x_b' is taken; rename it"):
        combine(parts)


def test_a_corpus_that_is_not_prepared_is_named(parts: Path) -> None:
    (parts / "y" / "valid" / "wav.scp").unlink()
    with pytest.raises(DataError, match="no data in .*y/valid; run stage 1 from its beginning"):
        combine(parts)


@pytest.mark.parametrize(
    ("code", "name"),
    [("es", "spa"), ("sv-SE", "swe"), ("zh_CN", "zho"), ("ger", "deu"), ("mdw", "mdw")],
)
def test_languages_are_iso_639_3(code: str, name: str) -> None:
    assert language(code) == name
    assert translation_task(code) == f"st_{name}"


@pytest.mark.parametrize("code", ["", "e", "xx", "español", "engl"])
def test_an_unknown_language_is_named(code: str) -> None:
    with pytest.raises(DataError, match=f"language {code!r} is unknown"):
        language(code)


def test_the_table_of_languages() -> None:
    assert len(ISO_639_3) == 183
    assert all(len(two) == 2 and len(three) == 3 for two, three in ISO_639_3.items())
    assert len(set(ISO_639_3.values())) == len(ISO_639_3)


def test_a_pair_is_read_from_the_name() -> None:
    assert pair("europarl_st_es_en", "europarl_st") == ("es", ["en"])
    assert pair("covost2_en_de_zh-CN", "covost2") == ("en", ["de", "zh-CN"])
