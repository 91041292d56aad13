"""The study's harness on a run.sh that trains nothing: order, resumption, failures, mix-ups."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from study_recipe import ENTRY, EXP, RESULTS, calls, change, enter, run, write_yaml

import study  # isort: skip  (study_recipe puts the recipe's local/ on the path)
from study_results import Cell, read_result  # isort: skip

DEADLINE = 180  # seconds


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the recipe, the working directory."""
    return enter(tmp_path, monkeypatch)


def test_every_run_leaves_its_result_and_a_second_call_does_nothing(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(runs=[{**ENTRY, "seeds": [1, 2]}])
    assert run() == 0
    assert sorted(p.name for p in RESULTS.glob("*seed*")) == [
        f"{system}_seed{seed}.json" for system in ("base", "encdec_smoe") for seed in (1, 2)
    ]
    for stage in range(1, 8):
        assert calls(stage) == ["base_seed1"]
    assert calls(10) == ["base_seed1"]  # the features are the same
    assert sorted(calls(8)) == ["base_seed1", "encdec_smoe_seed1"]
    assert sorted(calls(11)[:2]) == ["base_seed1", "encdec_smoe_seed1"]  # pairs first
    assert sorted(calls(11)) == sorted(calls(12)) == sorted(calls(13))
    assert len(calls(11)) == 4
    before = Path("calls").read_bytes()
    report = Path("STUDY.md").read_bytes()
    capsys.readouterr()
    assert run() == 0
    assert "study fake: 4 of 4 done, 2 at a time" in capsys.readouterr().out
    assert Path("calls").read_bytes() == before
    assert Path("STUDY.md").read_bytes() == report
    assert not list(Path("study").rglob("*.partial"))


def test_a_result_has_what_an_analysis_needs_and_nothing_of_the_machine(recipe: Path) -> None:
    change(runs=[{**ENTRY, "systems": ["encdec_smoe"], "seeds": [2]}])
    assert run("--stage", "train") == 0
    assert not Path("STUDY.md").exists()
    path = RESULTS / "encdec_smoe_seed2.json"
    text = path.read_text(encoding="utf-8")
    assert str(recipe) not in text and str(Path.home()) not in text
    content = read_result(path).content
    assert content["seed"] == content["config"]["seed"] == 2
    assert content["updates"] == 4
    assert content["seconds"]["training"] == 60 + 1.5 + 60 + 2.5
    assert 0 < content["seconds"]["decoding"] < DEADLINE
    assert content["parameters"]["total"] == 3000000
    assert content["train"]["examples"] == 16
    assert content["tests"]["test_nb"]["utterances"] == 12
    assert content["processes"] == 2
    assert content["commit"] == "unknown"  # the copy is in no repository
    assert content["inference"] == yaml.safe_load(Path("conf/decode.yaml").read_text())
    scores = json.loads((EXP / "s2t_study_encdec_smoe_seed2/decode/results.json").read_text())
    found = read_result(path).counts
    for row in scores:
        cell = Cell(row["test_set"], row["task"], row["bandwidth"], row["metric"])
        assert len(found[cell][0]) == row["n_utts"] == 12
    both = found[Cell("test", "asr", "all", "wer")]
    assert both[0] == tuple(f"u{i:02}" for i in range(12))
    parts = [found[Cell("test", "asr", band, "wer")][1] for band in ("wb", "nb")]
    assert (both[1] == parts[0] + parts[1]).all()


def test_a_failed_run_is_told_the_others_go_on_and_a_second_call_resumes_it(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("fail_study_base_seed1").touch()
    assert run() == 1
    printed = capsys.readouterr()
    assert "FAILED mini/base_seed1:" in printed.err
    assert f"the end of {EXP}/log/base_seed1.log" in printed.err
    assert "fake training failed: loss is nan" in printed.err
    assert "1 failed; the same command tries again" in printed.err
    assert [path.name for path in RESULTS.glob("*seed*.json")] == ["encdec_smoe_seed1.json"]
    assert Path("STUDY.md").exists()
    Path("fail_study_base_seed1").unlink()
    assert run() == 0
    assert sorted(calls(11)) == ["base_seed1", "base_seed1", "encdec_smoe_seed1"]
    log = (EXP / "s2t_study_base_seed1/train.log").read_text(encoding="utf-8")
    assert log.count("1epoch results") == 1  # went on behind the first epoch


def test_a_config_that_cannot_be_trained_fails_before_its_runs(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_yaml(Path("conf/study/systems/encdec_smoe.yaml"), {"encoder_conf": {"broken": 1}})
    assert run() == 1
    error = capsys.readouterr().err
    assert "FAILED mini/check encdec_smoe:" in error
    assert "an option that does not exist" in error
    assert "FAILED mini/encdec_smoe_seed1:\n    not run: it needs mini/check encdec_smoe" in error
    assert calls(11) == ["base_seed1"]


def test_killed_and_started_again(recipe: Path) -> None:
    """SIGKILL takes the training along; SIGTERM says how to go on."""
    hang = Path("hang_study_base_seed1")
    hang.touch()
    command = [sys.executable, "local/study.py", "conf/study/tiny.yaml", "--nproc", "1"]
    log = EXP / "s2t_study_base_seed1/train.log"
    for sign, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 130)):
        Path("calls").unlink(missing_ok=True)
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: Path("calls").exists() and calls(11) and log.exists())
        process.send_signal(sign)
        _, error = process.communicate(timeout=DEADLINE)
        assert process.returncode == code
        assert sign == signal.SIGKILL or "interrupted; the same command goes on" in error
        wait_for(lambda: not fake_runs(recipe))
    hang.unlink()
    assert run() == 0
    assert log.read_text(encoding="utf-8").count("epoch results") == 2
    assert len(list(RESULTS.glob("*seed*.json"))) == 2


