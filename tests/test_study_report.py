"""STUDY.md from synthetic results: verdicts, the paper's table, pictures, and what is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipe_copy import RECIPE, environment
from scored_texts import sentences

from espnet_smoe import scoring
from espnet_smoe.datadir import DataError

sys.path.insert(0, str(RECIPE / "local"))

import study_report  # noqa: E402
from study_analysis import BETTER, NEITHER, WORSE, order, power_rows, rows_of  # noqa: E402
from study_results import Cell, cells_of, read_results, write_result  # noqa: E402
from study_results_files import UTTERANCES, content, report_of, write_study, wrong_words  # noqa: E402
from study_tables import PAPER, probability  # noqa: E402

SHARES = {"base": 0.30, "dec_smoe": 0.305, "encdec_smoe": 0.15, "learned_moe": 0.5}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of results: one system as good as Base, one better, one worse; and controls."""
    directory = tmp_path_factory.mktemp("study") / "results"
    write_study(directory, "mini_hard", SHARES)
    write_study(directory, "mini_hard", {"random_routes": 0.3}, seeds=[1])
    dedicated = content("mini_hard", "asr_only", 1, 0.3, tasks=["asr"])
    write_result(directory / "mini_hard/asr_only_seed1.json", dedicated)
    write_study(directory, "pair", {"base": 0.3, "encdec_smoe": 0.2}, seeds=[1])
    return directory


@pytest.fixture(scope="module")
def report(results: Path) -> str:
    """STUDY.md, without the results' directory in it."""
    return report_of(results)


def row_of(text: str, *words: str) -> str:
    """The one line of a table that begins with these cells."""
    start = "| " + " | ".join(words) + " |"
    found = [line for line in text.splitlines() if line.startswith(start)]
    assert found, start
    return found[0]


@pytest.mark.parametrize(
    ("system", "verdict"),
    [("dec_smoe", NEITHER), ("encdec_smoe", BETTER), ("learned_moe", WORSE)],
)
@pytest.mark.parametrize("task", ["asr", "st_eng"])
@pytest.mark.parametrize("band", ["wb", "nb", "all"])
def test_a_verdict_for_every_task_bandwidth_and_system(
    report: str, task: str, band: str, system: str, verdict: str
) -> None:
    assert row_of(report, task, "test", band, system).endswith(f"| {verdict} |")


def test_of_base_alone_there_are_no_changes(tmp_path: Path) -> None:
    write_study(tmp_path / "results", "alone", {"base": 0.3})
    text = report_of(tmp_path / "results")
    assert "There is nothing to compare with base." in text
    assert row_of(text, "asr", "test", "all", "base") and "Change by seed" not in text


def test_means_and_changes_are_those_of_the_texts(results: Path, report: str) -> None:
    texts = list(sentences(UTTERANCES, 0, low=5, high=12).values())

    def wer(system: str, seed: int) -> float:
        hyps = wrong_words(texts, SHARES[system], f"mini_hard {system} {seed} asr wb")
        references = dict(enumerate(texts))
        keyed = {str(k): v for k, v in references.items()}
        found = scoring.score(keyed, dict(zip(keyed, hyps, strict=True)), "wer", resamples=2)
        return found.value

    base = [wer("base", seed) for seed in (1, 2, 3)]
    smoe = [wer("encdec_smoe", seed) for seed in (1, 2, 3)]
    line = row_of(report, "asr", "test", "wb", "encdec_smoe")
    assert f"WER {np.mean(smoe):.2f} [" in line
    assert ", ".join(f"{value:.2f}" for value in smoe) in line
    assert f"| {np.mean(smoe) - np.mean(base):+.2f} [" in line
    ratio = np.exp(np.mean(np.log(smoe)) - np.mean(np.log(base)))
    assert f"| {100 * (ratio - 1):+.1f} [" in line


def test_every_change_stands_with_its_interval(report: str) -> None:
    number = r"[+-]\d+\.\d+"
    interval = rf"{number} \[{number}, {number}\]"
    for system in ("dec_smoe", "encdec_smoe", "learned_moe", "random_routes"):
        line = row_of(report, "asr", "test", "nb", system)
        assert len(re.findall(interval, line)) == 2
        assert re.search(rf"\| \[{number}, {number}\] \|", line)  # the bootstrap's


def test_the_comparisons_are_counted_and_corrected(results: Path, report: str) -> None:
    comparisons = 6 * 4 + 3  # and asr_only, on asr
    assert f"{comparisons} comparisons with base: " in report
    assert f"after Holm's correction for {comparisons} comparisons" in report
    mini = [r for r in read_results(results) if r.corpus == "mini_hard"]
    rows = [row for row in rows_of(mini, "base") if row.corrected_p is not None]
    assert len(rows) == comparisons
    assert all(row.corrected_p >= row.change.change.p for row in rows if row.change)


