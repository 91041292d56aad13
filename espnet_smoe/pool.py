"""Processes of this machine that outlive the death of any of them.

The standard library's pool ends when a worker process dies. Here a decoder that crashes on a
strange file, or the system's out-of-memory killer, costs the one utterance that it happens on.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from espnet_smoe.locator import AudioError

PARENT_POLL_SECONDS = 0.1  # how often a worker process looks whether its parent lives
DEATHS_OF_A_CHUNK = 3  # then its items are tried one by one,
DEATHS_OF_AN_ITEM = 2  # and one that kills its worker so often is given up
CHUNKS_AHEAD = 4  # chunks per worker in work, or done and waiting for their turn

Item = tuple[str, Any]
Chunk = tuple[Item, ...]
Run = Callable[[Chunk], list[Any]]  # the result, or the error, of each item


def killed(utt: str, how: str) -> AudioError:
    """The error of an utterance on which worker processes die."""
    return AudioError(f"utterance {utt!r}: killed its worker process ({how})")


def run_chunk(
    work: Callable[[str, Any], Any], expected: tuple[type[ValueError], ...], chunk: Chunk
) -> list[Any]:
    """Do the work on each item; an error of an expected class is the item's result.

    Raises:
        RuntimeError: Any other exception; names the utterance and holds the traceback, as text:
            not every exception can travel between processes.
    """
    results: list[Any] = []
    for utt, job in chunk:
        try:
            results.append(work(utt, job))
        except expected as error:
            results.append(error)
        except MemoryError:
            results.append(AudioError(f"utterance {utt!r}: needs more memory than there is"))
        except Exception as error:
            raise RuntimeError(f"utterance {utt!r}: {traceback.format_exc()}") from error
    return results


@dataclass
class _Task:
    """A chunk on its way; ``results`` once it is done."""

    chunk: Chunk
    deaths: int = 0
    results: list[Any] | None = None


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    task: _Task | None = None


def _die_with(parent: int) -> None:
    """Worker start-up: end when the parent was killed, so that no orphan writes into a rerun."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _serve(pipe: Connection, run: Run, parent: int) -> None:
    """A worker's life: a chunk in, its results out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent sees to it
    _die_with(parent)
    while True:
        chunk = pipe.recv()
        try:
            answer: Any = run(chunk)
        except Exception as error:
            answer = str(error)
        pipe.send(answer)


def _how(exitcode: int | None) -> str:
    if exitcode is None or exitcode >= 0:
        return f"exit status {exitcode}"
    name = signal.Signals(-exitcode).name
    return f"{name}, as when memory runs out" if name == "SIGKILL" else name


@dataclass
class _Crew:
    """The worker processes, and the chunks that wait for one."""

    run: Run
    size: int
    workers: list[_Worker] = field(default_factory=list)
    waiting: deque[_Task] = field(default_factory=deque)

    def start(self) -> _Worker:
        # Forked: the work may be any function, and nothing is imported again.
        context = mp.get_context("fork")
        pipe, far_end = context.Pipe()
        process = context.Process(target=_serve, args=(far_end, self.run, os.getpid()), daemon=True)
        process.start()
        far_end.close()  # so that the worker's death ends the pipe
        worker = _Worker(process, pipe)
        self.workers.append(worker)
        return worker

    def hand_out(self) -> None:
        """Give every idle worker a chunk, starting workers up to the crew's size."""
        while self.waiting:
            worker = next((w for w in self.workers if w.task is None), None)
            if worker is None:
                if len(self.workers) == self.size:
                    return
                worker = self.start()
            worker.task = self.waiting.popleft()
            try:
                worker.pipe.send(worker.task.chunk)
            except OSError:  # it died meanwhile; its pipe says so to `collect`
                return

    def collect(self, line: deque[_Task], *, patient: bool) -> None:
        """Take what the workers have done; wait for something if there is time."""
        busy = {w.pipe: w for w in self.workers if w.task is not None}
        for pipe in wait(list(busy), timeout=None if patient else 0):
            worker = busy[pipe]  # type: ignore[index]
            task = worker.task
            assert task is not None
            try:
                answer = worker.pipe.recv()
            except (EOFError, OSError):
                self.bury(worker, task, line)
                continue
            if isinstance(answer, str):
                raise RuntimeError(answer)
            task.results, worker.task = answer, None

    def bury(self, worker: _Worker, task: _Task, line: deque[_Task]) -> None:
        """A worker has died at its task: again, item by item, or not any more."""
        worker.process.join()
        worker.pipe.close()
        self.workers.remove(worker)
        task.deaths += 1
        if len(task.chunk) == 1:
            if task.deaths >= DEATHS_OF_AN_ITEM:
                task.results = [killed(task.chunk[0][0], _how(worker.process.exitcode))]
            else:
                self.waiting.appendleft(task)
        elif task.deaths < DEATHS_OF_A_CHUNK:
            self.waiting.appendleft(task)
        else:
            parts = [_Task((item,)) for item in task.chunk]
            place = next(index for index, other in enumerate(line) if other is task)
            del line[place]
            for part in reversed(parts):
                line.insert(place, part)
            self.waiting.extendleft(reversed(parts))

    def end(self) -> None:
        for worker in self.workers:
            worker.process.kill()
        for worker in self.workers:
            worker.process.join()
            worker.pipe.close()


def run_in_processes(run: Run, chunks: Iterator[Chunk], nj: int) -> Iterator[list[Any]]:
    """Run chunks in ``nj`` processes of this machine; yields their results in order.

    At most ``CHUNKS_AHEAD * nj`` chunks are taken before the results of the first are fetched.
    A chunk whose worker dies is tried again, `DEATHS_OF_A_CHUNK` times in all, then its items
    one by one; an item that kills its worker `DEATHS_OF_AN_ITEM` times yields an `AudioError`.

    Raises:
        RuntimeError: An exception that ``run`` did not expect; names the utterance.
    """
    crew = _Crew(run, nj)
    line: deque[_Task] = deque()  # in the order of the results
    try:
        while True:
            while len(line) < CHUNKS_AHEAD * nj and (chunk := next(chunks, None)) is not None:
                line.append(_Task(chunk))
                crew.waiting.append(line[-1])
            if not line:
                return
            crew.hand_out()
            crew.collect(line, patient=line[0].results is None)
            if line[0].results is not None:
                yield line.popleft().results or []
    finally:
        crew.end()
