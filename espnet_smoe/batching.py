"""Batches of one task that mix bandwidths: the plan of stage 6 and the iterator that follows it.

A batch holds examples of one guiding token only, so that one decoder expert runs on the whole
tensor, and both bandwidths in about the training set's proportion, since BatchNorm's running
statistics would fit neither if batches were bandwidth-pure. Batches are bucketed by length and
sized by padded audio.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from espnet_smoe.balance import Route, shares
from espnet_smoe.datadir import DataError, require_same_keys, write_lines
from espnet_smoe.planner import Examples, Planned, plan

if TYPE_CHECKING:
    from espnet2.tasks.abs_task import IteratorOptions

PLAN_NAME = "batch_plan.jsonl"  # beside the first training file, as ESPnet's utt2category


@dataclass(frozen=True)
class Batch:
    """One planned batch.

    Attributes:
        task: Its task (category).
        samples: Padded audio: examples times the longest one's samples.
        utts: Example ids.
    """

    task: str
    samples: int
    utts: tuple[str, ...]


def plan_batches(
    lengths: Mapping[str, int],
    tasks: Mapping[str, str],
    *,
    batch_bins: int,
    bandwidths: Mapping[str, str] | None = None,
    min_batch_size: int = 1,
    mixed: bool = False,
    repeats: Mapping[Route, float] | None = None,
) -> list[Batch]:
    """Plan an epoch.

    Args:
        lengths: Samples of audio per example.
        tasks: Task per example.
        batch_bins: Largest padded audio of a batch, samples (ESPnet's ``batch_bins``). A task's
            last batch may exceed it when it could not be split over the ranks otherwise.
        bandwidths: Bandwidth per example: every batch then holds each one in its share of the
            task, to within two examples, also when their utterances differ in length. None: by
            length alone.
        min_batch_size: Smallest batch: the number of DDP ranks, over which a batch is split.
        mixed: Let batches mix tasks.
        repeats: How often an epoch repeats the examples of a (task, bandwidth), at least 1
            (`espnet_smoe.balance.repeats`): each of its examples comes floor or ceil of that
            many times, never twice in one batch. Shares are raised, never lowered by leaving
            examples out. The choice is the same whenever the plan is made.

    Returns:
        Batches in order of task and length; the order of training is the iterator's.

    Raises:
        DataError: The tables differ, an example does not fit `batch_bins`, there are fewer
            examples of a task than `min_batch_size`, or too few to repeat them so often.
    """
    require_same_keys(lengths, tasks, names=("utt2num_samples", "utt2task"))
    rows = (
        (utt, lengths[utt], tasks[utt], bandwidths[utt] if bandwidths else "")
        for utt in sorted(lengths)
    )
    examples = Examples.of(rows)
    planned = plan(
        examples,
        batch_bins=batch_bins,
        min_batch_size=min_batch_size,
        mixed=mixed,
        repeats=repeats,
    )
    return [as_batch(batch, examples) for batch in planned]


def as_batch(planned: Planned, examples: Examples) -> Batch:
    """A planned batch with the ids of its examples."""
    utts = tuple(examples.ids[place] for place in planned.members)
    return Batch(planned.task, planned.samples, utts)


def write_plan(path: str | Path, batches: Iterable[Batch]) -> None:
    """Write a plan, one JSON object a line; it appears whole or not at all."""
    write_lines(path, (json.dumps(asdict(b), ensure_ascii=False) + "\n" for b in batches))


def read_plan(path: str | Path) -> list[Batch]:
    """Read a plan whole; errors are those of `iter_plan`."""
    return list(iter_plan(path))


def iter_plan(path: str | Path) -> Iterator[Batch]:
    """Read a plan batch by batch.

    Raises:
        DataError: No such file, a line that is no batch, or no line.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no batch plan; 'iterator_type: task' follows one: run stage 6")
    number = 0
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                entry = json.loads(line)
                yield Batch(entry["task"], entry["samples"], tuple(entry["utts"]))
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise DataError(f"{path}:{number}: not a batch: {error!r}") from error
    if not number:
        raise DataError(f"{path}: the plan is empty")


def route_shares(
    batches: Sequence[Batch], tasks: Mapping[str, str], bandwidths: Mapping[str, str]
) -> dict[tuple[str, str], float]:
    """Share of the examples per (task, bandwidth); they sum to 1."""
    return shares(Counter((tasks[u], bandwidths[u]) for batch in batches for u in batch.utts))


def interleave(batches: Sequence[Batch], seed: int) -> list[Batch]:
    """Shuffle the batches of each task and interleave the tasks evenly over the epoch.

    A task's k-th of n batches gets the position (k + u) / n, with one random u per task, so that
    any stretch of the epoch holds each task in its share.
    """
    rng = random.Random(seed)
    placed: list[tuple[float, int, Batch]] = []
    groups: dict[str, list[Batch]] = {}
    for batch in batches:
        groups.setdefault(batch.task, []).append(batch)
    for order, task in enumerate(sorted(groups)):
        shuffled = groups[task]
        rng.shuffle(shuffled)
        offset = rng.random()
        placed += [((k + offset) / len(shuffled), order, b) for k, b in enumerate(shuffled)]
    return [batch for _, _, batch in sorted(placed, key=lambda entry: entry[:2])]


def build_plan_iter_factory(
    task: Any, args: argparse.Namespace, iter_options: IteratorOptions, mode: str
) -> Any:
    """Build what ``iterator_type: task`` stands for: ESPnet's iterator over the plan's batches.

    Args:
        task: `S2TTask`.
        args: ESPnet's training options.
        iter_options: Its options of this iterator.
        mode: ``train``, ``valid`` or ``plot_att``.

    Returns:
        An `espnet2.iterators.abs_iter_factory.AbsIterFactory`.

    Raises:
        DataError: No plan beside the first data file, or a batch smaller than the number of ranks.
    """
    from espnet2.iterators.sequence_iter_factory import SequenceIterFactory
    from espnet2.samplers.abs_sampler import AbsSampler

    path = Path(iter_options.data_path_and_name_and_type[0][0]).parent / PLAN_NAME
    batches = read_plan(path)
    rank, world = 0, 1
    if iter_options.distributed:
        rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    small = next((b for b in batches if len(b.utts) < world), None)
    if small:
        raise DataError(
            f"{path}: a batch of {len(small.utts)} ({', '.join(small.utts)}) cannot be split over "
            f"{world} ranks: rerun stage 6 with --ngpu {world}"
        )
    if mode == "plot_att":
        first = batches[: iter_options.num_batches]
        batches = [Batch(b.task, b.samples, b.utts[:1]) for b in first]

    class PlanSampler(AbsSampler):  # type: ignore[misc]
        """The plan's batches, this rank's share of each."""

        def __len__(self) -> int:
            return len(batches)

        def __iter__(self) -> Any:
            return iter(self.generate(0))

        def generate(self, seed: int) -> list[list[str]]:
            """The epoch's batches in order."""
            ordered = interleave(batches, seed) if iter_options.train else batches
            return [list(b.utts[rank::world]) for b in ordered]

    sampler = PlanSampler()
    keys = {utt for batch in sampler.generate(0) for utt in batch}
    return SequenceIterFactory(
        dataset=task.build_dataset(args, iter_options, keys),
        batches=sampler,
        seed=args.seed,
        num_iters_per_epoch=iter_options.num_iters_per_epoch,
        shuffle=False,
        num_workers=args.num_workers,
        collate_fn=iter_options.collate_fn,
        pin_memory=args.ngpu > 0,
    )
