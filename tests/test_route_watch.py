"""Routes that training hardly hears give a warning, once a window."""

from __future__ import annotations

import logging

import pytest
import torch

from espnet_smoe.route_stats import RouteStats, RouteWatch


def test_a_starving_route_is_warned_of_once_a_window(caplog: pytest.LogCaptureFixture) -> None:
    watch = RouteWatch(["asr_wb", "asr_nb", "st_wb"], 0.02, window=10)
    with caplog.at_level(logging.WARNING):
        for step in range(25):
            watch.add(torch.tensor([60.0, 39.0 if step != 3 else 49.0, float(step == 7)]))
            assert len(caplog.records) == (0, 1, 2)[(step + 1) // 10]
    first, second = (record.getMessage() for record in caplog.records)
    assert "route st_wb had 0.10% of the utterances of the last 10 steps" in first
    assert "below model_conf.route_floor 0.02" in first
    assert "st_wb had 0.00%" in second  # the window's own shares


@pytest.mark.parametrize("floor", [0.0, 0.3])
def test_only_training_steps_are_watched(caplog: pytest.LogCaptureFixture, floor: float) -> None:
    stats = RouteStats(["asr", "st"], ["wb"], floor=floor)
    stats.watch.window = 2
    scores = torch.ones(3, 4)
    with caplog.at_level(logging.WARNING):
        for training in (False, False, True, False, True):
            stats(scores, ["asr"] * 3, ["wb"] * 3, training)
    assert len(caplog.records) == (floor > 0)


def test_other_ranks_are_silent(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    watch = RouteWatch(["asr", "st"], 0.1, window=1)
    with caplog.at_level(logging.WARNING):
        for rank in (1, 0):
            monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
            watch.add(torch.tensor([1.0, 0.0]))
            assert len(caplog.records) == (rank == 0)


def test_counts_are_read_at_the_end_of_a_window_only(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    read = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: reads.append(1) or read(self))
    watch = RouteWatch(["asr", "st"], 0.1, window=50)
    for _ in range(100):
        watch.add(torch.tensor([3.0, 1.0]))
    assert len(reads) == 2
