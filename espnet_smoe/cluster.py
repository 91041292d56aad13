"""The same work on a dask cluster: the workers of several machines, or jobs of a batch system.

Needs the extra ``dask`` (``pip install 'espnet-smoe[dask]'``). Workers see the same files under
the same names as this machine, and have this package installed.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from itertools import count
from typing import Any

from espnet_smoe.locator import AudioError
from espnet_smoe.pool import CHUNKS_AHEAD, Chunk, Run, killed

BATCH_SYSTEMS = {"slurm": "SLURM", "pbs": "PBS", "sge": "SGE", "lsf": "LSF", "oar": "OAR"}
WORKERS_COUNTED = 64  # chunks between two looks at how many workers there are
JOB_DEFAULTS = {"cores": 1, "processes": 1, "memory": "4GB"}  # of a batch job: one worker
ACCEPTED = (
    f"a scheduler's address (tcp://host:8786), its file (scheduler.json), or "
    f"{', '.join(BATCH_SYSTEMS)}"
)


def batch_cluster(system: str) -> Any:
    """A dask-jobqueue cluster of no workers yet.

    Its settings are dask-jobqueue's own: its ``jobqueue.yaml``, or environment variables such as
    ``DASK_JOBQUEUE__SLURM__QUEUE``; where they say nothing, `JOB_DEFAULTS`.
    """
    import dask
    import dask_jobqueue

    known = dask.config.get(f"jobqueue.{system}", {})
    missing = {name: value for name, value in JOB_DEFAULTS.items() if not known.get(name)}
    return getattr(dask_jobqueue, f"{BATCH_SYSTEMS[system]}Cluster")(**missing)


def open_client(where: str, nj: int, stack: ExitStack) -> Any:
    """Connect to a cluster, starting ``nj`` jobs of a batch system when one is named.

    Args:
        where: A scheduler's address or file, or the name of a batch system.
        nj: Number of jobs of a batch system; a running cluster has its own workers.
        stack: Closes what is opened here.

    Raises:
        AudioError: The extra is not installed, ``where`` is nothing known, or nobody answers.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise AudioError(
            f"--dask {where} needs dask: pip install 'espnet-smoe[dask]' ({error})"
        ) from error
    try:
        if where in BATCH_SYSTEMS:
            cluster = stack.enter_context(batch_cluster(where))
            cluster.scale(jobs=nj)
            client = Client(cluster)
        elif where.endswith(".json"):
            client = Client(scheduler_file=where)
        elif "://" in where:
            client = Client(where)
        else:
            raise AudioError(f"--dask {where} is unknown; accepted: {ACCEPTED}")
    except (OSError, ImportError) as error:
        raise AudioError(f"--dask {where}: {error}; accepted: {ACCEPTED}") from error
    stack.enter_context(client)
    if not client.scheduler_info()["workers"]:
        print(f"--dask {where}: no worker has come yet; waiting for the first", file=sys.stderr)
    return client


def _there(run: Run, directory: str, chunk: Chunk) -> list[Any]:
    """On a worker: the tables name files relative to the recipe's directory."""
    if not os.path.isdir(directory):
        raise RuntimeError(f"this worker has no directory {directory}, where the work was started")
    os.chdir(directory)
    return run(chunk)


def run_on_cluster(run: Run, chunks: Iterator[Chunk], where: str, nj: int) -> Iterator[list[Any]]:
    """Run chunks on a dask cluster; yields their results in order.

    A chunk whose worker dies goes to another one (dask's ``allowed-failures`` times); then its
    items are tried one by one, with nothing else under way that could be to blame, and an item
    that its workers die at yields an `AudioError`.

    Raises:
        AudioError: There is no such cluster.
        RuntimeError: An exception that ``run`` did not expect; names the utterance.
    """
    with ExitStack() as stack:
        client = open_client(where, nj, stack)
        from distributed import KilledWorker, wait

        there = partial(_there, run, os.getcwd())

        def submit(chunk: Chunk) -> Any:
            return client.submit(there, chunk, key=f"espnet_smoe-{uuid.uuid4().hex}", pure=False)

        line: deque[tuple[Chunk, Any]] = deque()
        for done in count():
            if done % WORKERS_COUNTED == 0:  # they come and go
                ahead = CHUNKS_AHEAD * max(nj, sum(client.nthreads().values()))
            while len(line) < ahead and (chunk := next(chunks, None)) is not None:
                line.append((chunk, submit(chunk)))
            if not line:
                return
            chunk, future = line.popleft()
            try:
                results = future.result()
            except KilledWorker:
                wait([other for _, other in line])
                results = []
                for item in chunk:
                    try:
                        results += submit((item,)).result()
                    except KilledWorker as error:
                        results.append(killed(item[0], f"the last: {error.last_worker.address}"))
            yield results
