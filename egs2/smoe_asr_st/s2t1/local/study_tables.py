"""The tables of STUDY.md, as Markdown lines."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from study_analysis import BETTER, NEITHER, WORSE, PowerRow, Row
from study_results import ALL, Result

from espnet_smoe.paired import Estimate

TITLES = {"wer": "WER", "cer": "CER", "bleu": "BLEU", "chrf": "chrF", "accuracy": "accuracy"}
POINTS = frozenset({"bleu", "chrf"})  # not percent
# arXiv:2508.10009: system, task, bandwidth, metric, relative change in percent.
PAPER = (
    ("dec_smoe", "asr", ALL, "wer", -8.06),
    ("dec_smoe", "st", ALL, "bleu", +1.77),
    ("encdec_smoe", "asr", "nb", "wer", -6.35),
    ("encdec_smoe", "asr", "wb", "wer", -2.39),
)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table and the empty line behind it."""
    aligned = ["---:" if name in RIGHT else "---" for name in header]
    return [f"| {' | '.join(row)} |" for row in (header, aligned, *rows)] + [""]


RIGHT = frozenset({"examples", "hours", "updates", "utterances", "runs", "words", "p", "Holm p"})


def bracket(estimate: Estimate, digits: int = 2, sign: str = "") -> str:
    """``value [low, high]``."""
    value, low, high = (
        f"{x:{sign}.{digits}f}" for x in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value} [{low}, {high}]"


def probability(p: float | None) -> str:
    """A p-value, rounded to where it means something."""
    if p is None:
        return ""
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}" if p < 0.01 else f"{p:.3f}"


def run_table(corpora: Mapping[str, Sequence[Result]]) -> list[str]:
    """What was run: a row per corpus, then one per system."""
    rows, systems = [], []
    for corpus, results in corpora.items():
        plain = next((r for r in results if not r.content.get("data")), results[0]).content
        tests = ", ".join(f"{n} ({t['utterances']})" for n, t in plain["tests"].items())
        commits = ", ".join(sorted({str(r.content["commit"]) for r in results}))
        train = plain["train"]
        options = f"`{shlex.join(['--corpus', plain['corpus'], *plain['args']])}`"
        rows.append(
            [corpus, options, str(train["examples"]), str(train["hours"]), tests]
            + [str(plain["updates"]), str(len(results)), commits]
        )
        for system in dict.fromkeys(r.system for r in results):
            own = [r for r in results if r.system == system]
            data = own[0].content.get("data") or {}
            change = "; ".join(f"{k}: {plain_value(v)}" for k, v in data.items())
            seeds = ", ".join(str(r.seed) for r in own)
            systems.append([corpus, system, seeds, change, f"`{own[0].content['s2t_args']}`"])
    header = ["corpus", "data", "examples", "hours", "test sets (utterances)"]
    lines = table([*header, "updates", "runs", "commit"], rows)
    bare = all(row[4] == "``" for row in systems)
    header = ["corpus", "system", "seeds", "changed data", "further options of training"]
    return lines + table(header[:4] if bare else header, (r[:4] if bare else r for r in systems))


def plain_value(value: Any) -> str:
    """A list or mapping in words."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {share:g}" for key, share in value.items())
    return ", ".join(map(str, value))


def planned_table(plans: Sequence[Mapping[str, Any]]) -> list[str]:
    """The power calculation from before training."""
    seeds = sorted({int(k) for plan in plans for row in plan["rows"] for k in row["smallest"]})
    rows = [
        [plan["name"], row["set"], row["task"], row["bandwidth"]]
        + [f"{TITLES[row['metric']]} {row['rate']:g}", str(row["utterances"]), str(row["words"])]
        + [f"{row['smallest'][str(k)]:+.1f} %" if str(k) in row["smallest"] else "" for k in seeds]
        for plan in plans
        for row in plan["rows"]
    ]
    header = ["corpus", "test set", "task", "band", "assumed", "utterances", "words"]
    return table([*header, *map(seed_word, seeds)], rows)


def power_table(rows: Sequence[PowerRow]) -> list[str]:
    """The power calculation from the runs."""
    seeds = list(rows[0].smallest)
    lines = [
        [row.corpus, *cell_words(row), str(row.utterances)]
        + [
            f"{100 * math.sqrt(part):.1f} %"
            for part in (row.variance.seeds, row.variance.utterances)
        ]
        + ["> 100 %" if abs(row.smallest[k]) > 100 else f"{row.smallest[k]:+.1f} %" for k in seeds]
        + [row.variance.source]
        for row in rows
    ]
    header = ["corpus", "task", "test set", "band", "utterances", "sd, seeds", "sd, utterances"]
    return table([*header, *map(seed_word, seeds), "from"], lines)


def seed_word(count: int) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{count} seed{'' if count == 1 else 's'}"


def cell_words(row: Row | PowerRow) -> list[str]:
    """Task, test set and band."""
    return [row.cell.task, row.cell.test_set, row.cell.bandwidth]


def result_table(rows: Sequence[Row]) -> list[str]:
    """Means, changes against Base and verdicts of one corpus's primary metrics."""
    lines = []
    for row in rows:
        unit = "" if row.cell.metric in POINTS else " %"
        figure = f"{TITLES[row.cell.metric]} {bracket(row.mean)}{unit}"
        seeds = ", ".join(f"{value:.2f}" for value in row.values)
        words = [*cell_words(row), row.system, figure, seeds]
        if row.change is None:
            lines.append([*words, *[""] * 6])
            continue
        change = row.change
        relative = f"{bracket(change.relative, 1, '+')} %" if change.relative else "-"
        low, high = change.bootstrap
        own = f"[{low:+.1f}, {high:+.1f}]" if change.relative else f"[{low:+.2f}, {high:+.2f}]"
        lines.append(
            [*words, bracket(change.absolute, 2, "+"), relative + row.dagger, own]
            + [probability(change.change.p), probability(row.corrected_p), row.verdict + row.dagger]
        )
    header = ["task", "test set", "band", "system", "mean [95 %]", "seeds"]
    header += ["change [95 %]", "relative change [95 %]", "bootstrap", "p", "Holm p", "verdict"]
    return table(header, lines)


