"""Plans an epoch's batches from compact arrays: millions of examples fit.

`espnet_smoe.batching` says what a batch is and why; here is how the examples get their places.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from espnet_smoe.balance import Route
from espnet_smoe.datadir import DataError, iter_table
from espnet_smoe.tables import join

SEED = 0  # of the choice which examples are repeated once more than others


class Ids:
    """A sequence of ids kept as one run of bytes: some 20 bytes an id instead of 80."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("q", [0])

    def append(self, utt: str) -> None:
        """Add an id."""
        self._bytes += utt.encode()
        self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._bytes[self._ends[index] : self._ends[index + 1]].decode()


@dataclass(frozen=True)
class Examples:
    """The examples of a set, sorted by id; N of them.

    Attributes:
        ids: Their ids.
        lengths: int64 (N,), samples of audio.
        tasks: int16 (N,), positions in `task_names`.
        bands: int16 (N,), positions in `band_names`.
        task_names: Sorted.
        band_names: Sorted; ``[""]`` where bandwidths play no part.
    """

    ids: Ids
    lengths: np.ndarray
    tasks: np.ndarray
    bands: np.ndarray
    task_names: list[str]
    band_names: list[str]

    @classmethod
    def of(cls, rows: Iterable[tuple[str, int, str, str]]) -> Examples:
        """Collect (id, samples, task, bandwidth), sorted by id."""
        ids, lengths = Ids(), array("q")
        names: tuple[dict[str, int], dict[str, int]] = ({}, {})
        codes = (array("h"), array("h"))
        for utt, samples, *values in rows:
            ids.append(utt)
            lengths.append(samples)
            for known, column, value in zip(names, codes, values, strict=True):
                column.append(known.setdefault(value, len(known)))
        columns, by_name = [], []
        for known, column in zip(names, codes, strict=True):
            ordered = sorted(known)
            place = np.array([ordered.index(name) for name in known], dtype=np.int16)
            columns.append(place[np.frombuffer(column, dtype=np.int16)] if known else place)
            by_name.append(ordered)
        return cls(
            ids,
            np.frombuffer(lengths, dtype=np.int64),
            columns[0],
            columns[1],
            by_name[0],
            by_name[1],
        )

    @classmethod
    def read(cls, directory: Path) -> Examples:
        """Read what stage 4 wrote: ``utt2num_samples``, ``utt2task``, ``utt2bw``.

        Raises:
            DataError: A missing table or line, or a number of samples that is none.
        """
        paths = [directory / name for name in ("utt2num_samples", "utt2task", "utt2bw")]

        def rows() -> Iterator[tuple[str, int, str, str]]:
            for utt, values in join(*map(iter_table, paths)):
                for path, value in zip(paths, values, strict=True):
                    if value is None:
                        raise DataError(f"{path} has no line for utterance {utt!r}; rerun stage 4")
                samples, task, band = (value or "" for value in values)
                if not samples.isdecimal():
                    raise DataError(f"{paths[0]}: utterance {utt!r}: {samples!r} is no number")
                yield utt, int(samples), task, band

        return cls.of(rows())

    def counts(self, members: np.ndarray | None = None) -> dict[Route, int]:
        """Examples per route, of all or of some (positions, repeated as often as they count)."""
        both = self.tasks.astype(np.int64) * len(self.band_names) + self.bands
        if members is not None:
            both = both[members]
        found, numbers = np.unique(both, return_counts=True)
        places = [divmod(code, len(self.band_names)) for code in found.tolist()]
        return {
            (self.task_names[task], self.band_names[band]): number
            for (task, band), number in zip(places, numbers.tolist(), strict=True)
        }


@dataclass(frozen=True)
class Planned:
    """One batch: its task, its padded audio in samples, and the positions of its examples."""

    task: str
    samples: int
    members: list[int]


def plan(
    examples: Examples,
    *,
    batch_bins: int,
    min_batch_size: int = 1,
    mixed: bool = False,
    repeats: Mapping[Route, float] | None = None,
) -> Iterator[Planned]:
    """Plan an epoch; see `espnet_smoe.batching.plan_batches`.

    Yields:
        Batches in order of task and length.
    """
    too_long = np.flatnonzero(examples.lengths * min_batch_size > batch_bins)
    if len(too_long):
        first = int(too_long[0])
        raise DataError(
            f"utterance {examples.ids[first]}: {examples.lengths[first]} samples times "
            f"{min_batch_size} do not fit batch_bins {batch_bins}; raise batch_bins or drop the "
            "utterance in stage 4"
        )
    rng = np.random.default_rng(SEED)
    for code, task in [(None, "mixed")] if mixed else list(enumerate(examples.task_names)):
        members = np.arange(len(examples.ids))
        if code is not None:
            members = np.flatnonzero(examples.tasks == code)
        if len(members) < min_batch_size:
            raise DataError(
                f"task {task} has {len(members)} example(s), fewer than the {min_batch_size} that "
                "each batch needs (one per rank)"
            )
        order = _mix(members, examples, batch_bins, repeats or {}, rng)
        # A rank takes every n-th utterance: neighbours are alike, so that each rank gets
        # every bandwidth and task (BatchNorm's statistics are those of one rank).
        alike = examples.tasks.astype(np.int64) * len(examples.band_names) + examples.bands
        for chunk in _chunks(order, examples.lengths, batch_bins, min_batch_size):
            if len(chunk) < min_batch_size:
                raise DataError(
                    f"task {task}: a batch of {len(chunk)} for {min_batch_size} ranks, since an "
                    f"example may not come twice in one (utterance {examples.ids[chunk[0]]}): too "
                    "few examples to repeat so often; lower the route temperature"
                )
            samples = len(chunk) * int(examples.lengths[chunk].max())
            dealt = np.asarray(chunk)[np.argsort(alike[chunk], kind="stable")]
            yield Planned(task, samples, dealt.tolist())


