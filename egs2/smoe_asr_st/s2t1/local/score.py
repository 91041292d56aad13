#!/usr/bin/env python3
"""Stage 13: score every decoded test set, task and bandwidth.

Reads   <raw>/<set>/{text,text.<task>[.refN],utt2bw}
        <decode_dir>/<set>/<task>/{text,utt2route}
Writes  <decode_dir>/{results.json,RESULTS.md,worst.md,score_matrix.png,training_curves.png}
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from espnet_smoe import plots, scoring
from espnet_smoe.bandwidth import BANDWIDTHS
from espnet_smoe.datadir import SHOWN, DataError, read_table, require_same_keys, write_text

NOT_A_TASK = ("prev", "ctc")  # text.prev and text.ctc are inputs of training
N_WORST = 5
WIDE = 116  # terminal columns that the score table needs on one line a row
TITLES = {"wer": "WER", "cer": "CER", "bleu": "BLEU", "chrf": "chrF", "accuracy": "accuracy"}


@dataclass(frozen=True)
class Decoded:
    """References and hypotheses of one task; keys are ``<set>/<utterance>``."""

    references: dict[str, tuple[str, ...]]
    hypotheses: dict[str, str]
    utt2bw: dict[str, str]
    utt2route: dict[str, str] | None  # None: a model without routes was decoded

    def select(self, bandwidth: str) -> Decoded:
        """The utterances of one bandwidth; ``all`` for all of them."""
        keep = [key for key, bw in self.utt2bw.items() if bandwidth in (bw, "all")]
        return Decoded(
            {key: self.references[key] for key in keep},
            {key: self.hypotheses[key] for key in keep},
            {key: self.utt2bw[key] for key in keep},
            None if self.utt2route is None else {key: self.utt2route[key] for key in keep},
        )


@dataclass(frozen=True)
class Cell:
    """One row of the table: a test set, task and bandwidth."""

    data: Decoded
    scores: list[scoring.Score]  # one per metric
    mismatches: int | None

    @property
    def name(self) -> tuple[str, str, str]:
        first = self.scores[0]
        return first.test_set, first.task, first.bandwidth


def find_sets(raw: Path, decode_dir: Path, name: str) -> list[str]:
    """The directories of a test set: itself, or its ``_wb`` and ``_nb`` copies."""
    pair = [f"{name}_{bw}" for bw in BANDWIDTHS]
    single, paired = (raw / name).is_dir(), [s for s in pair if (raw / s).is_dir()]
    if single and paired:  # an earlier run left the other kind: take what was decoded
        decoded = (decode_dir / name).is_dir(), any((decode_dir / s).is_dir() for s in pair)
        if decoded[0] == decoded[1]:
            raise DataError(
                f"{raw} holds {name} and {', '.join(paired)}: name the ones to score in --test_sets"
            )
        single, paired = decoded[0], paired if decoded[1] else []
    if single:
        return [name]
    if not paired:
        raise DataError(f"{raw} holds neither {name} nor {' and '.join(pair)}; run stages 1 to 4")
    if len(paired) == 1:
        missing = (set(pair) - set(paired)).pop()
        raise DataError(
            f"{raw} holds {paired[0]} but no {missing}; name {paired[0]} in --test_sets"
        )
    return pair


def reference_files(directory: Path) -> dict[str, list[Path]]:
    """``{task: [first references, second references, ...]}`` of a test set's directory."""
    files: dict[str, list[Path]] = {}
    if (directory / "text").is_file():
        files["asr"] = [directory / "text"]
    for path in sorted(directory.glob("text.*")):
        task = path.name.removeprefix("text.")
        if "." in task or task in NOT_A_TASK:
            continue
        more = [p for p in directory.glob(f"{path.name}.ref*") if re.search(r"\.ref\d+$", p.name)]
        files[task] = [path, *sorted(more, key=lambda p: int(p.name.rpartition(".ref")[2]))]
    return files