def test_a_verdict_that_does_not_survive_correction_says_so(tmp_path: Path) -> None:
    shares = {"base": 0.3, "a": 0.27, "b": 0.26, "c": 0.25, "d": 0.24, "e": 0.28, "f": 0.29}
    write_study(tmp_path, "x", shares)
    verdicts = {row.verdict for row in rows_of(read_results(tmp_path), "base") if row.primary}
    assert {BETTER, f"{BETTER} (not after Holm)", NEITHER} <= verdicts


def test_the_papers_improvements_stand_beside_ours(report: str) -> None:
    section = report.partition("## The paper's improvements beside ours")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if re.match(r"\| (DecS|EncDecS)-MoE", line)]
    assert len(lines) == len(PAPER) == 4
    paper = [line.split(" | ")[3] for line in lines]
    assert paper == ["-8.06 %", "+1.77 %", "-6.35 %", "-2.39 %"]
    assert [line.split(" | ")[1:3] for line in lines] == [
        ["WER", "NB and WB"],
        ["BLEU", "NB and WB"],
        ["WER", "NB"],
        ["WER", "WB"],
    ]
    ours = [line.split(" | ")[4] for line in lines]
    assert [cell.rpartition(": ")[2] for cell in ours] == [NEITHER, NEITHER, BETTER, BETTER]
    assert all(re.match(r"[+-]\d+\.\d \[[+-]\d+\.\d, [+-]\d+\.\d\] %: ", cell) for cell in ours)
    assert [line.split(" | ")[5] for line in lines][:2] == ["not run |", "not run |"]


def test_one_seed_without_another_is_marked(report: str) -> None:
    section = report.partition("### pair")[2].partition("\n## ")[0]
    assert row_of(section, "asr", "test", "wb", "encdec_smoe").endswith(f"| {BETTER} † |")
    mini = report.partition("### mini_hard")[2].partition("### pair")[0]
    assert "†" not in mini  # the control borrows the others' seeds
    assert "speaks of these trained models" in report


def test_the_pictures_exist_and_are_linked(results: Path, report: str) -> None:
    links = re.findall(r"!\[\w+\]\((.*?)\)", report)
    assert "plots/mini_hard_changes.png" in links and "plots/efficiency.png" in links
    for link in links:
        assert (results.parent / link).read_bytes().startswith(b"\x89PNG")


def test_what_was_run_and_what_it_cost(report: str) -> None:
    assert "`--corpus mini_hard --mini_size 60` | 120 | 0.1" in report
    assert "| mini_hard | asr_only | 1 | tasks: asr |" in report
    line = row_of(report, "mini_hard", "encdec_smoe", "3")
    assert (
        "| 3.00 M | 2.00 M | 10.3 min [10.2, 10.5] | 1.7 min [1.7, 1.7] | 1.00 | 2; x86_64" in line
    )


def test_the_same_results_give_the_same_report(results: Path, report: str) -> None:
    """In another process, by the command that the report names."""
    out = results.parent / "STUDY.md"
    done = subprocess.run(
        [sys.executable, RECIPE / "local/study_report.py", results, "--out", out],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert out.read_text(encoding="utf-8") == report


def test_power_from_the_runs_and_from_before(tmp_path: Path) -> None:
    write_study(tmp_path, "x", {"base": 0.3, "encdec_smoe": 0.3})
    rows = power_rows(read_results(tmp_path), "base", [3, 10])
    assert [row.cell.bandwidth for row in rows] == ["wb", "nb", "all"] * 2
    for row in rows:
        assert abs(row.smallest[10]) < abs(row.smallest[3])
        assert (row.smallest[3] < 0) == (row.cell.metric == "wer")
    plan = {
        "name": "x",
        "assumptions": {"design_effect": 2, "correlation": 0.5, "seed_cv": 0.03, "systems": 2},
        "rows": [
            {"set": "test_wb", "task": "asr", "bandwidth": "wb", "metric": "wer", "rate": 20.0}
            | {"utterances": 220, "words": 1200, "smallest": {"3": -12.34}}
        ],
    }
    write_result(tmp_path / "x/power.json", plan)
    out = tmp_path / "STUDY.md"
    study_report.main([str(tmp_path), "--out", str(out)])
    text = out.read_text(encoding="utf-8")
    assert "| x | test_wb | asr | wb | WER 20 | 220 | 1200 | -12.3 % |" in text
    assert "seeds: all systems; utterances: 1 paired difference(s)" in text


def test_an_experiment_writes_its_own_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import types

    results = tmp_path / "results"
    write_study(results, "x", {"base": 0.3, "encdec_smoe": 0.3}, seeds=[1])
    for seed in (1, 2):
        found = {"name": "encdec_smoe", "seed": seed, "share": 0.1 * seed}
        write_result(results / f"x/experiments/my_probe_encdec_smoe_seed{seed}.json", found)
    write_result(results / "x/experiments/gone_base_seed1.json", {"name": "base"})
    probe = types.ModuleType("study_my_probe")

    def section(found: list[dict[str, Any]]) -> str:
        return f"### Shares\n\n{[r['share'] for r in found]}"

    def plot(found: list[dict[str, Any]], directory: Path) -> list[Path]:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "shares.png").write_bytes(b"\x89PNG")
        return [directory / "shares.png"]

    probe.section, probe.plot = section, plot  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "study_my_probe", probe)
    study_report.main([str(results), "--out", str(tmp_path / "STUDY.md")])
    text = (tmp_path / "STUDY.md").read_text(encoding="utf-8")
    assert "## Experiment my_probe, x\n\n### Shares\n\n[0.1, 0.2]\n" in text
    assert "![shares](plots/x/shares.png)" in text
    assert "1 result(s); local/study_gone.py has no section()." in text


