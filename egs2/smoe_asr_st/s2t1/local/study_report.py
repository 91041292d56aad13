#!/usr/bin/env python3
"""STUDY.md from the JSONs under study/results alone: nothing is trained.

Of anything else it reads only which study under conf/study has a system, for the commands.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import study_blocks_section
import study_noise_section
import study_plots
import study_scale_section
import study_summary
import study_tables as tables
from study_analysis import Row, corpora_of, power_rows, rows_of, variant_of
from study_commands import commands
from study_efficiency_section import efficiency_section
from study_experiments import experiment_sections, read_experiments
from study_plan import RESULTS
from study_results import Result, read_json, read_results
from study_sections import picture

from espnet_smoe.datadir import DataError, write_text

PLAN = "power.json"
MORE_SEEDS = (5, 10)

READING = """\
Figures are means over seeds of the corpus WER or BLEU. A change is that of a system against
`{base}` on the same utterances and seeds (a seed is the same order of the same batches for both);
relative changes are of geometric means. "all" has both copies of each sentence, narrowband and
wideband, drawn together.

Intervals are at 95 %. "change", "relative change", p and the verdict are of a paired analysis in
which seeds and utterances are crossed: what the choice of utterances does to all seeds alike is
from a paired bootstrap over utterances (1000 resamples, the same for all systems, seeds and
bandwidths), the seeds' part of the variance is pooled over the systems of the corpus, and the
quantile is Student's (`espnet_smoe/paired.py`; Obuchowski and Rockette 1995, Hillis 2007).
"bootstrap" is the percentile interval of a paired bootstrap that resamples both utterances and
seeds: with few seeds it is too narrow where seeds matter and too wide where single utterances do,
and no verdict rests on it. The table of seeds has each seed's change, and the t-interval from a
pair's own seeds without pooling. p and the verdict are of the relative change.

A variant `x.v` is compared with `x`, if that was run, else with `{base}.v`; Holm's correction is
over the systems, and over each kind of variant by itself.

