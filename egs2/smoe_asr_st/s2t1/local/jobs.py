"""Run ESPnet programs as child processes: a log each, the first failure shown, progress seen."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

POLL_SECONDS = 0.5
TAIL_LINES = 25


def split(keys: list[str], parts: int) -> list[list[str]]:
    """Cut a list into at most `parts` stretches of about equal length."""
    parts = max(1, min(parts, len(keys)))
    return [keys[len(keys) * i // parts : len(keys) * (i + 1) // parts] for i in range(parts)]


class JobError(RuntimeError):
    """A child process failed."""


@dataclass
class Job:
    """A command, the log that it writes (or appends to), and what to do when it has ended well."""

    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    finish: Callable[[], None] = lambda: None
    append: bool = False

    def start(self) -> subprocess.Popen:
        """Start the command in the background."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a" if self.append else "w", encoding="utf-8") as log:
            log.write(f"# {shlex.join(self.command)}\n")
            log.flush()
            return subprocess.Popen(
                self.command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self.environment},
            )

    def error(self, code: int) -> JobError:
        """The error for a non-zero exit, with the end of the log."""
        tail = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
        text = "\n".join(f"    {line}" for line in tail)
        return JobError(f"exit status {code}; the end of {self.log}:\n{text}")


def run_jobs(
    jobs: Sequence[Job], *, nj: int, total: int, done: Callable[[], int], title: str, unit: str
) -> None:
    """Run jobs, `nj` at a time.

    Args:
        jobs: What to run.
        nj: Processes at a time.
        total: Units of work in all, for the progress bar.
        done: Units finished so far.
        title: The progress bar's title.
        unit: Its unit.

    Raises:
        JobError: A job failed; the others are stopped.
    """
    waiting = list(jobs)
    running: list[tuple[Job, subprocess.Popen]] = []
    bar = tqdm(total=total, desc=title, unit=unit, mininterval=2)
    try:
        while waiting or running:
            while waiting and len(running) < nj:
                job = waiting.pop(0)
                running.append((job, job.start()))
            time.sleep(POLL_SECONDS)
            for entry in list(running):
                job, process = entry
                code = process.poll()
                if code is None:
                    continue
                running.remove(entry)
                if code != 0:
                    raise job.error(code)
                job.finish()
            bar.update(max(0, min(done(), total) - bar.n))
    finally:
        bar.close()
        for _, process in running:
            process.kill()
