"""The batch plan and the iterator that follows it."""

from __future__ import annotations

import argparse
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from espnet2.tasks.abs_task import IteratorOptions
from hypothesis import example, given, settings
from hypothesis import strategies as st

from espnet_smoe.batching import (
    PLAN_NAME,
    Batch,
    build_plan_iter_factory,
    interleave,
    plan_batches,
    read_plan,
    route_shares,
    write_plan,
)
from espnet_smoe.datadir import DataError

EXAMPLES = st.lists(
    st.tuples(st.integers(1, 40), st.sampled_from(["asr", "st"])), min_size=1, max_size=60
)


def tables(examples: list[tuple[int, str]]) -> tuple[dict[str, int], dict[str, str]]:
    utts = [f"u{i:03}" for i in range(len(examples))]
    return (
        {utt: length for utt, (length, _) in zip(utts, examples, strict=True)},
        {utt: task for utt, (_, task) in zip(utts, examples, strict=True)},
    )


@settings(max_examples=300, deadline=None)
@given(EXAMPLES, st.integers(1, 5), st.integers(0, 300), st.booleans())
@example([(10, "asr")] * 10 + [(40, "asr")] * 2, 1, 60, False)  # a long tail
@example([(10, "asr")] * 5, 2, 0, False)  # no split into twos and at most twos
def test_a_plan(
    examples: list[tuple[int, str]], min_batch_size: int, spare: int, mixed: bool
) -> None:
    """Each utterance once, one task a batch, sizes as asked, the same for the same input."""
    lengths, tasks = tables(examples)
    bins = max(lengths.values()) * min_batch_size + spare
    options: dict[str, Any] = {
        "batch_bins": bins,
        "min_batch_size": min_batch_size,
        "mixed": mixed,
    }
    if min(Counter("m" if mixed else t for t in tasks.values()).values()) < min_batch_size:
        with pytest.raises(DataError, match="fewer than the .* that each batch needs"):
            plan_batches(lengths, tasks, **options)
        return
    batches = plan_batches(lengths, tasks, **options)
    assert sorted(utt for b in batches for utt in b.utts) == sorted(lengths)
    for batch in batches:
        assert batch.samples == len(batch.utts) * max(lengths[utt] for utt in batch.utts)
        assert len(batch.utts) >= min_batch_size
        # a batch that could not be split over the ranks may exceed batch_bins
        assert batch.samples <= bins or len(batch.utts) < 2 * min_batch_size
        if mixed:
            assert batch.task == "mixed"
        else:
            assert {tasks[utt] for utt in batch.utts} == {batch.task}
    assert plan_batches(dict(reversed(lengths.items())), tasks, **options) == batches


@pytest.mark.parametrize("counts", [(300, 300), (297, 300), (150, 300)])
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_every_rank_gets_every_bandwidth_in_its_share(counts: tuple[int, int], world: int) -> None:
    """A rank takes every n-th utterance of a batch; BatchNorm sees those only."""
    bandwidths = {
        f"{bw}{i}": bw for bw, n in zip(("wb", "nb"), counts, strict=True) for i in range(n)
    }
    lengths = {utt: 10 + i % 7 for i, utt in enumerate(bandwidths)}
    tasks = dict.fromkeys(lengths, "asr")
    batches = plan_batches(lengths, tasks, batch_bins=400, bandwidths=bandwidths)
    assert len(batches) > 5
    for batch in batches:
        whole = [bandwidths[u] for u in batch.utts].count("nb")
        for rank in range(world):
            share = [bandwidths[u] for u in batch.utts[rank::world]].count("nb")
            assert abs(share - whole / world) <= 1


def test_a_plan_is_bucketed_by_length() -> None:
    lengths = {f"u{i}": length for i, length in enumerate([9, 1, 8, 2, 9, 1, 8, 2])}
    batches = plan_batches(lengths, dict.fromkeys(lengths, "asr"), batch_bins=18)
    assert [[lengths[u] for u in b.utts] for b in batches] == [[1, 1, 2, 2], [8, 8], [9, 9]]


