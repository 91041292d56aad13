"""workers.py: the same work on every utterance, in order, whatever fails."""

from __future__ import annotations

import pytest

from espnet_smoe import workers
from espnet_smoe.audio import AudioError


def double(utt: str, job: int) -> int:
    if job < 0:
        raise AudioError(f"utterance {utt!r}: {job}")
    return 2 * job


@pytest.mark.parametrize("nj", [1, 2])
def test_each_file_keeps_the_order_and_reports_every_bad_file(nj: int) -> None:
    jobs = {f"u{number:02d}": number for number in range(40)}
    doubled = dict(workers.each_file(double, jobs, nj=nj, label="test"))
    assert doubled == {utt: 2 * job for utt, job in jobs.items()}
    assert list(doubled) == list(jobs)
    for number in range(12):
        jobs[f"u{number:02d}"] = -1
    with pytest.raises(AudioError, match="12 of 40 audio files") as caught:
        list(workers.each_file(double, jobs, nj=nj, label="test"))
    assert "'u09'" in str(caught.value)
    assert "'u10'" not in str(caught.value)
    assert str(caught.value).endswith("... and 2 more")


def test_each_file_needs_a_process() -> None:
    with pytest.raises(AudioError, match="nj 0"):
        list(workers.each_file(double, {"u": 1}, nj=0, label="test"))