def fake_runs(recipe: Path) -> list[int]:
    """Processes whose working directory is the recipe, other than this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if Path(os.readlink(path)) == recipe and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
        except OSError:
            continue  # gone, or not ours
    return found


def wait_for(condition: Any) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_one_study_runs_once_at_a_time(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with study.alone(study.read_study(Path("conf/study/tiny.yaml"))):
        assert run() == 1
    assert "study fake is running already" in capsys.readouterr().err
    assert not Path("calls").exists()


def test_a_result_of_another_config_is_not_mixed_in(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    before = Path("calls").read_bytes()
    change(runs=[{**ENTRY, "s2t_args": "--optim_conf lr=0.5"}])
    assert run() == 1
    error = capsys.readouterr().err
    assert "results of other settings than the study's (file's / now):" in error
    line = f"{RESULTS}/base_seed1.json / mini/base_seed1: s2t_args '' / '--optim_conf lr=0.5'"
    assert line in error
    change()
    write_yaml(Path("conf/study/systems/base.yaml"), {"optim_conf": {"lr": 0.5}})
    assert run() == 1
    assert "config.optim_conf.lr 0.01 / 0.5" in capsys.readouterr().err
    assert Path("calls").read_bytes() == before


def edit(path: Path, **changes: Any) -> None:
    content = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps(content), encoding="utf-8")


def test_a_result_of_another_commit_is_refused_unless_accepted(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    edit(RESULTS / "base_seed1.json", commit="0123abc")
    assert run() == 1
    error = capsys.readouterr().err
    assert "base_seed1.json / mini/base_seed1: commit '0123abc' / 'unknown'" in error
    assert "--other_commits accept takes them" in error
    assert run("--other_commits", "accept") == 0
    assert "Results of several commits stand together: mini" in Path("STUDY.md").read_text()


def test_a_training_of_other_settings_is_not_resumed(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("fail_study_base_seed1").touch()
    assert run() == 1
    Path("fail_study_base_seed1").unlink()
    write_yaml(Path("conf/study/systems/base.yaml"), {"optim_conf": {"lr": 0.5}})
    capsys.readouterr()
    assert run() == 1
    error = capsys.readouterr().err
    assert "s2t_study_base_seed1 holds a run that was begun with other settings" in error
    assert "config.optim_conf.lr 0.01 / 0.5. Remove it to train anew" in error


def test_other_data_than_those_of_a_finished_run_are_refused(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on another machine, whose corpus is another."""
    assert run() == 0
    (RESULTS / "base_seed1.json").unlink()
    train = read_result(RESULTS / "encdec_smoe_seed1.json").content["train"]
    edit(RESULTS / "encdec_smoe_seed1.json", train={**train, "sha256": "f" * 16})
    assert run() == 1
    error = capsys.readouterr().err
    assert "FAILED mini: data:" in error
    assert (
        f"{RESULTS}/encdec_smoe_seed1.json was trained on" in error and "not the same data" in error
    )
