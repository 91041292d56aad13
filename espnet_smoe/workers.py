"""Work on every utterance of a set, in processes of this machine."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import TypeVar

from espnet_smoe.locator import AudioError

ERRORS_SHOWN = 10  # unusable files listed in one message before "and N more"
PARENT_POLL_SECONDS = 0.1  # how often a worker process looks whether its parent lives

Job = TypeVar("Job")
Result = TypeVar("Result")


def _attempt(work: Callable[[str, Job], Result], item: tuple[str, Job]) -> Result | AudioError:
    try:
        return work(*item)
    except AudioError as error:
        return error


def _die_with(parent: int) -> None:
    """Worker start-up: end when the parent was killed, so that no orphan writes into a rerun."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def each_file(
    work: Callable[[str, Job], Result], jobs: Mapping[str, Job], *, nj: int, label: str
) -> Iterator[tuple[str, Result]]:
    """Do something with the audio of every utterance, in ``nj`` processes, with a progress bar.

    A bad file does not hide the next one: the rest is worked through, then all are reported.

    Args:
        work: A picklable function of (utterance id, job), such as a module's own.
        jobs: ``{utterance id: job}``.
        nj: Number of processes; 1 works in this one.
        label: Text beside the progress bar.

    Yields:
        (utterance id, result) in the order of ``jobs``.

    Raises:
        AudioError: Names every utterance and file that cannot be used (the first 10, and how
            many more).
    """
    from tqdm import tqdm

    if nj < 1:
        raise AudioError(f"nj {nj} is impossible; accepted is the number of processes, 1 or more")
    errors: list[AudioError] = []
    attempt = partial(_attempt, work)
    with tqdm(total=len(jobs), desc=label, unit="utt", mininterval=1.0) as bar:

        def sift(results: Iterator[Result | AudioError]) -> Iterator[tuple[str, Result]]:
            for utt, result in zip(jobs, results, strict=True):
                bar.update()
                if isinstance(result, AudioError):
                    errors.append(result)
                else:
                    yield utt, result

        if nj == 1:
            yield from sift(map(attempt, jobs.items()))
        else:
            with ProcessPoolExecutor(nj, initializer=_die_with, initargs=(os.getpid(),)) as pool:
                yield from sift(pool.map(attempt, jobs.items(), chunksize=16))
    if errors:
        lines = "".join(f"\n  {error}" for error in errors[:ERRORS_SHOWN])
        rest = len(errors) - ERRORS_SHOWN
        more = f"\n  ... and {rest} more" if rest > 0 else ""
        raise AudioError(f"{len(errors)} of {len(jobs)} audio files cannot be used:{lines}{more}")
