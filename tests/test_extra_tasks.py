"""Labels of an utterance as tasks of their own: stage 4's --extra_tasks, and what follows it."""

from __future__ import annotations

from pathlib import Path

import pytest
from stage_data import TEST_UTTS, UTTS, make_plan, make_raw, make_s2t

from espnet_smoe.batching import PLAN_NAME, read_plan
from espnet_smoe.datadir import read_table, write_table

import decode_dir  # isort: skip  (stage_data puts the recipe's local/ on the path)
import score  # isort: skip
import train_bbpe  # isort: skip

VOICES = dict(zip([*UTTS, *TEST_UTTS], ("male", "female") * 4, strict=True))


@pytest.fixture(autouse=True)
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The output of stage 3 in a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    make_raw(tmp_path)
    for name in ("train", "valid", "test"):
        utts = TEST_UTTS if name == "test" else UTTS
        write_table(f"raw/{name}/utt2voice", {utt: VOICES[utt] for utt in utts})


def test_a_label_becomes_an_example_and_a_reference() -> None:
    assert make_s2t("--extra_tasks", "voice bandwidth") == 0
    text = read_table("s2t/train/text")
    tasks = ("asr", "st_eng", "voice", "bandwidth")
    assert list(text) == sorted(f"{utt}_{task}" for utt in UTTS for task in tasks)
    assert text["u1_voice"] == "<spa><voice><notimestamps> female"
    assert text["u1_bandwidth"] == "<spa><bandwidth><notimestamps> nb"
    assert read_table("s2t/train/text.ctc")["u1_voice"] == "hola u1"
    assert read_table("s2t/test/text.voice") == {utt: VOICES[utt] for utt in TEST_UTTS}
    assert read_table("s2t/test/text.bandwidth") == read_table("s2t/test/utt2bw")


def test_a_label_is_planned_decoded_and_scored_like_any_task() -> None:
    assert make_s2t("--extra_tasks", "voice") == 0
    assert make_plan() == 0
    batches = read_plan(Path("s2t/train") / PLAN_NAME)
    assert {batch.task for batch in batches} == {"asr", "st_eng", "voice"}
    path = Path("s2t/train/text")
    found = train_bbpe.read_prompts(read_table(path), path)
    assert found.tasks == {"<asr>", "<st_eng>", "<voice>"}
    (test,) = decode_dir.read_sets(Path("s2t"), ["test"], [])
    assert test.tasks == ["asr", "st_eng", "voice"]
    for task in test.tasks:
        write_table(f"decoded/test/{task}/text", dict.fromkeys(TEST_UTTS, "male"))
    options = ["--decode_dir", "decoded", "--raw", "s2t", "--test_sets", "test", "--expdir", "."]
    score.main([*options, "--commit", "none"])
    rows = Path("decoded/RESULTS.md").read_text(encoding="utf-8")
    assert "| test | voice | all | accuracy 50.00 % " in rows


def test_without_the_option_labels_are_tables_only() -> None:
    assert make_s2t() == 0
    assert set(read_table("s2t/train/utt2task").values()) == {"asr", "st_eng"}
    assert not Path("s2t/test/text.voice").exists()
    assert read_table("s2t/test/utt2voice") == {utt: VOICES[utt] for utt in TEST_UTTS}


def test_a_rerun_without_the_option_leaves_no_example_behind() -> None:
    assert make_s2t("--extra_tasks", "voice") == 0
    assert make_s2t() == 0
    assert set(read_table("s2t/valid/utt2task").values()) == {"asr", "st_eng"}
    assert not Path("s2t/test/text.voice").exists()


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("accent", r"raw/train/utt2accent: no such file (known: utt2bw, utt2lang, utt2num_samples"),
        ("st_eng", "raw/train/utt2st_eng: no such file"),
    ],
)
def test_a_task_without_its_table_is_named(
    capsys: pytest.CaptureFixture[str], task: str, message: str
) -> None:
    assert make_s2t("--extra_tasks", task) == 1
    assert f"--extra_tasks {task}: {message}" in capsys.readouterr().err


def test_a_task_that_has_texts_already_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    write_table("raw/train/text.voice", dict.fromkeys(UTTS, "male"))
    assert make_s2t("--extra_tasks", "voice") == 1
    assert "--extra_tasks voice: raw/train/text.voice is there already" in capsys.readouterr().err