def test_an_utterance_that_does_not_fit_raises() -> None:
    with pytest.raises(DataError, match=r"utterance u1: 30 samples times 2 do not fit batch_bins"):
        plan_batches({"u1": 30}, {"u1": "asr"}, batch_bins=59, min_batch_size=2)


def test_tables_of_other_utterances_raise() -> None:
    with pytest.raises(DataError, match=r"utt2task has no line for 1 utterance.*u2"):
        plan_batches({"u1": 3, "u2": 3}, {"u1": "asr"}, batch_bins=9)


def test_a_task_with_too_few_examples_raises() -> None:
    lengths, tasks = {"u1": 3, "u2": 3, "u3": 3}, {"u1": "asr", "u2": "asr", "u3": "st"}
    with pytest.raises(DataError, match=r"task st has 1 example\(s\), fewer than the 2"):
        plan_batches(lengths, tasks, batch_bins=9, min_batch_size=2)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(0, 99))
def test_interleaving_keeps_each_tasks_share_in_any_stretch(sizes: list[int], seed: int) -> None:
    batches = [
        Batch(f"t{task}", 1, (f"{task}-{i}",))
        for task, size in enumerate(sizes)
        for i in range(size)
    ]
    order = interleave(batches, seed)
    assert sorted(order, key=lambda b: b.utts) == sorted(batches, key=lambda b: b.utts)
    assert interleave(batches, seed) == order
    total = len(order)
    for task, size in enumerate(sizes):
        seen = np.cumsum([0] + [b.task == f"t{task}" for b in order])
        ideal = np.arange(total + 1) * size / total
        gap = seen - ideal
        assert gap.max() - gap.min() <= len(sizes)  # of any stretch


def test_interleaving_differs_from_epoch_to_epoch_and_leaves_its_input_alone() -> None:
    batches = [Batch(task, 1, (f"{task}{i}",)) for task in ("asr", "st") for i in range(8)]
    before = list(batches)
    orders = [interleave(batches, seed) for seed in range(5)]
    assert batches == before
    assert len({tuple(b.utts for b in order) for order in orders}) == 5


def test_a_plan_survives_writing_and_reading(tmp_path: Path) -> None:
    batches = [Batch("asr", 12, ("u1", "ü2")), Batch("st", 5, ("u3",))]
    write_plan(tmp_path / PLAN_NAME, batches)
    assert read_plan(tmp_path / PLAN_NAME) == batches
    assert [p.name for p in tmp_path.iterdir()] == [PLAN_NAME]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the plan is empty"),
        ("{\n", r"batch_plan.jsonl:1: not a batch"),
        ('{"task": "asr", "samples": 3}\n', r":1: not a batch: KeyError\('utts'\)"),
        ('{"task": "asr", "samples": 3, "utts": ["u"]}\n7\n', r":2: not a batch"),
    ],
)
def test_a_broken_plan_raises(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / PLAN_NAME).write_text(text)
    with pytest.raises(DataError, match=message):
        read_plan(tmp_path / PLAN_NAME)


def test_a_missing_plan_says_which_stage_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no batch plan; 'iterator_type: task' .*run stage 6"):
        read_plan(tmp_path / PLAN_NAME)


def test_route_shares_sum_to_one() -> None:
    batches = [Batch("asr", 1, ("a", "b", "c")), Batch("st", 1, ("d",))]
    tasks = {"a": "asr", "b": "asr", "c": "asr", "d": "st"}
    bands = {"a": "nb", "b": "wb", "c": "wb", "d": "nb"}
    assert route_shares(batches, tasks, bands) == {
        ("asr", "nb"): 0.25,
        ("asr", "wb"): 0.5,
        ("st", "nb"): 0.25,
    }


class FakeTask:
    """Stands in for ESPnet's task: the utterance itself is the data."""

    @staticmethod
    def build_dataset(_args: Any, _options: Any, keys: set[str]) -> dict[str, str]:
        return {key: key for key in keys}


