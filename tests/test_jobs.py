"""Stages 10 and 11: jobs that fail, are killed, or are started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from recipe_copy import copy_recipe, environment
from stage_data import make_raw, make_s2t, run_main

from espnet_smoe.datadir import DataError, read_table, write_table

import collect_stats  # isort: skip  (stage_data puts the recipe's local/ on the path)
import jobs  # isort: skip
import train  # isort: skip
from jobs import Job, JobError, run_jobs  # isort: skip
from options import setting  # isort: skip

DEADLINE = 60  # seconds after which a test that waits gives up


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The output of stage 3 in a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    make_raw(tmp_path)
    return Path("raw")


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Is there such a process, other than as a zombie that nobody has waited for?"""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run shell commands as jobs."""
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.02)

    def run(*scripts: str, nj: int = 2) -> None:
        commands = [Job(["sh", "-c", s], tmp_path / f"log.{i}") for i, s in enumerate(scripts)]
        run_jobs(commands, nj=nj, total=9, done=lambda: 20, title="x", unit="y")

    return run


def test_a_failing_job_shows_the_end_of_its_log_and_stops_the_others(
    quick: Callable[..., None], tmp_path: Path
) -> None:
    pid, late = tmp_path / "pid", tmp_path / "late"
    sleeper = f"echo $$ > {pid}; exec sleep 600"
    failing = f"while [ ! -s {pid} ]; do sleep 0.02; done; seq 100; echo oh no >&2; exit 3"
    with pytest.raises(JobError, match=r"exit status 3; the end of .*/log\.1:\n") as raised:
        quick(sleeper, failing, f"touch {late}")
    lines = str(raised.value).splitlines()
    assert len(lines) == 1 + jobs.TAIL_LINES
    assert lines[-1] == "    oh no"
    wait_for(lambda: not is_running(int(pid.read_text())))
    assert not late.exists()


def test_at_most_nj_jobs_run_at_a_time(quick: Callable[..., None], tmp_path: Path) -> None:
    log = tmp_path / "events"
    quick(*[f"echo + >> {log}; sleep 0.1; echo - >> {log}"] * 5, nj=2)
    running, most = 0, 0
    for event in log.read_text().split():
        running += 1 if event == "+" else -1
        most = max(most, running)
    assert (running, most) == (0, 2)


def test_a_job_appends_or_starts_its_log_anew_with_the_command(tmp_path: Path) -> None:
    for append, expected in ((False, 1), (True, 2)):
        job = Job(["echo", "a b"], tmp_path / "log", append=append)
        assert job.start().wait() == 0
        assert (tmp_path / "log").read_text().count("# echo 'a b'\na b\n") == expected


@pytest.mark.parametrize(("size", "parts"), [(10, 3), (3, 10), (1, 1), (5, 5)])
def test_split_keeps_order_and_balances(size: int, parts: int) -> None:
    keys = [str(i) for i in range(size)]
    pieces = jobs.split(keys, parts)
    assert sum(pieces, []) == keys
    assert len(pieces) == min(size, parts)
    assert max(map(len, pieces)) - min(map(len, pieces)) <= 1


def test_statistics_cover_every_example_whatever_nj(
    raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More processes than validation examples: none of the training set is lost."""
    assert make_s2t("--max_seconds", "0.6") == 0  # one utterance, two examples
    write_table("s2t/train/wav.scp", {f"t{number}": "x" for number in range(9)})
    seen: dict[str, list[str]] = {"train": [], "valid": []}

    def run(made: list[Job], **_: Any) -> None:
        for job in made:
            for name, found in seen.items():
                path = list(job.command)[list(job.command).index(f"--{name}_shape_file") + 1]
                found += read_table(path)

    monkeypatch.setattr(collect_stats, "run_jobs", run)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: None)
    options = ("--train_dir", "s2t/train", "--valid_dir", "s2t/valid", "--nj", "8")
    assert run_main(collect_stats.main, "--out", "stats", *options) == 0
    assert seen["train"] == [f"t{number}" for number in range(9)]
    assert seen["valid"] == ["u0_asr", "u0_st_eng"]


def make_checkpoint(folder: Path, accuracies: list[float]) -> None:
    """What ESPnet leaves after as many epochs."""
    folder.mkdir(exist_ok=True)
    model = {"w": torch.arange(1000.0)}
    stats = {e: {"valid": {"acc": a}} for e, a in enumerate(accuracies, 1)}
    epoch = len(accuracies)
    reporter = {"epoch": epoch, "stats": stats}
    torch.save({"model": model, "reporter": reporter}, folder / "checkpoint.pth")
    torch.save(model, folder / f"{epoch}epoch.pth")
    torch.save(model, folder / f"{epoch - 1}epoch.pth")
    for link in ("latest.pth", "valid.acc.best.pth"):
        (folder / link).unlink(missing_ok=True)
        (folder / link).symlink_to(f"{epoch - 1}epoch.pth")
    config = {"best_model_criterion": [["valid", "acc", "max"], ["train", "loss", "min"]]}
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


