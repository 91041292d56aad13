"""workers.py, pool.py, cluster.py: the same work on every utterance, in order, whatever fails."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from espnet_smoe import cluster, pool, workers
from espnet_smoe.audio import AudioError

JOBS = {f"u{number:03d}": number for number in range(100)}


def double(utt: str, job: int) -> int:
    if job < 0:
        raise AudioError(f"utterance {utt!r}: {job}")
    return 2 * job


def deadly(utt: str, job: int | Path) -> int | str:
    """-1 is a bad file, -2 and -3 end the process; a path does so the first time."""
    if isinstance(job, Path):
        if not job.exists():
            job.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "at last"
    if job == -2:
        os._exit(3)
    if job == -3:
        os.kill(os.getpid(), signal.SIGKILL)
    return double(utt, job)


def read_relative(utt: str, job: str) -> str:
    return Path(job).read_text(encoding="utf-8")


def buggy(utt: str, job: int) -> int:
    return 1 // job


def comparable(results: Iterator[tuple[str, object]]) -> list[tuple[str, object]]:
    return [(utt, str(r) if isinstance(r, Exception) else r) for utt, r in results]


def test_there_is_no_work_without_a_process() -> None:
    with pytest.raises(AudioError, match="nj 0"):
        list(workers.each_item(double, [("u", 1)], nj=0, label="test"))


@pytest.mark.parametrize("nj", [1, 3])
def test_a_bad_item_is_a_result_and_the_others_follow_in_order(nj: int) -> None:
    jobs = JOBS | {"u007": -1, "u099": -1}
    done = list(workers.each_item(double, jobs.items(), nj=nj, label="test"))
    assert [utt for utt, _ in done] == list(jobs)
    bad = {utt: str(result) for utt, result in done if isinstance(result, AudioError)}
    assert bad == {"u007": "utterance 'u007': -1", "u099": "utterance 'u099': -1"}
    assert dict(done)["u098"] == 196


def test_only_the_items_that_kill_their_worker_are_lost(tmp_path: Path) -> None:
    jobs: dict[str, int | Path] = JOBS | {"u003": -1, "u050": -2, "u051": -3, "u098": -2}
    jobs["u070"] = tmp_path / "killed_once"
    done = list(workers.each_item(deadly, iter(jobs.items()), nj=2, label="test"))
    assert [utt for utt, _ in done] == list(jobs)
    bad = {utt: str(result) for utt, result in done if isinstance(result, AudioError)}
    assert bad == {
        "u003": "utterance 'u003': -1",
        "u050": "utterance 'u050': killed its worker process (exit status 3)",
        "u051": "utterance 'u051': killed its worker process (SIGKILL, as when memory runs out)",
        "u098": "utterance 'u098': killed its worker process (exit status 3)",
    }
    assert dict(done)["u070"] == "at last"


@pytest.mark.parametrize("nj", [1, 2])
def test_no_more_jobs_are_taken_than_the_window_holds(nj: int) -> None:
    taken = 0

    def endless() -> Iterator[tuple[str, int]]:
        nonlocal taken
        while True:
            taken += 1
            yield f"u{taken:09d}", taken

    results = workers.each_item(double, endless(), nj=nj, label="test")
    for count in range(1, 2000):
        assert next(results) == (f"u{count:09d}", 2 * count)
        assert taken - count <= (pool.CHUNKS_AHEAD * nj + 1) * workers.CHUNK
    results.close()


@pytest.mark.parametrize("nj", [1, 2])
def test_a_bug_stops_the_work_and_names_the_utterance(nj: int) -> None:
    with pytest.raises(RuntimeError, match="utterance 'u000': (?s:.)*ZeroDivisionError"):
        list(workers.each_item(buggy, JOBS.items(), nj=nj, label="test"))


def test_expected_errors_are_the_works_own() -> None:
    def bad(utt: str, job: int) -> int:
        raise UnicodeError(utt)

    done = workers.each_item(bad, [("a", 1)], nj=1, label="test", expected=(UnicodeError,))
    assert comparable(done) == [("a", "a")]


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a cluster of two worker processes, none of whose tasks may fail twice."""
    dask = pytest.importorskip("dask")
    distributed = pytest.importorskip("distributed")
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
        ) as local,
    ):
        yield local.scheduler_address


def test_a_dask_cluster_gives_the_same_when_workers_are_killed(
    scheduler: str, tmp_path: Path
) -> None:
    jobs: dict[str, int | Path] = JOBS | {"u003": -1}
    jobs["u070"] = tmp_path / "killed_once"
    on_dask = workers.each_item(deadly, jobs.items(), nj=2, dask=scheduler, label="test")
    result = comparable(on_dask)
    assert (tmp_path / "killed_once").exists()
    assert result == comparable(workers.each_item(deadly, jobs.items(), nj=2, label="test"))
    (utt, error), after = workers.each_item(
        deadly, {"u0": -2, "u1": 4}.items(), nj=2, dask=scheduler, label="test"
    )
    assert "utterance 'u0': killed its worker process (the last: tcp://127.0.0.1:" in str(error)
    assert after == ("u1", 8)


def test_dask_workers_read_files_relative_to_the_recipe(
    scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("here", encoding="utf-8")
    done = workers.each_item(read_relative, {"u": "a.txt"}.items(), nj=1, dask=scheduler, label="t")
    assert list(done) == [("u", "here")]
    with pytest.raises(RuntimeError, match="utterance 'u000': (?s:.)*ZeroDivisionError"):
        list(workers.each_item(buggy, JOBS.items(), nj=2, dask=scheduler, label="test"))


@pytest.mark.parametrize("where", ["sluhrm", "tcp://127.0.0.1:1"])
def test_a_cluster_that_is_not_there_says_what_is_accepted(where: str) -> None:
    dask = pytest.importorskip("dask")
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "200ms"}),
        pytest.raises(AudioError, match=f"--dask {where}(?s:.)*accepted: a scheduler's address"),
    ):
        list(workers.each_item(double, JOBS.items(), nj=2, dask=where, label="test"))


def test_without_dask_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(AudioError, match=r"--dask slurm needs dask: pip install .*\[dask\]"):
        list(workers.each_item(double, JOBS.items(), nj=2, dask="slurm", label="test"))


def test_slurm_jobs_take_their_settings_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dask = pytest.importorskip("dask")
    pytest.importorskip("dask_jobqueue")
    monkeypatch.setenv("DASK_JOBQUEUE__SLURM__QUEUE", "speech")
    monkeypatch.setenv("DASK_JOBQUEUE__SLURM__MEMORY", "2GB")
    monkeypatch.setenv("DASK_JOBQUEUE__SLURM__JOB_EXTRA_DIRECTIVES", "['--account=asr']")
    dask.config.refresh()
    try:
        with cluster.batch_cluster("slurm") as jobs:
            script = jobs.job_script()
    finally:
        monkeypatch.undo()
        dask.config.refresh()
    for line in ("-p speech", "--mem=2G", "--account=asr", "--cpus-per-task=1"):
        assert f"#SBATCH {line}\n" in script
    assert f"{sys.executable} -m distributed.cli.dask_worker tcp://" in script
