#!/usr/bin/env python3
"""A study: systems x seeds x corpora of one YAML, trained, decoded, scored and compared.

Stages: data (run.sh's 1 to 7 and 10, once per corpus), power (what the test sets can show, before
training), train (every run, one process each, and the experiments on them), analyse (STUDY.md).
What is done is not done again: a finished run has its JSON under the study's ``results``.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import study_data
import study_power
import study_report
from study_jobs import KEEP, State
from study_plan import Study, read_study
from study_queue import Failure, run_tasks
from study_results import result_files

from espnet_smoe.datadir import DataError

STAGES = ("all", "list", "data", "power", "train", "analyse")
SHOWN_LINES = 12  # of a failure's reason


@contextmanager
def alone(study: Study) -> Iterator[None]:
    """Hold the study's lock.

    Raises:
        DataError: Another process has it.
    """
    path = Path("exp") / f"study_{study.name}" / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DataError(f"study {study.name} is running already (lock: {path})") from error
        yield


def make_data(state: State, nproc: int) -> list[Failure]:
    """The data of every corpus that has runs to do; a corpus that fails is left out."""
    failures = []
    for places in state.places.values():
        runs = state.pending(places.corpus.key)
        if not runs:
            continue
        try:
            study_data.prepare(places, runs, nproc)
            state.require_same_data(places)
        except (DataError, OSError) as error:
            failures.append(Failure(f"{places.corpus.key}: data", str(error)))
            state.leave_out(places.corpus.key)
    return failures


def show(state: State) -> None:
    """Print what is done and what is to do."""
    for label, done in state.overview():
        print(f"{'done' if done else 'to do':>6}  {label}")


def analyse(study: Study) -> list[Failure]:
    """Write STUDY.md from what there is."""
    if not list(result_files(study.results)):
        return [Failure("analyse", f"{study.results} holds no result")]
    options: list[Any] = [study.results, "--out", study.report, "--base", study.base]
    try:
        study_report.main(list(map(str, options)))
    except DataError as error:
        return [Failure("analyse", str(error))]
    return []


def run_study(args: argparse.Namespace) -> list[Failure]:
    """Run the stages that are asked for; returns what failed."""

    def asked(stage: str) -> bool:
        return args.stage in ("all", stage)

    study = read_study(args.conf)
    state = State(
        study,
        nproc=args.nproc,
        ngpu=args.ngpu,
        other_commits=args.other_commits,
        keep=args.keep_models,
    )
    failures: list[Failure] = []
    if args.stage == "list":
        show(state)
        return failures
    with alone(study):
        done = sum(done for _, done in state.overview())
        print(f"study {study.name}: {done} of {len(state.overview())} done, {args.nproc} at a time")
        if args.stage != "analyse":
            failures += make_data(state, args.nproc)
        if asked("power"):
            for places in state.places.values():
                study_power.plan(places)
        if asked("train"):
            failures += state.lost_models()
            failures += run_tasks(state.tasks(), nproc=args.nproc, say=say)
        if asked("analyse"):
            failures += analyse(study)
    return failures


def say(line: str) -> None:
    """Print a line of progress at once."""
    print(line, flush=True)


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="local/study.sh", description=__doc__)
    parser.add_argument("conf", type=Path, help="the study's YAML")
    parser.add_argument(
        "--nproc",
        type=int,
        default=len(os.sched_getaffinity(0)),
        help="runs at a time, one thread each; default: the cores",
    )
    parser.add_argument(
        "--ngpu",
        type=int,
        help="GPUs of each training and decoding, which the runs share; default: none, or as the "
        "study's options of run.sh say",
    )
    parser.add_argument("--stage", choices=STAGES, default="all")
    parser.add_argument(
        "--keep_models",
        choices=KEEP,
        default="best",
        help="which checkpoints stay after a run and its experiments; best: the decoded one",
    )
    parser.add_argument(
        "--other_commits",
        choices=["refuse", "accept"],
        default="refuse",
        help="results and trainings of another commit of the code: an error, or taken as they are",
    )
    args = parser.parse_args(argv)
    if args.nproc < 1:
        parser.error(f"--nproc {args.nproc}: accepted is 1 or more")
    if args.ngpu is not None and args.ngpu < 0:
        parser.error(f"--ngpu {args.ngpu}: accepted is 0 or more")
    signal.signal(signal.SIGTERM, interrupted)
    try:
        failures = run_study(args)
    except DataError as error:
        print(f"study.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("study.py: interrupted; the same command goes on", file=sys.stderr)
        return 130
    for failure in failures:
        lines = failure.reason.splitlines()
        shown = lines if len(lines) <= SHOWN_LINES else [lines[0], *lines[1 - SHOWN_LINES :]]
        print("\n    ".join([f"FAILED {failure.label}:", *shown]), file=sys.stderr)
    if failures:
        print(f"study.py: {len(failures)} failed; the same command tries again", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