@pytest.mark.parametrize("share", [None, 0.0, 0.5, 0.999])
def test_a_model_that_was_being_written_comes_from_the_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], share: float | None
) -> None:
    make_checkpoint(tmp_path, [0.1, 0.2, 0.3])
    model = tmp_path / "3epoch.pth"
    data = model.read_bytes()
    model.unlink()
    if share is not None:
        model.write_bytes(data[: int(len(data) * share)])
    train.repair_after_kill(tmp_path)
    assert "3epoch.pth is missing or incomplete" in capsys.readouterr().out
    torch.testing.assert_close(torch.load(model)["w"], torch.arange(1000.0), rtol=0, atol=0)
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(("accuracies", "best"), [([0.1, 0.2, 0.3], 3), ([0.1, 0.3, 0.2], 2)])
def test_links_that_were_not_yet_moved_are_moved(
    tmp_path: Path, accuracies: list[float], best: int
) -> None:
    make_checkpoint(tmp_path, accuracies)
    train.repair_after_kill(tmp_path)
    assert os.readlink(tmp_path / "latest.pth") == "3epoch.pth"
    assert os.readlink(tmp_path / "valid.acc.best.pth") == f"{best}epoch.pth"
    assert not (tmp_path / "train.loss.best.pth").is_symlink()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_checkpoint_that_was_being_written_means_starting_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], share: float
) -> None:
    make_checkpoint(tmp_path, [0.1, 0.2, 0.3])
    data = (tmp_path / "checkpoint.pth").read_bytes()
    (tmp_path / "checkpoint.pth").write_bytes(data[: int(len(data) * share)])
    train.repair_after_kill(tmp_path)
    assert "starting over" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.pth"))
    assert (tmp_path / "config.yaml").exists()


def test_a_first_start_needs_no_repair(tmp_path: Path) -> None:
    train.repair_after_kill(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "expected"),
    [([], 7), (["--max_epoch", "9"], 9), (["--max_epoch=9", "--max_epoch=11"], 11)],
)
def test_the_last_max_epoch_wins(tmp_path: Path, options: list[str], expected: int) -> None:
    config = tmp_path / "train.yaml"
    config.write_text("max_epoch: 7\n", encoding="utf-8")
    assert setting(["--config", str(config), *options], "max_epoch", 40) == expected


def test_a_model_of_another_shape_is_not_resumed(tmp_path: Path) -> None:
    config = tmp_path / "train.yaml"
    config.write_text("encoder: smoe_conformer\nencoder_conf: {num_blocks: 6}\n", encoding="utf-8")
    tokens = tmp_path / "tokens.txt"
    tokens.write_text("<blank>\n<unk>\na\n", encoding="utf-8")
    options = ["--config", str(config), "--token_list", str(tokens)]
    folder = tmp_path / "exp"
    folder.mkdir()
    train.require_same_model(folder, options)  # nothing there yet
    (folder / "checkpoint.pth").write_bytes(b"")
    saved = {"token_list": ["<blank>", "<unk>", "a"], "encoder": "smoe_conformer"}
    saved["encoder_conf"] = {"num_blocks": 6}
    (folder / "config.yaml").write_text(yaml.safe_dump(saved), encoding="utf-8")
    train.require_same_model(folder, options)
    config.write_text("encoder: smoe_conformer\nencoder_conf: {num_blocks: 8}\n", encoding="utf-8")
    tokens.write_text("<blank>\n<unk>\nb\n", encoding="utf-8")
    with pytest.raises(DataError, match="exp holds .* another the token list, encoder_conf: .*tag"):
        train.require_same_model(folder, options)


STAND_IN = """#!/usr/bin/env bash
case "$1" in
    local/*) exec "{python}" "$@" ;;
    *) echo $$ > "{pid}.new"; mv "{pid}.new" "{pid}"; exec sleep 600 ;;
esac
"""


def test_a_run_that_is_killed_takes_its_programs_along(tmp_path: Path) -> None:
    """kill -9 of run.sh alone: else training would go on beside the one that a rerun starts."""
    recipe = copy_recipe(tmp_path / "s2t1")
    pid, python = tmp_path / "pid", tmp_path / "python"
    python.write_text(STAND_IN.format(python=sys.executable, pid=pid), encoding="utf-8")
    python.chmod(0o755)
    stage = ("--stage", "11", "--stop_stage", "11", "--s2t_config", "conf/train_tiny.yaml")
    run = subprocess.Popen(
        ["./run.sh", *stage, "--python", str(python)],
        cwd=recipe,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: pid.exists() or run.poll() is not None)
        training = int(pid.read_text(encoding="utf-8"))
        assert is_running(training)
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    wait_for(lambda: not is_running(training))
