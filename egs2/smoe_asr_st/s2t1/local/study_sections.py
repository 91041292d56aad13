"""How the study's experiments are told: figures of one or several seeds, tables, closing lines."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TITLES = {"wer": "WER", "cer": "CER", "bleu": "BLEU", "chrf": "chrF", "accuracy": "accuracy"}
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def by_model(results: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Results by model; those of several seeds stand together."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        groups.setdefault(str(result.get("name") or result["model"]), []).append(result)
    return groups


@dataclass(frozen=True)
class Figure:
    """A figure with an interval: of one seed, or the mean of several and their widest interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, seeds: Sequence[tuple[float, Sequence[float]]]) -> Figure:
        """From (value, (low, high)) of each seed: the mean, and the hull of the intervals."""
        return cls(
            sum(value for value, _ in seeds) / len(seeds),
            min(ci[0] for _, ci in seeds),
            max(ci[1] for _, ci in seeds),
        )

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0.0 or self.high < 0.0

    def signed(self, digits: int = 2) -> str:
        """For a difference."""
        return f"{self.value:+.{digits}f} [{self.low:+.{digits}f}, {self.high:+.{digits}f}]"

    def plain(self, digits: int = 2) -> str:
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def proportion(count: int, n: int) -> dict[str, Any]:
    """A share with its 95 % Wilson interval."""
    from scipy.stats import binomtest

    ci = binomtest(count, n).proportion_ci(method="wilson") if n else (0.0, 1.0)
    return {"count": count, "n": n, "share": count / n if n else 0.0, "ci95": [*map(float, ci)]}


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table; a column whose cells all are figures is aligned to the right."""
    rows = [list(map(str, row)) for row in rows]
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def closing(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """What stands below a table: seeds, and the commands that made the results."""
    seeds = [str(r["seed"]) for r in results if r.get("seed") is not None]
    lines = []
    if len(set(seeds)) > 1:
        lines += [
            f"Seeds {', '.join(dict.fromkeys(seeds))}: figures are means over them, intervals the "
            "widest that theirs span.",
            "",
        ]
    commands = dict.fromkeys(str(r["command"]) for r in results)
    commits = dict.fromkeys(str(r["commit"]) for r in results if r.get("commit"))
    more = f" (and {len(commands) - 1} more, of the other models and seeds)"
    lines.append(f"Command: `{next(iter(commands))}`{more if len(commands) > 1 else ''}.")
    if commits:
        lines.append(f"Commit: {', '.join(commits)}.")
    return lines


def set_label(test_set: str, bandwidth: str) -> str:
    """A test set and bandwidth; ``test_nb`` says both."""
    return test_set if test_set.endswith(f"_{bandwidth}") else f"{test_set} {bandwidth}"


def picture(path: Path, report: Path) -> str:
    """A link to a picture, from where the report stands."""
    return f"![{path.stem}]({os.path.relpath(path, report.parent)})"