def factory(path: Path, *, mode: str = "train", distributed: bool = False, **options: Any) -> Any:
    iter_options = IteratorOptions(
        preprocess_fn=None,
        collate_fn=list,
        data_path_and_name_and_type=[(str(path / "wav.scp"), "speech", "sound")],
        shape_files=[],
        batch_type="numel",
        batch_size=1,
        batch_bins=1,
        num_batches=options.get("num_batches"),
        max_cache_size=0,
        max_cache_fd=0,
        allow_multi_rates=False,
        distributed=distributed,
        num_iters_per_epoch=options.get("num_iters_per_epoch"),
        train=mode == "train",
    )
    args = argparse.Namespace(seed=7, num_workers=0, ngpu=0)
    return build_plan_iter_factory(FakeTask, args, iter_options, mode)


@pytest.fixture
def plan(tmp_path: Path) -> list[Batch]:
    batches = [
        Batch(task, 4, tuple(f"{task}{i}{j}" for j in range(2 + i % 3)))
        for task in ("asr", "st")
        for i in range(6)
    ]
    write_plan(tmp_path / PLAN_NAME, batches)
    return batches


def test_the_iterator_follows_the_plan(tmp_path: Path, plan: list[Batch]) -> None:
    iterator = factory(tmp_path).build_iter(3)
    assert len(iterator) == len(plan)
    assert list(iterator) == [list(b.utts) for b in interleave(plan, 7 + 3)]


def test_validation_keeps_the_plans_order(tmp_path: Path, plan: list[Batch]) -> None:
    for epoch in (1, 2):
        assert list(factory(tmp_path, mode="valid").build_iter(epoch)) == [
            list(b.utts) for b in plan
        ]


def test_attention_plots_take_single_utterances(tmp_path: Path, plan: list[Batch]) -> None:
    found = list(factory(tmp_path, mode="plot_att", num_batches=3).build_iter(1))
    assert found == [[b.utts[0]] for b in plan[:3]]