def rewrite(path: Path, change: dict[str, Any]) -> None:
    found = {**json.loads(path.read_text(encoding="utf-8")), **change}
    path.write_text(json.dumps(found), encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"updates": 900},
            r"base_seed1.json and .*dec_smoe_seed2.json differ in updates: 1300 / 9",
        ),
        ({"train": {"sha256": "0"}}, r"base_seed1.json and .* differ in training set"),
        ({"tests": {"test_wb": {}}}, r"differ in test set test_wb"),
        ({"config": {"max_epoch": 9}}, r"dec_smoe_seed1.json and .*_seed2.json differ in config"),
        ({"seed": 9}, r"dec_smoe_seed2.json: holds dec_smoe_seed9, not what it is named"),
        ({"sets": 0, "updates": 1}, "differ in updates"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    write_study(tmp_path, "x", {"base": 0.3, "dec_smoe": 0.3}, seeds=[1, 2])
    rewrite(tmp_path / "x/dec_smoe_seed2.json", changes)
    with pytest.raises(DataError, match=message):
        read_results(tmp_path)


def test_files_that_are_no_results_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \*/\*_seed\*.json; run local/study.sh first"):
        read_results(tmp_path)
    path = tmp_path / "x/base_seed1.json"
    path.parent.mkdir()
    path.write_text('{"format": 1,', encoding="utf-8")
    with pytest.raises(DataError, match=r"base_seed1.json: .*; remove it to run it again"):
        read_results(tmp_path)
    path.write_text('{"format": 1}', encoding="utf-8")
    with pytest.raises(DataError, match=r"not a run's result: it has no name, system, seed"):
        read_results(tmp_path)


def test_other_utterances_are_refused(tmp_path: Path) -> None:
    write_study(tmp_path, "x", {"base": 0.3, "dec_smoe": 0.3}, seeds=[1])
    path = tmp_path / "x/dec_smoe_seed1.json"
    sets = json.loads(path.read_text(encoding="utf-8"))["sets"]
    sets["test"]["utts"][0] = "other"
    rewrite(path, {"sets": sets})
    with pytest.raises(DataError, match="base_seed1.json and .* have other utterances in Cell"):
        cells_of(read_results(tmp_path))


def test_a_cell_of_some_utterances_has_an_index(tmp_path: Path) -> None:
    """As in a test set of both bandwidths, where no sentence has a copy."""
    run = content("x", "base", 1, 0.3)
    half = UTTERANCES // 2
    for cell in run["sets"]["test"]["cells"]:
        keep = range(half) if cell["bandwidth"] == "wb" else range(half, UTTERANCES)
        cell["index"] = list(keep)
        for metric, columns in cell["counts"].items():
            cell["counts"][metric] = [[column[i] for i in keep] for column in columns]
    write_result(tmp_path / "x/base_seed1.json", run)
    found = read_results(tmp_path)[0].counts
    utts = run["sets"]["test"]["utts"]
    assert found[Cell("test", "asr", "nb", "wer")][0] == tuple(utts[half:])
    together = found[Cell("test", "asr", "all", "wer")]
    assert together[0] == tuple(utts)
    parts = [found[Cell("test", "asr", band, "wer")][1] for band in ("wb", "nb")]
    assert np.array_equal(together[1], np.concatenate(parts))


def test_a_result_is_small(results: Path) -> None:
    """300 kB at most; this has 40 sentences, of the 500 of a test set."""
    sizes = [path.stat().st_size for path in results.glob("*/*_seed*.json")]
    assert max(sizes) * 500 / UTTERANCES < 300_000


def test_an_interrupted_write_leaves_no_result(tmp_path: Path) -> None:
    path = tmp_path / "x/base_seed1.json"
    with pytest.raises(TypeError):
        write_result(path, {"format": 1, "sets": object()})
    assert not path.exists()


def test_rows_stand_in_order() -> None:
    cells = [Cell("t", task, band, metric) for task, metric in (("st_eng", "bleu"), ("asr", "wer"))
             for band in ("all", "nb", "wb")]  # fmt: skip
    found = sorted(cells, key=order)
    assert [(c.task, c.bandwidth) for c in found[:4]] == [
        ("asr", "wb"),
        ("asr", "nb"),
        ("asr", "all"),
        ("st_eng", "wb"),
    ]


@pytest.mark.parametrize(
    ("p", "text"), [(None, ""), (0.2, "0.200"), (0.00312, "0.0031"), (1e-9, "< 0.0001")]
)
def test_probabilities_are_rounded(p: float | None, text: str) -> None:
    assert probability(p) == text
