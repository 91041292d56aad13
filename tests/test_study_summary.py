"""The beginning of STUDY.md, and where the experts stand: marks, answers, the best place."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from recipe_copy import RECIPE

sys.path.insert(0, str(RECIPE / "local"))

import study_blocks_section  # noqa: E402
import study_report  # noqa: E402
import study_summary  # noqa: E402
from study_analysis import NEITHER, rows_of  # noqa: E402
from study_results import read_results, write_result  # noqa: E402
from study_results_files import report_of, write_study  # noqa: E402

PLACED = {
    "base": 0.3,
    "dec_smoe": 0.3,
    "encdec_first_half": 0.1,
    "encdec_last_half": 0.2,
    "learned_moe": 0.5,
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two corpora: one with several places of the experts, one with one system and its variant."""
    directory = tmp_path_factory.mktemp("summary") / "results"
    write_study(directory, "places", PLACED)
    write_study(directory, "speech", {"base": 0.3, "encdec_smoe": 0.1}, seeds=[1])
    write_study(directory, "speech", {"encdec_smoe.task_wrong50": 0.4}, seeds=[1])
    return directory


@pytest.fixture(scope="module")
def report(results: Path) -> str:
    return report_of(results)


@pytest.fixture
def short(report: str) -> str:
    return report.partition("## In short")[2].partition("\n## ")[0]


def test_each_system_is_a_row_and_each_task_of_a_corpus_a_column(short: str) -> None:
    lines = [line for line in short.splitlines() if line.startswith("|")]
    cells = [line.strip("| ").split(" | ") for line in lines]
    assert cells[0][1:] == [
        "places test, asr WER",
        "places test, st_eng BLEU",
        "speech test, asr WER",
        "speech test, st_eng BLEU",
    ]
    systems = {row[0] for row in cells[2:]}
    assert systems == {*PLACED, "encdec_smoe"} - {"base"}


def test_significance_is_marked(short: str) -> None:
    rows = {line.split(" | ")[0][2:]: line.split(" | ") for line in short.splitlines()}
    interval = r"[+-]\d+\.\d \[[+-]\d+\.\d, [+-]\d+\.\d\] %"
    assert re.fullmatch(rf"{interval} \(3\)", rows["dec_smoe"][1])
    assert re.fullmatch(rf"\*\*{interval}\*\* \(3\)", rows["encdec_first_half"][1])
    assert rows["encdec_smoe"][1] == "" and rows["dec_smoe"][3] == ""
    assert re.fullmatch(rf"{interval} † \(1\)", rows["encdec_smoe"][3])


def test_what_correction_takes_away_has_a_star(tmp_path: Path) -> None:
    shares = {"base": 0.3, "a": 0.27, "b": 0.26, "c": 0.25, "d": 0.24, "e": 0.28, "f": 0.29}
    write_study(tmp_path, "x", shares)
    rows = rows_of(read_results(tmp_path), "base")
    marks = {row.verdict: study_summary.figure(row) for row in rows if row.primary and row.change}
    assert marks.pop("better (not after Holm)").endswith("% * (3)")
    assert marks.pop(NEITHER).endswith("% (3)")
    assert marks.pop("better").startswith("**")


def test_the_seeds_of_a_change_are_those_of_both(tmp_path: Path) -> None:
    write_study(tmp_path, "x", {"base": 0.3}, seeds=[1, 2])
    write_study(tmp_path, "x", {"dec_smoe": 0.25, "encdec_smoe": 0.2})
    rows = [row for row in rows_of(read_results(tmp_path), "base") if row.primary and row.change]
    assert {row.seeds for row in rows} == {(1, 2, 3)}
    assert all(study_summary.figure(row).endswith(" (2)") for row in rows)
    tables = "\n".join(study_blocks_section.section(rows, "base"))
    assert re.findall(r"\| all \| ([^|]*) \|", tables) == ["2"] * 4


def test_answers_stand_in_the_order_of_the_questions_and_below_again(
    short: str, report: str
) -> None:
    titles = re.findall(r"^- \*\*(.*?)\*\* \((\w+)\)\. (.*)$", short, flags=re.M)
    assert [title[:2] for title in titles] == [
        ("Wrong and missing labels in training", "speech"),
        ("Where the experts stand", "places"),
    ]
    below = report.partition("## Results")[2]
    assert all(sentences in below for _, _, sentences in titles)


def test_an_experiments_own_sentences_are_among_the_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(tmp_path, "x", {"base": 0.3}, seeds=[1])
    for name in ("routes", "my_probe", "gone"):
        found = {"name": "base", "seed": 1, "share": 0.5}
        write_result(tmp_path / f"x/experiments/{name}_base_seed1.json", found)

    def sentences(found: list[dict[str, Any]]) -> list[str]:
        return [f"{row['share']:g} of {row['name']}." for row in found]

    for name in ("routes", "my_probe"):
        module = types.ModuleType(f"study_{name}")
        module.sentences = sentences  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, f"study_{name}", module)
    out = tmp_path.parent / f"{tmp_path.name}.md"
    study_report.main([str(tmp_path), "--out", str(out)])
    short = out.read_text(encoding="utf-8").partition("## In short")[2].partition("\n## ")[0]
    assert [line for line in short.splitlines() if line] == [
        "- **Wrong routes** (x). 0.5 of base.",
        "- **my_probe** (x). 0.5 of base.",
    ]


def test_the_best_place_of_the_experts_is_named(results: Path, report: str) -> None:
    section = report.partition("#### Where the experts stand")[2].partition("\n#")[0]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if "| 3 |" in line]
    places = [
        ["encoder and decoder", "first half"],
        ["encoder and decoder", "last half"],
        ["decoder", "all"],
    ]
    assert [line[2:4] for line in lines] == 2 * places
    assert [line[0] for line in lines] == 3 * ["asr"] + 3 * ["st_eng"]
    for task, metric in (("asr", "WER"), ("st_eng", "BLEU")):
        assert re.search(
            rf"{task}: of 3 places the {metric} is best with experts in the encoder and decoder, "
            rf"first half blocks \([^)]*: better\); 2 of 3 differ significantly from base\.",
            section,
        )
    assert (results.parent / "plots/places_blocks.png").read_bytes().startswith(b"\x89PNG")
    assert report.count("#### Where the experts stand") == 1  # not of one place alone
    assert not (results.parent / "plots/speech_blocks.png").exists()
