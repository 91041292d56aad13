"""Stage 1: local/data.sh, and data directories of one's own."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from recipe_copy import call, copy_recipe
from stage_data import UTTS, edit, make_raw, run_main

from espnet_smoe.datadir import read_table, write_table

import prepare_own  # isort: skip  (stage_data puts the recipe's local/ on the path)


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The output of stage 3 in a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    make_raw(tmp_path)
    return Path("raw")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["nope", "", "data/nope"],
            "unknown corpus 'nope'; accepted: mini, mini_hard, mboshi_fr, own",
        ),
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
