"""``study/results/<corpus>/<system>_seed<k>.json``: written once, read by the analysis.

A file holds what a run is (`study_places.identity`, commit), on which data, what it cost, and per
utterance the counts behind its figures (`study_collect`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from espnet_smoe.bandwidth import BANDWIDTHS
from espnet_smoe.datadir import DataError, write_text
from espnet_smoe.paired import Runs

ALL = "all"  # the bandwidths together
PATTERN = "*_seed*.json"
KEYS = "format name system seed commit config updates seconds parameters sets train tests"
# Equal for the runs of a corpus, or their figures are not of the same task.
SHARED = ("args", "corpus", "inference", "updates")


@dataclass(frozen=True)
class Cell:
    """What one figure is of."""

    test_set: str
    task: str
    bandwidth: str
    metric: str


@dataclass(frozen=True)
class Result:
    """A finished run, as its file has it."""

    path: Path
    content: Mapping[str, Any]

    @property
    def corpus(self) -> str:
        """Its name in the study."""
        return self.path.parent.name

    @property
    def system(self) -> str:
        return str(self.content["system"])

    @property
    def seed(self) -> int:
        return int(self.content["seed"])

    @cached_property
    def counts(self) -> dict[Cell, tuple[tuple[str, ...], np.ndarray]]:
        """Sentence ids and counts (U, S) of each cell; with both bandwidths, also of ``all``."""
        found: dict[Cell, tuple[tuple[str, ...], np.ndarray]] = {}
        for test_set, entry in self.content["sets"].items():
            for part in entry["cells"]:
                index = part["index"]
                utts = entry["utts"] if index is None else [entry["utts"][i] for i in index]
                for metric, columns in part["counts"].items():
                    cell = Cell(test_set, part["task"], part["bandwidth"], metric)
                    found[cell] = (tuple(utts), np.array(columns, dtype=np.float64).T)
        for cell in [c for c in found if c.bandwidth == BANDWIDTHS[0]]:
            parts = [
                found[other]
                for bandwidth in BANDWIDTHS
                if (other := Cell(cell.test_set, cell.task, bandwidth, cell.metric)) in found
            ]
            if len(parts) > 1:
                found[Cell(cell.test_set, cell.task, ALL, cell.metric)] = together(parts)
        return found


def together(
    parts: Sequence[tuple[tuple[str, ...], np.ndarray]],
) -> tuple[tuple[str, ...], np.ndarray]:
    """The bandwidths' counts added up per sentence, whose copies are drawn together."""
    utts = sorted({utt for some, _ in parts for utt in some})
    place = {utt: number for number, utt in enumerate(utts)}
    total = np.zeros((len(utts), parts[0][1].shape[1]))
    for some, counts in parts:
        total[[place[utt] for utt in some]] += counts
    return tuple(utts), total


def write_result(path: Path, content: Mapping[str, Any]) -> None:
    """Write a result, a line per key; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        f'"{key}": {json.dumps(value, ensure_ascii=False, separators=(",", ":"))}'
        for key, value in content.items()
    ]
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def read_json(path: Path) -> Any:
    """A JSON file's content.

    Raises:
        DataError: It is none.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {error}; remove it to run it again") from error


def read_result(path: Path) -> Result:
    """Read a run's file.

    Raises:
        DataError: It is not one, or its name says another system and seed.
    """
    content = read_json(path)
    missing = [key for key in KEYS.split() if not isinstance(content, dict) or key not in content]
    if missing:
        raise DataError(f"{path}: not a run's result: it has no {', '.join(missing)}")
    result = Result(path, content)
    if path.stem != f"{result.system}_seed{result.seed}":
        raise DataError(f"{path}: holds {result.system}_seed{result.seed}, not what it is named")
    return result


def result_files(directory: Path) -> Iterator[Path]:
    """The runs' files under ``study/results``, in order."""
    yield from sorted(directory.glob(f"*/{PATTERN}"))


def read_results(directory: Path) -> list[Result]:
    """Read all runs' files.

    Raises:
        DataError: There is none, one is not a result, or runs of a corpus cannot be compared.
    """
    results = [read_result(path) for path in result_files(directory)]
    if not results:
        raise DataError(f"{directory}: no */{PATTERN}; run local/study.sh first")
    for corpus in dict.fromkeys(result.corpus for result in results):
        require_comparable([result for result in results if result.corpus == corpus])
    results.sort(key=lambda r: (r.corpus, r.system, r.seed))
    return results


def require_comparable(results: Sequence[Result]) -> None:
    """Check that the runs of a corpus are of the same data and as many updates.

    Raises:
        DataError: Names two files, what differs, and both values.
    """
    first = next((r for r in results if not r.content.get("data")), results[0])
    configs = {result.system: result for result in reversed(results)}
    for result in results:
        pairs = [
            (name, first, first.content.get(name), result.content.get(name)) for name in SHARED
        ]
        for name, test in result.content["tests"].items():
            pairs.append((f"test set {name}", first, first.content["tests"].get(name, test), test))
        twin = configs[result.system]
        mine, its = ({**r.content["config"], "seed": None} for r in (result, twin))
        pairs.append(("config", twin, its, mine))
        if not (first.content.get("data") or result.content.get("data")):
            pairs.append(("training set", first, first.content["train"], result.content["train"]))
        for name, other, theirs, own in pairs:
            if own != theirs:
                raise DataError(
                    f"{other.path} and {result.path} differ in {name}: {theirs!r} / {own!r}; "
                    "runs of a corpus are compared on the same data after as many updates"
                )


def cells_of(results: Sequence[Result]) -> dict[Cell, dict[str, Runs]]:
    """The runs of a corpus by cell and system, utterances in the same order.

    Raises:
        DataError: Two runs have other utterances in a cell.
    """
    ids: dict[Cell, tuple[tuple[str, ...], Path]] = {}
    counts: dict[Cell, dict[str, dict[int, np.ndarray]]] = {}
    for result in results:
        for cell, (utts, rows) in result.counts.items():
            known, path = ids.setdefault(cell, (utts, result.path))
            if utts != known:
                raise DataError(f"{path} and {result.path} have other utterances in {cell}")
            counts.setdefault(cell, {}).setdefault(result.system, {})[result.seed] = rows
    return {
        cell: {system: Runs(cell.metric, seeds) for system, seeds in systems.items()}
        for cell, systems in counts.items()
    }