def test_the_iterator_shards_each_batch_over_the_ranks(
    tmp_path: Path, plan: list[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    shards = []
    for rank in (0, 1):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        made = factory(tmp_path, distributed=True)
        shards.append(list(made.build_iter(1)))
        loaded = {utt for b in plan for utt in b.utts[rank::2]}
        assert set(made.dataset) == loaded  # a rank loads its own share only
    whole = list(factory(tmp_path).build_iter(1))
    for first, second, both in zip(*shards, whole, strict=True):
        assert first and second
        assert sorted(first + second) == sorted(both)
        assert abs(len(first) - len(second)) <= 1


def test_a_batch_smaller_than_the_ranks_raises(
    tmp_path: Path, plan: list[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    message = r"a batch of 2 \(asr00, asr01\) cannot be split over 3 ranks.*stage 6 with --ngpu 3"
    with pytest.raises(DataError, match=message):
        factory(tmp_path, distributed=True)


def test_resuming_at_an_epoch_gives_its_batches(tmp_path: Path, plan: list[Batch]) -> None:
    through = factory(tmp_path)
    runs = [list(through.build_iter(number)) for number in (1, 2, 3)]
    assert list(factory(tmp_path).build_iter(3)) == runs[2]
    assert runs[1] != runs[2]


def test_num_iters_per_epoch_continues_where_the_last_epoch_stopped(
    tmp_path: Path, plan: list[Batch]
) -> None:
    made = factory(tmp_path, num_iters_per_epoch=4)
    seen = [batch for epoch in (1, 2, 3) for batch in made.build_iter(epoch)]
    assert sorted(sum(seen, [])) == sorted(utt for b in plan for utt in b.utts)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 60), st.integers(2, 60), st.integers(0, 10_000))
def test_every_batch_holds_each_bandwidth_in_its_share(n_nb: int, n_wb: int, seed: int) -> None:
    rng = random.Random(seed)
    bandwidths = {f"u{i:03d}": "nb" if i < n_nb else "wb" for i in range(n_nb + n_wb)}
    # Telephone utterances are much shorter here: by length alone, batches would be pure.
    lengths = {
        u: rng.randint(1, 9) if b == "nb" else rng.randint(50, 99) for u, b in bandwidths.items()
    }
    tasks = dict.fromkeys(lengths, "asr")
    batches = plan_batches(lengths, tasks, batch_bins=600, bandwidths=bandwidths)
    share = n_nb / (n_nb + n_wb)
    for batch in batches:
        narrow = sum(bandwidths[u] == "nb" for u in batch.utts)
        assert abs(narrow - share * len(batch.utts)) <= 2
        assert batch.samples <= 600


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.sampled_from(["wb", "nb"])), min_size=1, max_size=60),
    st.floats(1, 6),
    st.integers(0, 300),
)
def test_repeated_examples_come_floor_or_ceil_times_and_never_twice_in_a_batch(
    examples: list[tuple[int, str]], factor: float, spare: int
) -> None:
    lengths = {f"u{i:03}": length for i, (length, _) in enumerate(examples)}
    bandwidths = {f"u{i:03}": band for i, (_, band) in enumerate(examples)}
    tasks = dict.fromkeys(lengths, "asr")
    options: dict[str, Any] = {"batch_bins": max(lengths.values()) + spare}
    options |= {"bandwidths": bandwidths, "repeats": {("asr", "nb"): factor}}
    batches = plan_batches(lengths, tasks, **options)
    counts = Counter(utt for batch in batches for utt in batch.utts)
    assert counts.keys() == lengths.keys()
    for utt, count in counts.items():
        if bandwidths[utt] == "wb":
            assert count == 1
        else:
            assert count in (int(factor), int(factor) + (factor != int(factor)))
    narrow = list(bandwidths.values()).count("nb")
    assert sum(n for u, n in counts.items() if bandwidths[u] == "nb") == round(narrow * factor)
    for batch in batches:
        assert len(set(batch.utts)) == len(batch.utts)
        assert batch.samples == len(batch.utts) * max(lengths[utt] for utt in batch.utts)
        assert batch.samples <= options["batch_bins"]
    assert plan_batches(lengths, tasks, **options) == batches


@pytest.mark.parametrize("factor", [1.3, 2.0, 4.7])
def test_repeating_costs_no_small_batches_and_keeps_the_bandwidths_mixed(factor: float) -> None:
    rng = random.Random(1)
    lengths = {f"u{i:04}": rng.randint(20, 100) for i in range(2000)}
    bandwidths = {utt: "nb" if i % 10 == 0 else "wb" for i, utt in enumerate(lengths)}
    tasks = dict.fromkeys(lengths, "asr")
    repeats = {("asr", "nb"): factor}
    batches = plan_batches(lengths, tasks, batch_bins=1600, bandwidths=bandwidths, repeats=repeats)
    share = 0.1 * factor / (0.9 + 0.1 * factor)
    cut_short = 0
    for batch in batches:
        narrow = sum(bandwidths[u] == "nb" for u in batch.utts)
        assert abs(narrow - share * len(batch.utts)) <= 2
        longest = batch.samples // len(batch.utts)
        cut_short += len(batch.utts) < 1600 // 100 and (len(batch.utts) + 1) * longest <= 1500
    assert cut_short <= 4  # the last two are halves
    real = sum(lengths[u] for b in batches for u in b.utts)
    assert real / sum(b.samples for b in batches) > 0.9  # neighbours in length stay together


def test_too_few_examples_to_repeat_for_the_ranks_raises() -> None:
    lengths = {"u1": 3, "u2": 3, "u3": 3}
    bandwidths = {"u1": "nb", "u2": "wb", "u3": "wb"}
    with pytest.raises(DataError, match=r"a batch of 1 for 2 ranks.*lower the route temperature"):
        plan_batches(
            lengths,
            dict.fromkeys(lengths, "asr"),
            batch_bins=30,
            bandwidths=bandwidths,
            min_batch_size=2,
            repeats={("asr", "nb"): 9.0},
        )