def seed_table(rows: Sequence[Row]) -> list[str]:
    """Each seed's change, and the interval from this pair's seeds alone; nothing without a pair."""
    lines = []
    for row in rows:
        if row.change is None:
            continue
        unit = " %" if row.change.relative else ""
        changes = zip(row.change.seeds, row.change.per_seed, strict=True)
        each = ", ".join(f"{seed}: {value:+.1f}{unit}" for seed, value in changes)
        own = row.change.own
        alone = f"{bracket(own, 1, '+')}{unit}, p {probability(own.p)}" if own else "-"
        share = row.change.change.seed_share
        part = "" if math.isnan(share) else f"{100 * share:.0f} %"
        lines.append(
            [*cell_words(row), row.system, each, alone, part, f"{row.change.change.df:.0f}"]
        )
    header = ["task", "test set", "band", "system", "change by seed", "own seeds' variance only"]
    if not lines:
        return []
    header += ["seeds' share of variance", "df"]
    return ["Change by seed:", "", *table(header, lines)]


def secondary_table(rows: Sequence[Row]) -> list[str]:
    """The other metrics: no verdict, they are not among the comparisons."""
    lines = []
    for row in rows:
        unit = "" if row.cell.metric in POINTS else " %"
        relative = row.change.relative if row.change else None
        changed = f"{bracket(relative, 1, '+')} %" if relative else ""
        words = [
            *cell_words(row),
            row.system,
            f"{TITLES[row.cell.metric]} {bracket(row.mean)}{unit}",
        ]
        lines.append([*words, changed])
    header = ["task", "test set", "band", "system", "mean [95 %]", "relative change [95 %]"]
    return table(header, lines) if lines else []


def verdicts(rows: Sequence[Row], base: str) -> str:
    """How many comparisons came out how."""
    words = [row.verdict for row in rows if row.change is not None]
    if not words:
        return f"There is nothing to compare with {base}."
    better, worse = (sum(word.startswith(kind) for word in words) for kind in (BETTER, WORSE))
    held = [sum(word == kind for word in words) for kind in (BETTER, WORSE)]
    return (
        f"{len(words)} comparisons with {base}: {better} better, {worse} worse, "
        f"{words.count(NEITHER)} with no significant difference, by their 95 % intervals; after "
        f"Holm's correction for {len(words)} comparisons {held[0]} better and {held[1]} worse."
    )


def paper_table(rows: Mapping[str, Sequence[Row]]) -> list[str]:
    """The paper's four relative improvements beside ours."""
    lines = []
    for system, task, bandwidth, metric, value in PAPER:
        label = {"dec_smoe": "DecS-MoE", "encdec_smoe": "EncDecS-MoE"}[system]
        band = {"nb": "NB", "wb": "WB", ALL: "NB and WB"}[bandwidth]
        cells = []
        for found in rows.values():
            ours = [
                f"{bracket(row.change.relative, 1, '+')} %: {row.verdict}"
                for row in found
                if row.system == system
                and row.cell.task.split("_")[0] == task
                and row.cell.bandwidth == bandwidth
                and row.cell.metric == metric
                and row.change
                and row.change.relative
            ]
            cells.append("; ".join(ours) or "not run")
        lines.append([label, TITLES[metric], band, f"{value:+.2f} %", *cells])
    return table(["system", "metric", "band", "paper", *(f"{name} [95 %]" for name in rows)], lines)
