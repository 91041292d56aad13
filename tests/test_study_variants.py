"""Variants of systems in STUDY.md: what they are compared with, and what grows with the tasks."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from recipe_copy import RECIPE

sys.path.insert(0, str(RECIPE / "local"))

from study_analysis import NEITHER, WORSE, base_of, rows_of  # noqa: E402
from study_results import read_results  # noqa: E402
from study_results_files import report_of, write_study  # noqa: E402


@pytest.mark.parametrize(
    ("system", "systems", "other"),
    [
        ("encdec_smoe", {"base", "encdec_smoe"}, "base"),
        ("base", {"base", "encdec_smoe"}, "base"),
        ("smoe.noise", {"base", "smoe", "smoe.noise"}, "smoe"),
        ("base.noise", {"base", "smoe", "base.noise"}, "base"),
        ("smoe.tasks4", {"base", "base.tasks4", "smoe.tasks4"}, "base.tasks4"),
        ("smoe.tasks8", {"base", "base.tasks4", "smoe.tasks8"}, "base"),
    ],
)
def test_what_a_system_is_compared_with(system: str, systems: set[str], other: str) -> None:
    assert base_of(system, "base", systems) == other


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """S-MoE as good as Base with 2 tasks, and twice as good with 8; and one of wrong labels."""
    directory = tmp_path_factory.mktemp("variants") / "results"
    shares = {"base": 0.3, "base.tasks2": 0.3, "smoe.tasks2": 0.3, "smoe.tasks8": 0.1}
    write_study(directory, "many", shares, seeds=[1])
    write_study(directory, "labels", {"base": 0.3, "smoe": 0.1, "smoe.wrong": 0.3}, seeds=[1])
    noise = {"smoe": 0.1, "smoe.task_wrong5": 0.1, "smoe.task_wrong50": 0.4, "base": 0.3}
    write_study(directory, "noise", {**noise, "base.bandwidth_missing10": 0.3}, seeds=[1, 2])
    return directory


@pytest.fixture(scope="module")
def report(results: Path) -> str:
    return report_of(results)


def test_each_variant_is_corrected_by_itself(results: Path) -> None:
    rows = [r for r in rows_of([x for x in read_results(results) if x.corpus == "labels"], "base")
            if r.primary and r.change]  # fmt: skip
    for system in ("smoe", "smoe.wrong"):
        own = [row for row in rows if row.system == system]
        assert len(own) == 6
        smallest = min(row.change.change.p for row in own if row.change)
        assert min(row.corrected_p or 0.0 for row in own) == pytest.approx(6 * smallest)


def test_variants_stand_below_the_systems_with_what_they_are_compared_with(report: str) -> None:
    section = report.partition("### labels")[2].partition("### many")[0]
    assert "6 comparisons with base" in section
    variants = section.partition("Variants, each compared with what stands in brackets")[2]
    line = next(x for x in variants.splitlines() if x.startswith("| asr | test | all |"))
    assert "| smoe.wrong (smoe) |" in line and line.endswith("| worse † |")


def test_growth_is_a_table_a_sentence_and_a_picture(results: Path, report: str) -> None:
    section = report.partition("#### As the number of tasks grows")[2].partition("\n#")[0]
    lines = [line for line in section.splitlines() if line.startswith("| smoe | ")]
    assert [line.split(" | ")[1:3] for line in lines] == [
        ["2", "asr"],
        ["8", "asr"],
        ["2", "st_eng"],
        ["8", "st_eng"],
    ]
    assert "no significant difference † |" in lines[0] and "| better † |" in lines[1]
    assert section.count("too wide) †.") == 2  # one seed
    assert all(re.search(r"\| 3\.00 M.* \| 3\.00 M, 2\.00 M \|$", line) for line in lines)
    told = re.findall(r"smoe, (\w+): from 2 to 8 tasks the (\w+) .*?: (it gains on Base|no \w+)",
                      section)  # fmt: skip
    assert told == [
        ("asr", "WER", "it gains on Base"),
        ("st_eng", "BLEU", "it gains on Base"),
    ]
    assert (results.parent / "plots/many_tasks.png").read_bytes().startswith(b"\x89PNG")
    assert not (results.parent / "plots/labels_tasks.png").exists()


def test_labels_in_training_are_a_table_a_sentence_each_and_a_picture(
    results: Path, report: str
) -> None:
    section = report.partition("#### With wrong and missing labels in training")[2]
    section = section.partition("\n#")[0]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:3] == "| s"]
    rows = [(row[1:4], row[-1]) for row in lines if row[0] == "smoe"]
    assert rows == [
        (["task wrong", "5 %", "asr"], NEITHER),
        (["task wrong", "50 %", "asr"], WORSE),
        (["task wrong", "5 %", "st_eng"], NEITHER),
        (["task wrong", "50 %", "st_eng"], WORSE),
    ]
    assert (
        "Missing bandwidth labels in training, up to 10 %: no significant difference in 2 "
        in section
    )
    assert re.search(
        r"Wrong task labels .* in 2 of 4 scores, first at 50 % \(smoe, asr: WER \+", section
    )
    assert (results.parent / "plots/noise_labels.png").read_bytes().startswith(b"\x89PNG")
    assert not (results.parent / "plots/many_labels.png").exists()
