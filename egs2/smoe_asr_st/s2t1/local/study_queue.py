"""Run the study's jobs, some at a time: what fails is noted, and the others go on."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jobs import Job

from espnet_smoe.datadir import DataError

POLL_SECONDS = 0.5


@dataclass
class Task:
    """A job of the study.

    Attributes:
        label: Its name, unlike every other's.
        job: Its command and log.
        needs: Labels of the tasks that must have ended well before.
        finish: Called when the command has ended well.
    """

    label: str
    job: Job
    needs: tuple[str, ...] = ()
    finish: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Failure:
    """A task that failed, or was not run because another failed."""

    label: str
    reason: str


def run_tasks(
    tasks: Sequence[Task], *, nproc: int, say: Callable[[str], None] = print
) -> list[Failure]:
    """Run tasks in their order, `nproc` at a time, each after those that it needs.

    Whatever ends this early (Ctrl-C, an error) ends the running tasks too.

    Args:
        tasks: What to run. A need that is none of them counts as fulfilled.
        nproc: Processes at a time.
        say: Takes a line of progress.

    Returns:
        The failures, in the order in which they were noticed.
    """
    waiting = list(tasks)
    running: list[tuple[Task, subprocess.Popen, float]] = []
    failures: list[Failure] = []
    open_labels = {task.label for task in tasks}
    failed: set[str] = set()
    done = 0

    def fail(task: Task, reason: str) -> None:
        failures.append(Failure(task.label, reason))
        failed.add(task.label)
        open_labels.discard(task.label)
        say(f"{task.label}: FAILED")

    try:
        while waiting or running:
            for task in list(waiting):
                broken = [label for label in task.needs if label in failed]
                if broken:
                    waiting.remove(task)
                    fail(task, f"not run: it needs {', '.join(broken)}")
                elif len(running) < nproc and not open_labels.intersection(task.needs):
                    waiting.remove(task)
                    say(f"{task.label}: started (log: {task.job.log})")
                    running.append((task, task.job.start(), time.monotonic()))
            time.sleep(POLL_SECONDS)
            for entry in list(running):
                task, process, start = entry
                code = process.poll()
                if code is None:
                    continue
                running.remove(entry)
                try:
                    if code != 0:
                        raise DataError(str(task.job.error(code)))
                    task.finish()
                except (DataError, OSError) as error:
                    fail(task, str(error))
                    continue
                open_labels.discard(task.label)
                done += 1
                minutes = (time.monotonic() - start) / 60
                say(f"{task.label}: done in {minutes:.1f} min ({done} of {len(tasks)})")
    finally:
        for _, process, _ in running:
            process.kill()
        for _, process, _ in running:
            process.wait()
    return failures
