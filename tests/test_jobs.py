"""Stages 10, 11 and stock decoding: jobs that fail, are killed, or are started again."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from recipe_copy import copy_recipe, environment
from stage_data import TEST_UTTS, edit, make_raw, make_s2t, run_main

from espnet_smoe.datadir import DataError, read_table, write_table

import collect_stats  # isort: skip  (stage_data puts the recipe's local/ on the path)
import decode_dir  # isort: skip
import jobs  # isort: skip
import stock_decode  # isort: skip
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
def decoding(raw: Path) -> argparse.Namespace:
    """The options of stage 12, with something for a model."""
    assert make_s2t() == 0
    Path("model").mkdir()
    for name in ("model/m.pth", "model/config.yaml", "decode.yaml"):
        Path(name).write_text(f"ctc_weight: 0.3  # {name}\n", encoding="utf-8")
    return argparse.Namespace(
        **{"out": Path("out"), "examples": Path("s2t"), "s2t_dir": Path("model"), "model": "m.pth"},
        **{"config": Path("decode.yaml"), "route_override": "", "python": "python3", "ngpu": 0},
        **{"sets": "test", "tasks": "", "nj": 1, "audio_type": "sound"},
    )


def test_every_utterance_and_task_is_decoded_once(decoding: argparse.Namespace) -> None:
    for nj, parts in ((1, 1), (2, 1), (3, 2), (40, 4)):
        stretches = stock_decode.plan(decoding.examples, ["test"], [], nj)
        assert len(stretches) == 2 * parts
        for task in ("asr", "st_eng"):
            assert [u for s in stretches if s.task == task for u in s.utts] == TEST_UTTS
        assert len({s.name for s in stretches}) == len(stretches)
    edit(Path("s2t/test/utt2lang"), "t1", "eus")
    languages = {
        s.language: list(s.utts) for s in stock_decode.plan(decoding.examples, ["test"], [], 1)
    }
    assert languages == {"spa": ["t0", "t2", "t3"], "eus": ["t1"]}
    assert {s.task for s in stock_decode.plan(decoding.examples, ["test"], ["st_eng"], 1)} == {
        "st_eng"
    }


def test_the_fingerprint_covers_model_options_route_and_program(
    decoding: argparse.Namespace,
) -> None:
    first = decode_dir.fingerprint(decoding, [], "a")
    assert decode_dir.fingerprint(decoding, [], "a") == first
    seen = {first, decode_dir.fingerprint(decoding, ["--beam_size", "2"], "a")}
    seen.add(decode_dir.fingerprint(decoding, [], "b"))
    decoding.route_override = "nb"
    seen.add(decode_dir.fingerprint(decoding, [], "a"))
    for name in ("model/m.pth", "model/config.yaml", "decode.yaml"):
        with Path(name).open("a", encoding="utf-8") as file:
            file.write("# more\n")
        seen.add(decode_dir.fingerprint(decoding, [], "a"))
    assert len(seen) == 7


def test_ctc_scores_transcripts_only(decoding: argparse.Namespace) -> None:
    assert "--ctc_weight" not in stock_decode.inference_options(decoding, "asr")
    assert stock_decode.inference_options(decoding, "st_eng")[-2:] == ["--ctc_weight", "0.0"]
    decoding.config.write_text("ctc_weight: 0.0\n", encoding="utf-8")
    assert "--ctc_weight" not in stock_decode.inference_options(decoding, "st_eng")


def test_a_model_trained_without_ctc_is_decoded_without(decoding: argparse.Namespace) -> None:
    (decoding.s2t_dir / "config.yaml").write_text("model_conf: {ctc_weight: 0.0}", encoding="utf-8")
    assert stock_decode.inference_options(decoding, "asr")[-2:] == ["--ctc_weight", "0.0"]


@pytest.mark.parametrize(("ngpu", "used"), [(0, "0"), (1, "1"), (4, "1")])
def test_a_job_decodes_on_one_gpu_at_most(
    decoding: argparse.Namespace, ngpu: int, used: str
) -> None:
    decoding.ngpu = ngpu
    (stretch,) = stock_decode.plan(decoding.examples, ["test"], ["asr"], 1)
    job = stock_decode.make_job(decoding, [], stretch, Path("partial"), Path("final"))
    assert job.command[job.command.index("--ngpu") + 1] == used


FAKE_DECODER = """
import os, sys
from pathlib import Path
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
out = Path(options["--output_dir"]) / "1best_recog"
out.mkdir(parents=True)
keys = [line.split()[0] for line in open(options["--key_file"])]
routes = open(os.environ["ESPNET_SMOE_ROUTE_LOG"], "a")
with open(out / "token", "w") as token, open(out / "score", "w") as score:
    for key in keys[: int(os.environ.get("STOP_AFTER", "99"))]:
        token.write(f"{key} <spa> <{options['--task_sym']}> <notimestamps> a\\n" * (key != "t1"))
        token.write(f"{key} \\n" * (key == "t1"))
        score.write(f"{key} tensor(-1.5, device='cuda:0')\\n")
        print("nb", file=routes)
"""


@pytest.fixture
def fake(decoding: argparse.Namespace, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """Stage 12 with a program in place of ESPnet's; it hears 'a' everywhere, nothing in t1."""
    Path("fake.py").write_text(FAKE_DECODER, encoding="utf-8")
    job = stock_decode.make_job

    decoding.started = []

    def make_job(*arguments: Any) -> Job:
        made = job(*arguments)
        decoding.started.append(arguments[2].name)
        rest = list(made.command)[list(made.command).index("--output_dir") :]
        return Job([sys.executable, "fake.py", *rest], made.log, made.environment, made.finish)

    monkeypatch.setattr(stock_decode, "make_job", make_job)
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.02)
    return decoding


def test_results_are_gathered_per_set_and_task(fake: argparse.Namespace) -> None:
    fake.nj = 4
    stock_decode.decode(fake, [])
    for task in ("asr", "st_eng"):
        folder = Path("out/test") / task
        text = read_table(folder / "text", allow_empty=True)
        assert text == {**dict.fromkeys(TEST_UTTS, "a"), "t1": ""}
        assert read_table(folder / "score") == dict.fromkeys(TEST_UTTS, "-1.5")
        assert read_table(folder / "utt2route") == dict.fromkeys(TEST_UTTS, "nb")


def test_a_rerun_decodes_only_what_is_missing_or_changed(fake: argparse.Namespace) -> None:
    def decoded_again() -> set[str]:
        fake.started.clear()
        stock_decode.decode(fake, [])
        return set(fake.started)

    assert decoded_again() == {"test.asr.spa.0", "test.st_eng.spa.0"}
    assert decoded_again() == set()
    Path("out/jobs/test.asr.spa.0").rename("out/jobs/test.asr.spa.0.partial")  # killed
    assert decoded_again() == {"test.asr.spa.0"}
    soundfile.write("raw/test/audio/t2.flac", np.zeros(77), 16000)  # stages 2 to 4 again
    assert decoded_again() == {"test.asr.spa.0", "test.st_eng.spa.0"}
    Path("model/m.pth").write_text("another model", encoding="utf-8")
    assert decoded_again() == {"test.asr.spa.0", "test.st_eng.spa.0"}


def test_an_incomplete_decode_is_not_kept(
    fake: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOP_AFTER", "3")
    with pytest.raises(DataError, match="3 of 4 utterances decoded"):
        stock_decode.decode(fake, [])
    assert not Path("out/test").exists()
    monkeypatch.delenv("STOP_AFTER")
    stock_decode.decode(fake, [])
    assert len(read_table("out/test/asr/text", allow_empty=True)) == 4


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
