"""Several target languages at once: each is a task of its own from stage 4 to the decoder."""

from __future__ import annotations

from pathlib import Path

import pytest
from stage_data import TEST_UTTS, UTTS, make_plan, make_raw, make_s2t

from espnet_smoe.batching import PLAN_NAME, read_plan
from espnet_smoe.datadir import read_table, write_table

import stock_decode  # isort: skip  (stage_data puts the recipe's local/ on the path)
import train_bbpe  # isort: skip

GERMAN = UTTS[:2]  # the utterances with a German translation; all have an English one


@pytest.fixture(autouse=True)
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The output of stages 4 and 6 in a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    make_raw(tmp_path)
    for name in ("train", "valid", "test"):
        german = TEST_UTTS[:2] if name == "test" else GERMAN
        write_table(f"raw/{name}/text.st_deu", {utt: f"hallo {utt}" for utt in german})
    assert make_s2t() == 0
    assert make_plan() == 0


def test_an_utterance_has_an_example_per_language_that_it_is_translated_to() -> None:
    text = read_table("s2t/train/text")
    examples = [(utt, task) for utt in UTTS for task in ("asr", "st_eng")]
    examples += [(utt, "st_deu") for utt in GERMAN]
    assert list(text) == sorted(f"{utt}_{task}" for utt, task in examples)
    assert text["u0_st_deu"] == "<spa><st_deu><notimestamps> hallo u0"
    assert text["u0_st_eng"] == "<spa><st_eng><notimestamps> hello u0"
    assert read_table("s2t/train/text.ctc")["u0_st_deu"] == "hola u0"
    assert read_table("s2t/test/text.st_deu") == {u: f"hallo {u}" for u in TEST_UTTS[:2]}


def test_no_batch_mixes_target_languages() -> None:
    batches = read_plan(Path("s2t/train") / PLAN_NAME)
    assert {batch.task for batch in batches} == {"asr", "st_eng", "st_deu"}
    for batch in batches:
        assert all(utt.endswith(f"_{batch.task}") for utt in batch.utts)


def test_the_token_list_holds_every_language_and_every_task() -> None:
    path = Path("s2t/train/text")
    found = train_bbpe.read_prompts(read_table(path), path)
    assert (found.languages, found.tasks) == ({"<spa>"}, {"<asr>", "<st_eng>", "<st_deu>"})


def test_each_language_is_decoded_with_its_own_prompt() -> None:
    stretches = stock_decode.plan(Path("s2t"), ["test"], [], nj=1)
    assert [(s.task, s.language, list(s.utts)) for s in stretches] == [
        ("asr", "spa", TEST_UTTS),
        ("st_deu", "spa", TEST_UTTS),
        ("st_eng", "spa", TEST_UTTS),
    ]