def read_decoded(
    raw: Path, decode_dir: Path, sets: list[str], task: str, notes: list[str]
) -> Decoded:
    """Read one task of a test set's directories and check that everything fits.

    Raises:
        DataError: A table is missing or broken, an utterance lacks its hypothesis, bandwidth
            or route, or a hypothesis belongs to no utterance. Names utterances and files.
    """
    merged = Decoded({}, {}, {}, {})
    routed = True
    for name in sets:
        directory, decoded = raw / name, decode_dir / name / task
        tables = [read_table(path) for path in reference_files(directory)[task]]
        for number, table in enumerate(tables[1:], 2):
            require_same_keys(tables[0], table, names=(f"text.{task}", f"text.{task}.ref{number}"))
        utt2bw = read_table(directory / "utt2bw")
        for utt, bandwidth in utt2bw.items():
            if bandwidth not in BANDWIDTHS:
                raise DataError(
                    f"{directory / 'utt2bw'}: utterance {utt!r} has bandwidth {bandwidth!r} "
                    f"(accepted: {', '.join(BANDWIDTHS)})"
                )
        hypotheses = read_table(decoded / "text", allow_empty=True)
        unknown = sorted(set(hypotheses) - set(utt2bw))
        if unknown:
            raise DataError(
                f"{decoded / 'text'} has {len(unknown)} utterance(s) that {directory / 'utt2bw'} "
                f"lacks: {', '.join(unknown[:SHOWN])}"
            )
        wanted = {utt: tuple(table[utt] for table in tables) for utt in tables[0]}
        tables_at = {decoded / "text": hypotheses, directory / "utt2bw": utt2bw}
        if (decoded / "utt2route").is_file():
            tables_at[decoded / "utt2route"] = read_table(decoded / "utt2route")
        else:
            routed = False
            notes.append(f"{name} {task}: no utt2route, so route mismatches are not counted")
        for path, table in tables_at.items():
            covered = {utt: table[utt] for utt in wanted if utt in table}
            require_same_keys(wanted, covered, names=(f"the {task} references", str(path)))
        if len(hypotheses) > len(wanted):
            more = len(hypotheses) - len(wanted)
            notes.append(f"{name} {task}: {more} decoded utterance(s) have no reference")
        merged.references.update({f"{name}/{utt}": texts for utt, texts in wanted.items()})
        for target, table in zip(
            (merged.hypotheses, merged.utt2bw, merged.utt2route), tables_at.values(), strict=False
        ):
            assert target is not None
            target.update({f"{name}/{utt}": table[utt] for utt in wanted})
    return merged if routed else replace(merged, utt2route=None)


def tasks_of(
    raw: Path, decode_dir: Path, sets: list[str], asked: Sequence[str], notes: list[str]
) -> list[str]:
    """The tasks to score: those asked for, or every decoded task. asr comes first."""
    known = sorted(set.intersection(*(set(reference_files(raw / name)) for name in sets)))
    decoded = {path.parent.name for name in sets for path in (decode_dir / name).glob("*/text")}
    tasks = list(asked) or sorted(decoded, key=lambda task: (task != "asr", task))
    for task in tasks:
        if task not in known:
            raise DataError(
                f"task {task!r} has no references in {raw / sets[0]} (known: {', '.join(known)})"
            )
    if not tasks:
        raise DataError(f"{decode_dir / sets[0]}/<task>/text: nothing is decoded; run stage 12")
    notes += [
        f"{'+'.join(sets)}: task {task} has references but was not decoded"
        for task in known
        if task not in decoded and task not in tasks
    ]
    return tasks


def score_cell(data: Decoded, test_set: str, task: str, bandwidth: str, args: Any) -> Cell:
    """Score one cell with every metric of its task."""
    selected = data.select(bandwidth)
    # The narrowband and the wideband copy of a sentence are drawn together.
    groups = {key: key.partition("/")[2] for key in selected.references}
    scores = [
        scoring.score(
            selected.references,
            selected.hypotheses,
            metric,
            normalisation=args.text_normalisation,
            groups=groups,
            seed=args.seed,
            test_set=test_set,
            task=task,
            bandwidth=bandwidth,
            model=args.model,
            commit=args.commit,
        )
        for metric in scoring.metrics_for(task)
    ]
    mismatches = None
    if selected.utt2route is not None:
        mismatches = scoring.count_route_mismatches(selected.utt2route, selected.utt2bw)
    return Cell(selected, scores, mismatches)


