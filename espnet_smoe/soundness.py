"""Is an utterance's audio sound, and does its length fit its text? What stage 7 asks."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np

from espnet_smoe.audio import read_audio, read_header, to_int16
from espnet_smoe.locator import AudioError
from espnet_smoe.slots import scripts_of
from espnet_smoe.workers import _die_with

REMEMBERED = 10_000  # files seen last, not to be read again
CHUNK = 64  # files a process gets at once
FASTEST, FASTEST_SYLLABIC = 40.0, 20.0  # letters a second that nobody speaks
SYLLABIC = frozenset({"CJK", "HANGUL"})  # scripts in which a letter is a syllable or a word
OUTLIER = 8.0  # robust standard deviations (of the log rate) from the median of the set
LEAST_DEVIATION = 0.2
FAST_ANYHOW, LONG_ANYHOW = 20.0, 8.0  # an outlier below this rate, or this many seconds, is let be
MIN_TEXTS = 50  # a set of fewer has no distribution

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class AudioJob:
    """One file to examine.

    Attributes:
        path: Its locator.
        samples: How many samples the tables say it has.
        fs: The rate that it should have, Hz.
        decode: Read the samples too, not the header alone.
    """

    path: str
    samples: int
    fs: int
    decode: bool


@dataclass(frozen=True)
class Examined:
    """What was found: the reason why the audio cannot be used (``""``: it can), its content."""

    reason: str
    digest: bytes = b""


def examine(utt: str, job: AudioJob) -> Examined:
    """Open one file and say what is wrong with it."""
    try:
        header = read_header(job.path)
        if (header.rate, header.channels, header.frames) != (job.fs, 1, job.samples):
            return Examined(
                f"{header.rate} Hz, {header.channels} channel(s), {header.frames} samples; "
                f"expected {job.fs} Hz, 1 channel, {job.samples} samples"
            )
        if not job.decode:
            return Examined("")
        x, _ = read_audio(job.path)
    except AudioError as error:
        return Examined(f"unreadable: {error}")
    if len(x) and x.min() == x.max():
        return Examined(f"silent: every sample is {x[0]:g}")
    return Examined("", hashlib.blake2b(to_int16(x).tobytes(), digest_size=16).digest())


def each_item(
    work: Callable[[str, Job], Result],
    jobs: Iterable[tuple[str, Job]],
    *,
    nj: int,
    dask: object = None,
    label: str = "",
    total: int | None = None,
) -> Iterator[tuple[str, Result | AudioError]]:
    """Do something with each item, in order, in ``nj`` processes; takes items as it goes.

    (Has the shape of the function of this name that `espnet_smoe.workers` is about to get.)

    Args:
        work: A picklable function of (id, job).
        jobs: (id, job); read no further than needed.
        nj: Number of processes; 1 works in this one.
        dask: Not used here.
        label: Text beside the progress bar.
        total: Number of items, if known.
    """
    from tqdm import tqdm

    source = iter(jobs)
    with tqdm(total=total, desc=label, unit="file", mininterval=2.0) as bar, ExitStack() as stack:
        pool = None
        if nj > 1:
            pool = stack.enter_context(
                ProcessPoolExecutor(nj, initializer=_die_with, initargs=(os.getpid(),))
            )
        waiting: deque[Future[list[tuple[str, Result]]]] = deque()
        while True:
            while len(waiting) < 3 * nj and (chunk := list(islice(source, CHUNK))):
                if pool is None:
                    done: Future[list[tuple[str, Result]]] = Future()
                    done.set_result(_work_through(work, chunk))
                    waiting.append(done)
                    break
                waiting.append(pool.submit(_work_through, work, chunk))
            if not waiting:
                return
            for result in waiting.popleft().result():
                bar.update()
                yield result


def _work_through(
    work: Callable[[str, Job], Result], chunk: list[tuple[str, Job]]
) -> list[tuple[str, Result]]:
    return [(utt, work(utt, job)) for utt, job in chunk]


class Recent:
    """Tells whether something came among the last so many."""

    def __init__(self, size: int = REMEMBERED) -> None:
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._size = size

    def is_new(self, item: str) -> bool:
        """Is this the first time lately? From now on it is not."""
        if item in self._seen:
            self._seen.move_to_end(item)
            return False
        self._seen[item] = None
        if len(self._seen) > self._size:
            self._seen.popitem(last=False)
        return True


class SpeakingRates:
    """Finds texts that are too long or too short for their audio.

    Absolute bounds hold for every text; with enough of them, one far from the set's own rates is
    suspect too, but only when it is also fast or long on its own.
    """

    def __init__(self) -> None:
        self._rates = array("f")
        self._suspects: list[tuple[str, int, float]] = []

    def add(self, utt: str, text: str, seconds: float) -> str | None:
        """Count a text; returns what is wrong with it at once."""
        letters = scripts_of(text)
        count = sum(letters.values())
        if not count or seconds <= 0.0:
            return None
        syllabic = sum(letters[script] for script in SYLLABIC) * 2 > count
        fastest = FASTEST_SYLLABIC if syllabic else FASTEST
        if count > fastest * seconds:
            return (
                f"{count} letters in {seconds:.2f} s; nobody speaks more than {fastest:.0f} a "
                "second: another utterance's text, or audio cut short"
            )
        self._rates.append(np.log(count / seconds))
        if count > FAST_ANYHOW * seconds or seconds > LONG_ANYHOW:
            self._suspects.append((utt, count, seconds))
        return None

    def outliers(self) -> Iterator[tuple[str, str]]:
        """(utterance id, reason) of the texts that do not fit the set's own rates."""
        if len(self._rates) < MIN_TEXTS:
            return
        median = float(np.median(self._rates))
        deviation = 1.4826 * float(np.median(np.abs(np.array(self._rates) - median)))
        reach = OUTLIER * max(deviation, LEAST_DEVIATION)
        for utt, count, seconds in self._suspects:
            rate = float(np.log(count / seconds))
            if abs(rate - median) > reach and (
                count > FAST_ANYHOW * seconds if rate > median else seconds > LONG_ANYHOW
            ):
                yield (
                    utt,
                    f"{count} letters in {seconds:.2f} s, where the set has "
                    f"{np.exp(median):.1f} a second: another utterance's text or audio",
                )