A claim is about systems as far as seeds are in it. †: no seed's variance is known; the interval is
over utterances only and speaks of these trained models.
"""

POWER = """\
The smallest relative improvement that 80 % of such studies would find significant at 5 %
(two-sided, one comparison).
"""


def markdown(results: Sequence[Result], args: argparse.Namespace, plots: Path) -> str:
    """The whole of STUDY.md; writes the pictures it shows."""
    corpora = corpora_of(results)
    rows = {corpus: rows_of(found, args.base) for corpus, found in corpora.items()}
    experiments = read_experiments(args.results)
    lines = ["# Study", ""]
    lines += [
        f"Printed by `python local/study_report.py {args.results} --out {args.out}` from the "
        f"{len(results)} results there; see docs/study.md.",
        "",
        *study_summary.section(rows, experiments, args.base),
        "## How to read this",
        "",
        *READING.format(base=args.base).splitlines(),
        "",
        "## What was run",
        "",
        *tables.run_table(corpora),
        *commits(corpora),
        "## What the test sets can show",
        "",
        *POWER.splitlines(),
        "",
        *power_section(corpora, args),
        "## Results",
        "",
    ]
    for corpus in corpora:
        lines += corpus_section(corpus, rows[corpus], corpora[corpus], args, plots)
    lines += ["## The paper's improvements beside ours", ""]
    lines += ["Relative change against Base; the paper's are without intervals.", ""]
    lines += tables.paper_table(rows)
    lines += efficiency_section(corpora, args.base)
    study_plots.plot_efficiency(corpora, plots / "efficiency.png")
    lines += [picture(plots / "efficiency.png", args.out), ""]
    lines += experiment_sections(experiments, plots, args.out)
    return "\n".join(lines).rstrip() + "\n"


def commits(corpora: Mapping[str, Sequence[Result]]) -> list[str]:
    """A warning where results of several commits stand together."""
    mixed = [c for c, found in corpora.items() if len({r.content["commit"] for r in found}) > 1]
    if not mixed:
        return []
    return [f"**Results of several commits stand together: {', '.join(mixed)}.**", ""]


def power_section(corpora: Mapping[str, Sequence[Result]], args: argparse.Namespace) -> list[str]:
    """Before training, and from the runs."""
    lines: list[str] = []
    paths = [args.results / corpus / PLAN for corpus in corpora]
    plans = [read_json(path) for path in paths if path.exists()]
    if plans:
        a = plans[0]["assumptions"]
        lines += [
            "Before training, by a binomial approximation: errors vary "
            f"{a['design_effect']:g} times as much as independent words, two systems' errors "
            f"correlate by {a['correlation']:g}, seeds differ by {100 * a['seed_cv']:g} %:",
            "",
            *tables.planned_table(plans),
        ]
    rows = []
    for results in corpora.values():
        counts = {sum(r.system == s for r in results) for s in {r.system for r in results}}
        rows.append(power_rows(results, args.base, sorted({*counts, *MORE_SEEDS})))
    found = [group for group in rows if group]
    if found:
        lines += [
            "From the runs (sd: of the difference of two runs, relative; the seeds' divides by the "
            "root of their number):",
            "",
        ]
        for group in found:
            lines += tables.power_table(group)
    return lines


def corpus_section(
    corpus: str,
    rows: Sequence[Row],
    results: Sequence[Result],
    args: argparse.Namespace,
    plots: Path,
) -> list[str]:
    """The results of one corpus: its systems, then their variants."""
    whole = [row for row in rows if row.primary]
    primary = [row for row in whole if not variant_of(row.system)]
    variants = [row for row in whole if variant_of(row.system)]
    lines = [f"### {corpus}", "", tables.verdicts(primary, args.base), ""]
    lines += commands(args.results, corpus, {row.system for row in primary})
    lines += tables.result_table(primary)
    changes, seeds = plots / f"{corpus}_changes.png", plots / f"{corpus}_seeds.png"
    if study_plots.plot_changes(primary, changes, base=args.base):
        lines += [picture(changes, args.out), ""]
    study_plots.plot_seeds(primary, seeds)
    lines += [picture(seeds, args.out), "", *tables.seed_table(primary)]
    placed = study_blocks_section.placed(primary)
    lines += study_blocks_section.section(primary, args.base)
    lines += commands(args.results, corpus, {row.system for row in placed})
    blocks = plots / f"{corpus}_blocks.png"
    if study_plots.plot_changes(placed, blocks, base=args.base):
        lines += [picture(blocks, args.out), ""]
    if variants:
        lines += ["Variants, each compared with what stands in brackets:", ""]
        lines += tables.result_table([in_brackets(row) for row in variants])
        lines += study_scale_section.section(variants, results, args.base)
        numbers = study_scale_section.numbers_of(variants, args.base)
        lines += commands(args.results, corpus, systems_of(numbers))
        if study_scale_section.plot(variants, args.base, plots / f"{corpus}_tasks.png"):
            lines += [picture(plots / f"{corpus}_tasks.png", args.out), ""]
        lines += study_noise_section.section(variants)
        shares = study_noise_section.shares_of(variants)
        lines += commands(args.results, corpus, systems_of(shares))
        if study_noise_section.plot(variants, plots / f"{corpus}_labels.png"):
            lines += [picture(plots / f"{corpus}_labels.png", args.out), ""]
    others = [row for row in rows if not row.primary]
    if others:
        lines += ["Other metrics (not among the comparisons):", "", *tables.secondary_table(others)]
    return lines


def systems_of(found: Mapping[Any, Mapping[int, Row]]) -> set[str]:
    """The systems of a section's rows."""
    return {row.system for some in found.values() for row in some.values()}


def in_brackets(row: Row) -> Row:
    """A variant's row, which says what it is compared with."""
    return replace(row, system=f"{row.system} ({row.other})")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="?", default=Path(RESULTS))
    parser.add_argument("--out", type=Path, default=Path("STUDY.md"))
    parser.add_argument("--base", default="base", help="the system that others are compared with")
    args = parser.parse_args(argv)
    plots = args.results.parent / "plots"
    results = read_results(args.results)
    plots.mkdir(parents=True, exist_ok=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.out, markdown(results, args, plots))
    print(f"{args.out}: {len(results)} results")


if __name__ == "__main__":
    try:
        main()
    except DataError as error:
        sys.exit(f"study_report.py: {error}")