def score_test_set(name: str, args: Any, notes: list[str]) -> list[Cell]:
    """Score a test set: every task, and within it wb, nb and (if both exist) all."""
    sets = find_sets(args.raw, args.decode_dir, name)
    cells = []
    for task in tasks_of(args.raw, args.decode_dir, sets, args.tasks, notes):
        data = read_decoded(args.raw, args.decode_dir, sets, task, notes)
        present = [bw for bw in BANDWIDTHS if bw in data.utt2bw.values()]
        for bandwidth in present + (["all"] if len(present) > 1 else []):
            cells.append(score_cell(data, name, task, bandwidth, args))
    return cells


def table_rows(cells: list[Cell]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the score table, for the terminal and for RESULTS.md."""
    by_task = list(dict.fromkeys(scoring.metrics_for(cell.name[1]) for cell in cells))
    columns = list(itertools.zip_longest(*by_task))  # (wer, bleu), (cer, chrf)
    header = [" / ".join(TITLES[m] for m in column if m) for column in columns]
    rows = []
    for cell in cells:
        figures = [figure(score) for score in cell.scores] + ["-"] * len(columns)
        counts = [str(cell.scores[0].n_utts), str(cell.scores[0].n_ref_words)]
        mismatches = "-" if cell.mismatches is None else str(cell.mismatches)
        rows.append([*cell.name, *figures[: len(columns)], *counts, mismatches])
    return ["test set", "task", "band", *header, "utts", "words", "route mismatches"], rows


def figure(score: scoring.Score) -> str:
    """E.g. ``WER 3.10 % [2.50, 3.80]``."""
    unit = "" if score.metric in ("bleu", "chrf") else " %"
    low, high = score.ci95
    return f"{TITLES[score.metric]} {score.value:.2f}{unit} [{low:.2f}, {high:.2f}]"


def definitions(cells: list[Cell], args: Any) -> list[str]:
    """What the figures mean: intervals, text normalisation, signatures."""
    lines = [
        f"[low, high]: 95 % bootstrap interval over utterances ({scoring.RESAMPLES} resamples, "
        f"seed {args.seed}); in 'all', the copies of one sentence are drawn together",
        f"text normalisation (hypothesis and reference): {args.text_normalisation} = "
        f"{scoring.NORMALISATIONS[args.text_normalisation][1]}",
    ]
    seen = {(s.metric, max(map(len, c.data.references.values()))) for c in cells for s in c.scores}
    order = sorted(seen, key=lambda pair: (scoring.METRICS.index(pair[0]), pair[1]))
    return lines + [scoring.signature(metric, n_refs) for metric, n_refs in order]


def print_table(cells: list[Cell], args: Any, notes: list[str]) -> None:
    """Print the score table; a narrow terminal gets the intervals on lines of their own."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:  # a log file has no width to respect
        console = Console(width=160)
    narrow = console.width < WIDE
    header, rows = table_rows(cells)
    table = Table(title=f"Scores of {args.decode_dir}", box=box.SIMPLE_HEAD, collapse_padding=True)
    for name in header:
        table.add_column(name, justify="right" if name in header[-3:] else "left")
    for previous, row in zip([rows[0], *rows], rows, strict=False):
        if previous[:2] != row[:2]:
            table.add_section()
        table.add_row(*(text.replace(" [", "\n[") if narrow else text for text in row))
    console.print(table)
    for line in [*definitions(cells, args), *notes]:
        console.print(line, markup=False, highlight=False)


def results_markdown(cells: list[Cell], args: Any, notes: list[str]) -> str:
    """RESULTS.md: the table with everything needed to read and to repeat it."""
    header, rows = table_rows(cells)
    lines = ["# Results", "", f"- model: `{args.model}`", f"- commit: `{args.commit}`"]
    lines += [f"- decoded: `{args.decode_dir}`", f"- command: `{args.command}`", ""]
    lines += [f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows]]
    lines += ["", *(f"- {line}" for line in [*definitions(cells, args), *notes])]
    lines += ["", "![scores](score_matrix.png)"]
    if (args.decode_dir / "training_curves.png").is_file():
        lines += ["", "![training curves](training_curves.png)"]
    return "\n".join([*lines, "", "The worst utterances: [worst.md](worst.md)", ""])


