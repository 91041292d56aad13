"""Work on every utterance of a set, in processes of this machine or of a dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from functools import partial
from itertools import islice
from typing import TypeVar

from espnet_smoe.locator import AudioError
from espnet_smoe.pool import Chunk, run_chunk, run_in_processes

CHUNK = 16  # utterances that travel to a worker together

Job = TypeVar("Job")
Result = TypeVar("Result")


def _chunks(jobs: Iterable[tuple[str, Job]], nj: int) -> Iterator[Chunk]:
    """Cut the jobs up; small chunks first, so that a short list too is spread over the workers."""
    source = iter(jobs)
    taken = 0
    while chunk := tuple(islice(source, min(CHUNK, 1 + taken // (4 * nj)))):
        taken += len(chunk)
        yield chunk


def each_item(
    work: Callable[[str, Job], Result],
    jobs: Iterable[tuple[str, Job]],
    *,
    nj: int,
    dask: str | None = None,
    label: str,
    total: int | None = None,
    expected: tuple[type[ValueError], ...] = (AudioError,),
) -> Iterator[tuple[str, Result | AudioError]]:
    """Do something with every utterance, in parallel and in order, with a progress bar.

    Neither a bad file nor a worker process that dies stops the work on the others. The jobs are
    taken as they are needed: a list of any length takes no more memory than its first pages.

    Args:
        work: A function of (utterance id, job); for dask, one that cloudpickle can pickle.
        jobs: (utterance id, job), in any number.
        nj: Number of processes; 1 works in this one, which a crash of the work then ends.
        dask: Work on a dask cluster instead, as `espnet_smoe.cluster.open_client` has it.
        label: Text beside the progress bar.
        total: Number of jobs, for the bar; known anyway for a list.
        expected: Exceptions of the work that concern its item only.

    Yields:
        (utterance id, result) in the order of ``jobs``. The result is the exception when the
        work raised an expected one, and an `AudioError` when it killed its worker process.

    Raises:
        AudioError: ``nj`` or ``dask`` is impossible.
        RuntimeError: An exception of the work that was not expected; names the utterance.
    """
    from tqdm import tqdm

    if nj < 1:
        raise AudioError(f"nj {nj} is impossible; accepted is the number of processes, 1 or more")
    if total is None and isinstance(jobs, Sized):
        total = len(jobs)
    run = partial(run_chunk, work, expected)
    utts: list[str] = []  # of the chunks that are under way

    def noted() -> Iterator[Chunk]:
        for chunk in _chunks(jobs, nj):
            utts.extend(utt for utt, _ in chunk)
            yield chunk

    if dask:
        from espnet_smoe.cluster import run_on_cluster

        done = run_on_cluster(run, noted(), dask, nj)
    elif nj == 1:
        done = map(run, noted())
    else:
        done = run_in_processes(run, noted(), nj)
    with tqdm(total=total, desc=label, unit="utt", mininterval=1.0) as bar:
        for results in done:
            for utt, result in zip(utts[: len(results)], results, strict=True):
                yield utt, result
                bar.update()
            del utts[: len(results)]