def _mix(
    members: np.ndarray,
    examples: Examples,
    batch_bins: int,
    repeats: Mapping[Route, float],
    rng: np.random.Generator,
) -> np.ndarray:
    """Order by length; with several routes, by the rank that the length has within its route."""
    members = members[np.argsort(examples.lengths[members], kind="stable")]
    bands = len(examples.band_names)
    routes = examples.bands[members].astype(np.int64)
    if bands > 1 or repeats:  # by length alone otherwise
        routes += examples.tasks[members].astype(np.int64) * bands
    found, sizes = np.unique(routes, return_counts=True)
    factors = []
    for code in found.tolist():
        place = int(members[routes == code][0])
        route = (examples.task_names[examples.tasks[place]], examples.band_names[code % bands])
        factors.append(repeats.get(route, 1.0))
    weights = np.array(factors) * sizes
    ordered, ranks, codes = [], [], []
    for code, factor, share in zip(found, factors, weights / weights.sum(), strict=True):
        route_members = members[routes == code]
        if factor > 1.0:
            route_members = _repeat(
                route_members, examples.lengths, factor, share * batch_bins, rng
            )
        ordered.append(route_members)
        ranks.append((np.arange(len(route_members)) + 0.5) / len(route_members))
        codes.append(np.full(len(route_members), code))
    where = np.lexsort((np.concatenate(codes), np.concatenate(ranks)))
    return np.concatenate(ordered)[where]


def _repeat(
    members: np.ndarray, lengths: np.ndarray, factor: float, bins: float, rng: np.random.Generator
) -> np.ndarray:
    """Repeat examples so that copies of one lie further apart than a batch reaches.

    Each stretch of neighbours (in length) at least twice as many as a batch can hold of the
    route is gone through several times over; every example floor or ceil of `factor` times.

    Args:
        members: Positions, sorted by length.
        lengths: Samples of every example.
        factor: Repetitions wanted.
        bins: The route's part of a batch's padded audio, samples.
        rng: Chooses the examples that come once more than the others.
    """
    base, extra = divmod(round(len(members) * factor), len(members))
    counts = np.full(len(members), base)
    counts[rng.permutation(len(members))[:extra]] += 1
    parts, start = [], 0
    while start < len(members):
        stretch = 2 * int(bins / max(1, lengths[members[start]])) + 4
        end = start + stretch
        if len(members) - end < stretch:
            end = len(members)
        size, count = end - start, counts[start:end]
        which = np.repeat(np.arange(size), count)
        nth = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
        place = (nth + (which + 0.5) / size) / count[which]
        parts.append(members[start:end][which[np.argsort(place, kind="stable")]])
        start = end
    return np.concatenate(parts)


def _chunks(
    order: np.ndarray, lengths: np.ndarray, batch_bins: int, min_batch_size: int
) -> Iterator[list[int]]:
    """Cut an order into batches; no example comes twice in one."""
    held: list[list[int]] = []  # the last two
    for chunk in _greedy(order, lengths, batch_bins):
        held.append(chunk)
        if len(held) > 2:
            yield held.pop(0)
    if len(held) == 2 and len(held[1]) < len(held[0]):
        held = _halve(*held, lengths=lengths, batch_bins=batch_bins, smallest=min_batch_size)
    yield from held


def _greedy(order: np.ndarray, lengths: np.ndarray, batch_bins: int) -> Iterator[list[int]]:
    chunk: list[int] = []
    inside: set[int] = set()
    longest = 0
    for place, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        longest = max(longest, length)
        if chunk and ((len(chunk) + 1) * longest > batch_bins or place in inside):
            yield chunk
            chunk, inside, longest = [], set(), length
        chunk.append(place)
        inside.add(place)
    yield chunk


def _halve(
    first: list[int], last: list[int], *, lengths: np.ndarray, batch_bins: int, smallest: int
) -> list[list[int]]:
    """Share the last two batches out evenly: the rest would be small; BatchNorm wants no such."""
    both = first + last
    room = batch_bins // int(lengths[both].max())
    if len(set(both)) == len(both):
        cut = len(both) - min((len(both) + 1) // 2, room)
        # one batch, a little over batch_bins, where two would not do for the ranks
        return [both] if cut < smallest else [both[:cut], both[cut:]]
    there = set(last)
    movable = [place for place in reversed(first) if place not in there]
    moved = movable[: max(0, min((len(first) - len(last)) // 2, room - len(last)))]
    return [[place for place in first if place not in set(moved)], moved[::-1] + last]
