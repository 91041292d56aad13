"""Stages 1, 4, 6 and 7: each stops at a mistake in the data and names utterance and file."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from recipe_copy import call, copy_recipe
from stage_data import SAMPLES, UTTS, edit, make_plan, make_raw, make_s2t, run_main

from espnet_smoe.batching import PLAN_NAME, read_plan
from espnet_smoe.datadir import read_table, write_table

import check_data  # isort: skip  (stage_data puts the recipe's local/ on the path)
import make_examples  # isort: skip
import prepare_own  # isort: skip


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The output of stage 3 in a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    make_raw(tmp_path)
    return Path("raw")


def check() -> int:
    """Stage 7."""
    options = ("--sets", "train valid test", "--token_list", "tokens.txt")
    return run_main(check_data.main, "--examples", "s2t", *options)


def test_stages_4_6_and_7_pass_on_good_data(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_s2t() == 0
    assert make_plan() == 0
    assert check() == 0
    out = capsys.readouterr().out
    assert "s2t/train: 8 examples of 4 utterances (asr, st_eng)" in out
    assert "s2t/test: 4 utterances (asr, st_eng)" in out
    assert "check_data.py: train valid test: no problem found" in out
    plan = read_plan(Path("s2t/train") / PLAN_NAME)
    assert {b.task for b in plan} == {"asr", "st_eng"}
    assert all(b.samples <= 64000 for b in plan)


@pytest.mark.parametrize(
    ("table", "value", "message"),
    [
        ("utt2bw", None, r"raw/train/utt2bw has no line for 1 utterance\(s\) .*: u1"),
        ("utt2bw", "narrow", "raw/train/utt2bw: utterance 'u1' is 'narrow'; accepted: wb, nb"),
        ("utt2lang", None, r"raw/train/utt2lang has no line for 1 utterance\(s\) .*: u1"),
        ("text", None, r"raw/train/text has no line for 1 utterance\(s\) .*: u1"),
        ("text", "", "raw/train/text:2: utterance 'u1' has an empty value"),
        ("text.st_eng", "  ", "raw/train/text.st_eng:2: utterance 'u1' has an empty value"),
        ("text", "di <asr> hola", "raw/train/text: utterance 'u1': .* special symbol '<asr>'"),
        ("text", "hola <sos>", "raw/train/text: utterance 'u1': .* special symbol '<sos>'"),
        ("text.st_eng", "a <0.00> b", "text.st_eng: utterance 'u1': .* special symbol '<0.00>'"),
        ("text", "hola \U000e0fff", r"raw/train/text: utterance 'u1': U\+E0FFF"),
        ("wav.scp", None, r"raw/train/wav.scp has no line for 1 utterance\(s\) .*: u1"),
    ],
)
def test_stage_4_names_the_utterance_and_the_file(
    raw: Path,
    capsys: pytest.CaptureFixture[str],
    table: str,
    value: str | None,
    message: str,
) -> None:
    edit(raw / "train" / table, "u1", value)
    assert make_s2t() == 1
    error = capsys.readouterr().err
    assert error.startswith("make_examples.py: ")
    assert re.search(message, error), error
    assert not Path("s2t/train").exists()


def test_stage_4_drops_what_is_too_short_or_too_long_and_says_so(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make_s2t("--min_seconds", "0.6", "--max_seconds", "1.7") == 0
    out = capsys.readouterr().out
    assert "s2t/train: dropped u0: 0.50 s, accepted 0.6 to 1.7 s" in out
    assert list(read_table("s2t/train/dropped")) == ["u0", "u3"]
    utts = {example.partition("_")[0] for example in read_table("s2t/train/text")}
    assert utts == {"u1", "u2"}
    assert list(read_table("s2t/test/text")) == UTTS  # no test utterance is dropped
    assert "s2t/test: 2 outside the training lengths, decoded all the same" in out
    assert make_s2t("--max_seconds", "0.3") == 1
    assert "raw/train: no utterance is left (dropped: 4)" in capsys.readouterr().err


def test_stage_4_takes_a_task_that_covers_some_utterances_only(raw: Path) -> None:
    edit(raw / "train" / "text.st_eng", "u2", None)
    assert make_s2t() == 0
    tasks = read_table("s2t/train/utt2task")
    assert "u2_asr" in tasks
    assert "u2_st_eng" not in tasks


def test_stage_4_takes_a_test_set_with_few_translations(raw: Path) -> None:
    edit(raw / "test" / "text.st_eng", "u2", None)
    assert make_s2t() == 0
    assert list(read_table("s2t/test/text.st_eng")) == ["u0", "u1", "u3"]
    assert list(read_table("s2t/test/text")) == UTTS


@pytest.mark.parametrize("name", ["train", "test"])
def test_stage_4_refuses_a_translation_of_no_utterance(
    raw: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    with (raw / name / "text.st_eng").open("a", encoding="utf-8") as file:
        file.write("u9 hello\n")
    assert make_s2t() == 1
    assert f"text.st_eng: utterance 'u9' is not in raw/{name}/wav.scp" in capsys.readouterr().err


def test_stage_4_refuses_two_examples_of_one_name(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """'u' with task 'a_b' and 'u_a' with task 'b' would both be 'u_a_b'."""
    folder = raw / "train"
    for table in ("wav.scp", "text", "utt2lang", "utt2bw", "utt2num_samples"):
        rows = read_table(folder / table)
        write_table(folder / table, {**rows, "u1_st": rows["u1"]})
    write_table(folder / "text.eng", {"u1_st": "hello"})
    assert make_s2t() == 1
    assert "utterance 'u1' and task 'st_eng' give the example id 'u1_st_eng'" in (
        capsys.readouterr().err
    )


def test_inputs_of_training_and_further_references_are_no_tasks(raw: Path) -> None:
    for name in ("text.prev", "text.ctc", "text.st_eng.ref2"):
        (raw / "test" / name).write_text("u0 x\n", encoding="utf-8")
    assert list(make_examples.find_tasks(raw / "test")) == ["asr", "st_eng"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("max_epoch: 3", "train.yaml: batch_bins is None; it takes samples"),
        ("batch_bins: 16000", "utterance u2_asr: 24000 samples .* do not fit batch_bins 16000"),
    ],
)
def test_stage_6_says_what_is_wrong_with_batch_bins(
    raw: Path, capsys: pytest.CaptureFixture[str], config: str, message: str
) -> None:
    assert make_s2t() == 0
    assert make_plan(config) == 1
    assert re.search(message, capsys.readouterr().err)


def test_stage_6_names_a_missing_bandwidth(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_s2t() == 0
    edit(Path("s2t/train/utt2bw"), "u1_asr", None)
    assert make_plan() == 1
    error = capsys.readouterr().err
    assert "s2t/train/utt2bw has no line for 1 utterance(s) of utt2num_samples: u1_asr" in error


def broken_audio(path: Path) -> None:
    path.write_bytes(b"no audio")


def other_rate(path: Path) -> None:
    soundfile.write(path, np.zeros(SAMPLES), 8000)


@pytest.mark.parametrize(
    ("table", "utt", "value", "message"),
    [
        ("train/utt2bw", "u1_asr", None, "s2t/train/utt2bw has no line for 1 .*: u1_asr"),
        ("train/utt2bw", "u1_asr", "x", "u1_asr: s2t/train/utt2bw: 'x'; accepted: wb, nb"),
        ("train/text", "u1_asr", "hola", "u1_asr: s2t/train/text: 'hola' is not '<language>"),
        ("train/text", "u1_asr", "<spa><asr> ", "utterance u1_asr: s2t/train/text: '<spa><asr>'"),
        ("train/text", "u1_asr", "<deu><asr> a", "u1_asr: s2t/train/text: <deu> is not in the tok"),
        ("train/bandwidth", "u1_asr", "", "bandwidth:3: utterance 'u1_asr' has an empty value"),
        ("train/wav.scp", "u1_asr", "gone.flac", "utterance u1_asr: gone.flac: unreadable"),
        ("train/utt2num_samples", "u1_asr", "7", "u1.flac: 16000 Hz, .* 16000 samples; expected"),
        ("test/utt2lang", "u1", "deu", "u1: s2t/test/utt2lang: <deu> is not in the token list"),
        ("test/text", "u1", None, "s2t/test/text has no line for 1 utterance.* u1"),
    ],
)
def test_stage_7_names_the_utterance_and_the_file(
    raw: Path,
    capsys: pytest.CaptureFixture[str],
    table: str,
    utt: str,
    value: str | None,
    message: str,
) -> None:
    assert make_s2t() == 0
    assert make_plan() == 0
    edit(Path("s2t") / table, utt, value)
    assert check() == 1
    error = capsys.readouterr().err
    assert re.search(message, error), error


def test_stage_7_names_audio_that_changed_since_stage_3(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make_s2t() == 0
    assert make_plan() == 0
    broken_audio(raw / "train/audio/u0.flac")
    other_rate(raw / "test/audio/u3.flac")
    assert check() == 1
    error = capsys.readouterr().err
    assert "utterance u0_asr: raw/train/audio/u0.flac: unreadable" in error
    assert "utterance u3: raw/test/audio/u3.flac: 8000 Hz" in error
    assert "check_data.py: 2 problem(s)" in error


def test_stage_7_wants_the_plan_and_a_token_per_task(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (raw / "test" / "text.st_deu").write_text((raw / "test" / "text").read_text(), "utf-8")
    assert make_s2t() == 0
    assert check() == 1
    error = capsys.readouterr().err
    assert "s2t/train/batch_plan.jsonl: no batch plan" in error
    assert "rerun stage 6" in error
    assert "s2t/test/text.st_deu: <st_deu> is not in the token list" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope", "", "data/nope"], "unknown corpus 'nope'; accepted: mini, mboshi_fr, own"),
        (["mboshi_fr", "", "data/m"], "--corpus mboshi_fr needs --corpus_dir"),
        (["mboshi_fr", "/nowhere", "data/m"], "/nowhere"),
        (
            ["own", "", "data/own"],
            "--corpus own: data/own/train holds no wav.scp; the README shows",
        ),
    ],
)
def test_data_sh_says_what_is_missing(tmp_path: Path, arguments: list[str], message: str) -> None:
    recipe = copy_recipe(tmp_path / "s2t1")
    rest = ["downloads", "1", sys.executable]
    if arguments[0] == "own":
        rest += ["--sets", "train valid"]
    done = call(["local/data.sh", *arguments, *rest], cwd=recipe)
    assert done.returncode != 0
    assert message in done.stdout
    assert "Traceback" not in done.stdout


def test_data_directories_of_the_mini_corpus_have_their_own_audio(tmp_path: Path) -> None:
    recipe = copy_recipe(tmp_path / "s2t1")
    sizes = ("--size", "40", "--valid_size", "2", "--test_size", "2")
    for name in ("one", "two"):
        rest = ("downloads", "1", sys.executable, *sizes)
        done = call(["local/data.sh", "mini", "", f"data/{name}", *rest], cwd=recipe)
        assert done.returncode == 0, done.stdout
    for name in ("one", "two"):
        for path in read_table(recipe / "data" / name / "test" / "wav.scp").values():
            assert path.startswith(f"downloads/{name}/")
            assert (recipe / path).is_file()


def test_stage_1_accepts_own_data(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(raw / "train" / "text.st_eng", UTTS[1], None)  # a translation may be missing
    assert run_main(prepare_own.main, "--data", raw, "--sets", "train test") == 0
    assert "raw/train: 4 utterances (asr, st_eng)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("table", "value", "message"),
    [
        ("text", None, r"raw/valid/text has no line for 1 utterance\(s\) .*: u1"),
        ("utt2lang", None, r"raw/valid/utt2lang has no line for 1 utterance\(s\) .*: u1"),
        ("wav.scp", None, r"wav.scp has no line for 1 utterance\(s\) .*: u1"),
        ("text.st_eng", "a\u0378", r"raw/valid/text.st_eng: utterance 'u1': U\+0378"),
        ("text", "\u00a0", r"raw/valid/text: utterance 'u1' has a text without a visible char"),
        (
            "segments",
            "rec 0.0 1.0",
            "raw/valid/segments: --corpus own reads no segments; run with --corpus kaldi",
        ),
    ],
)
def test_stage_1_names_what_is_wrong_with_own_data(
    raw: Path, capsys: pytest.CaptureFixture[str], table: str, value: str | None, message: str
) -> None:
    if table == "segments":
        write_table(raw / "valid" / table, {UTTS[1]: value})
    edit(raw / "valid" / table, UTTS[1], value)
    assert run_main(prepare_own.main, "--data", raw, "--sets", "train valid") == 1
    assert re.search(message, capsys.readouterr().err)
