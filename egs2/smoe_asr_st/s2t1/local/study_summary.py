"""The beginning of STUDY.md: every system against Base at a glance, and each question's answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import study_blocks_section
import study_noise_section
import study_scale_section
from study_analysis import NEITHER, Row, variant_of
from study_experiments import Experiments, experiment_sentences
from study_results import ALL
from study_tables import TITLES, bracket, table

LEGEND = (
    "Relative change against `{base}`, both bandwidths together, with its 95 % interval; in "
    "brackets the number of seeds that both have. An interval with 0 in it is no significant "
    "difference; *: without 0; **bold**: significant after Holm's correction as well; †: of these "
    "trained models alone, no seed's variance is known, so it is neither."
)
TRAINED_LABELS, TASKS, BLOCKS = "trained labels", "tasks", "blocks"  # parts of a corpus's results
QUESTIONS = {  # these, and experiments
    "routes": "Wrong routes",
    "labels": "Wrong and missing labels at inference",
    TRAINED_LABELS: "Wrong and missing labels in training",
    "gate": "A learned gate",
    TASKS: "More tasks",
    "gradients": "Where tasks and bandwidths interfere",
    BLOCKS: "Where the experts stand",
}
Answers = dict[tuple[str, str], Sequence[str]]  # by question and corpus


def section(rows: Mapping[str, Sequence[Row]], experiments: Experiments, base: str) -> list[str]:
    """Lines of Markdown: a table of systems by corpus and task, and a list of answers.

    Args:
        rows: By corpus, all rows.
        experiments: By experiment and corpus.
        base: The system that others are compared with.
    """
    lines = ["## In short", "", *systems_table(rows, base)]
    found = answers(rows, experiments, base)
    names = [*QUESTIONS, *sorted({name for name, _ in found if name not in QUESTIONS})]
    for name in names:
        for (question, corpus), sentences in found.items():
            if question == name and sentences:
                title = QUESTIONS.get(name, name)
                lines.append(f"- **{title}** ({corpus}). {' '.join(sentences)}")
    return lines if not lines[-1] else [*lines, ""]


def systems_table(rows: Mapping[str, Sequence[Row]], base: str) -> list[str]:
    """The changes against Base of both bandwidths together; nothing where there is none."""
    cells = {
        (row.system, column_of(row)): row
        for found in rows.values()
        for row in found
        if row.primary and row.cell.bandwidth == ALL and not variant_of(row.system)
        if row.change is not None and row.change.relative is not None
    }
    if not cells:
        return []
    columns = list(dict.fromkeys(column for _, column in cells))
    body = [
        [system, *(figure(cells.get((system, column))) for column in columns)]
        for system in sorted({system for system, _ in cells})
    ]
    return [*table(["system", *columns], body), LEGEND.format(base=base), ""]


def column_of(row: Row) -> str:
    """Corpus, test set, task and metric."""
    return f"{row.corpus} {row.cell.test_set}, {row.cell.task} {TITLES[row.cell.metric]}"


def figure(row: Row | None) -> str:
    """A change with its interval, marked where it is significant with the seeds in it."""
    if row is None or row.change is None or row.change.relative is None:
        return ""
    text = f"{bracket(row.change.relative, 1, '+')} %"
    if row.verdict.endswith("(not after Holm)") and not row.dagger:
        text += " *"
    elif row.verdict != NEITHER and not row.dagger:
        text = f"**{text}**"
    return f"{text}{row.dagger} ({len(row.change.seeds)})"


def answers(rows: Mapping[str, Sequence[Row]], experiments: Experiments, base: str) -> Answers:
    """What the parts of the report say in sentences."""
    found: Answers = {}
    for corpus, some in rows.items():
        primary = [row for row in some if row.primary]
        found[TRAINED_LABELS, corpus] = study_noise_section.sentences(primary)
        found[TASKS, corpus] = study_scale_section.sentences(primary, base)
        found[BLOCKS, corpus] = study_blocks_section.sentences(primary, base)
    for name, corpora in experiments.items():
        for corpus, results in corpora.items():
            found[name, corpus] = experiment_sentences(name, results)
    return found