def worst_utterances(cell: Cell, normalisation: str) -> list[str]:
    """The worst imperfect utterances of a cell, each with its alignment.

    ASR ranks by word errors, translation by the utterance's own chrF (its BLEU is mostly 0).
    """
    import jiwer

    edits = cell.scores[0].metric == "wer"
    metric = "wer" if edits else "chrf"
    utts, refs, hyps = scoring.prepared(cell.data.references, cell.data.hypotheses, normalisation)
    counts = scoring.utterance_counts(metric, refs, hyps)
    own = scoring.corpus_value(metric, counts)
    lines = []
    for i in np.argsort(-counts[:, 0] if edits else own, kind="stable")[:N_WORST]:
        if hyps[i] in refs[i]:
            continue
        shown = [*(f"REF: {text}" for text in refs[i]), f"HYP: {hyps[i]}"]
        if edits:
            output = jiwer.process_words(refs[i][0], hyps[i])
            aligned = jiwer.visualize_alignment(output, show_measures=False)
            shown = aligned.strip("\n").splitlines()[2:]
        lines += [f"`{utts[i]}`: {metric} {own[i]:.1f}", "", "```text", *shown, "```", ""]
    return lines or ["No errors.", ""]


def worst_markdown(cells: list[Cell], normalisation: str) -> str:
    """worst.md: the worst utterances of each test set, task and bandwidth."""
    lines = ["# Worst utterances", ""]
    for cell in (cell for cell in cells if cell.name[2] in BANDWIDTHS):
        lines += [f"## {' / '.join(cell.name)}", "", *worst_utterances(cell, normalisation)]
    return "\n".join(lines)


def git_commit() -> str:
    """The commit of the recipe, ``-dirty`` if tracked files changed; ``unknown`` without git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run([*command, "--exclude=*"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Stage 13: score every decoded test set.")
    parser.add_argument("--decode_dir", type=Path, required=True, help="stage 12's output")
    parser.add_argument("--raw", type=Path, default=Path("dump/s2t"), help="stage 4's output")
    parser.add_argument("--test_sets", required=True, help="names, separated by spaces")
    parser.add_argument("--tasks", default="", help="e.g. 'asr st_eng'; default: all decoded")
    parser.add_argument("--expdir", type=Path, required=True, help="its train.log gives the curves")
    parser.add_argument("--model", default="", help="how the results name it; default: expdir")
    parser.add_argument("--commit", default="auto", help="auto: ask git")
    parser.add_argument("--command", default="", help="shown in RESULTS.md; default: this one")
    parser.add_argument(
        "--text_normalisation",
        default="nfc_ws",
        choices=sorted(scoring.NORMALISATIONS),
        help="applied to hypothesis and reference",
    )
    parser.add_argument("--seed", type=int, default=scoring.SEED, help="of the bootstrap")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    given = list(sys.argv[1:] if argv is None else argv)
    args = get_parser().parse_args(given)
    args.tasks = args.tasks.split()
    args.model = args.model or str(args.expdir)
    args.commit = git_commit() if args.commit == "auto" else args.commit
    args.command = args.command or shlex.join(["python", "local/score.py", *given])
    test_sets = args.test_sets.split()
    if not test_sets:
        raise DataError("--test_sets names no test set")
    notes: list[str] = []
    cells = [cell for name in test_sets for cell in score_test_set(name, args, notes)]
    scores = [score for cell in cells for score in cell.scores]

    out: Path = args.decode_dir
    plots.plot_score_matrix(scores, out / "score_matrix.png", title=args.model)
    curves_png = out / "training_curves.png"
    try:
        curves = plots.read_training_logs(args.expdir)
        plots.plot_training_curves(curves, curves_png, title=args.model)
    except DataError as error:
        curves_png.unlink(missing_ok=True)
        notes.append(f"no training curves: {error}")
    write_text(out / "worst.md", worst_markdown(cells, args.text_normalisation))
    write_text(out / "RESULTS.md", results_markdown(cells, args, notes))
    write_text(out / "results.json", json.dumps([s.as_dict() for s in scores], indent=2) + "\n")
    print_table(cells, args, notes)
    print(f"{out / 'RESULTS.md'}: table, {out / 'worst.md'}: the worst utterances")


if __name__ == "__main__":
    try:
        main()
    except DataError as error:
        sys.exit(f"score.py: {error}")
