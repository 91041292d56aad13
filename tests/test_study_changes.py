"""The study's harness: experiments, checkpoints, changed training data, mistakes in the YAML."""

from __future__ import annotations

import json
import re
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import yaml
from study_recipe import ENTRY, EXP, RESULTS, calls, change, enter, run

from espnet_smoe.datadir import read_table

from study_results import read_result, read_results  # isort: skip

PROBE = """
import argparse, json, pathlib
parser = argparse.ArgumentParser()
for name in ("s2t_dir", "model_file", "examples", "sets", "out"):
    parser.add_argument("--" + name)
def section(results):
    return "### The probe saw " + ", ".join(f"{r['name']} {r['sets']}" for r in results)
if __name__ == "__main__":
    args = parser.parse_args()
    assert args.model_file == "valid.acc.ave.pth"
    assert (pathlib.Path(args.s2t_dir) / args.model_file).exists()
    assert (pathlib.Path(args.examples) / "train" / "wav.scp").exists()
    with open(args.out, "w") as file:
        json.dump({"sets": args.sets}, file)
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the recipe, the working directory."""
    return enter(tmp_path, monkeypatch)


def test_experiments_follow_their_runs_whose_models_stay_until_then(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (recipe / "local/study_probe.py").write_text(PROBE, encoding="utf-8")
    entry = {"name": "probe", "corpus": "mini", "systems": ["encdec_smoe"], "seeds": [1]}
    change(experiments=[entry])
    assert run("--keep_models", "none") == 0
    out = RESULTS / "experiments/probe_encdec_smoe_seed1.json"
    content = json.loads(out.read_text(encoding="utf-8"))
    assert content == {
        "sets": "test_nb test_wb",
        "corpus": "mini",
        "name": "encdec_smoe",
        "seed": 1,
        "commit": "unknown",
    }
    assert not list(EXP.rglob("*.pth"))
    change(experiments=[{**entry, "systems": ["base"]}])
    assert run("--stage", "train") == 1
    error = capsys.readouterr().err
    assert "FAILED mini/probe_base_seed1:" in error
    assert f"remove {RESULTS}/base_seed1.json to train it again" in error
    (RESULTS / "base_seed1.json").unlink()
    assert run("--stage", "train") == 0
    assert calls(11).count("base_seed1") == 2


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        ("best", {"valid.acc.ave.pth", "valid.acc.ave_2best.pth"}),
        ("none", set()),
        (
            "all",
            {"checkpoint.pth", "1epoch.pth", "2epoch.pth", "valid.acc.ave.pth"}
            | {"valid.acc.ave_2best.pth"},
        ),
    ],
)
def test_checkpoints_stay_as_asked(recipe: Path, keep: str, left: set[str]) -> None:
    change(runs=[{**ENTRY, "systems": ["base"]}])
    assert run("--stage", "train", "--keep_models", keep) == 0
    assert {p.name for p in (EXP / "s2t_study_base_seed1").glob("*.pth")} == left


def test_a_system_of_one_task_trains_and_is_tested_on_its_examples_alone(recipe: Path) -> None:
    change(runs=[{**ENTRY, "systems": ["base", "asr_only"]}])
    assert run() == 0
    variant = Path("dump/study_mini/variants/tasks_asr/s2t")
    assert set(read_table(variant / "train/utt2task").values()) == {"asr"}
    plan = (variant / "train/batch_plan.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["task"] for line in plan] == ["asr"]
    assert (variant / "test_wb/wav.scp").exists()
    result = read_result(RESULTS / "asr_only_seed1.json")
    assert {cell.task for cell in result.counts} == {"asr"}
    assert result.content["data"] == {"tasks": ["asr"]}
    config = yaml.safe_load((EXP / "conf/asr_only_seed1.yaml").read_text(encoding="utf-8"))
    assert config["num_iters_per_epoch"] == 2  # as many updates as on all tasks
    assert "asr_only" in Path("STUDY.md").read_text(encoding="utf-8")


def test_a_system_of_wrong_labels_trains_on_its_own_copy_with_the_same_batches(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Path, int, dict[str, float]]] = []
    labels = types.ModuleType("study_labels")

    def corrupt_examples(source: Path, out: Path, *, seed: int, **shares: float) -> None:
        seen.append((source, seed, shares))
        shutil.copytree(source, out)

    labels.corrupt_examples = corrupt_examples  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "study_labels", labels)
    change(runs=[{**ENTRY, "systems": ["wrong_labels"], "seeds": [1, 2]}])
    assert run("--stage", "train") == 0
    source = Path("dump/study_mini/s2t/train")
    assert seen == [(source, seed, {"bandwidth_wrong": 0.5}) for seed in (1, 2)]
    lines = Path("calls").read_text(encoding="utf-8").splitlines()
    assert sorted(line.split()[2] for line in lines if line.startswith("11 ")) == [
        f"dump/study_mini/variants/bandwidth_wrong0.5_seed{seed}" for seed in (1, 2)
    ]
    assert {r.content["data"]["labels"]["bandwidth_wrong"] for r in read_results(RESULTS.parent)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run": []}, r"tiny.yaml: unknown run; accepted: name base results report corpora runs"),
        ({"runs": []}, "runs is empty"),
        ({"runs": [ENTRY, ENTRY]}, "mini/base_seed1 comes twice"),
        ({"runs": [{**ENTRY, "systems": ["bse"]}]}, r"bse.yaml: no such system; .* has: .*base"),
        ({"runs": [{**ENTRY, "corpus": "maxi"}]}, r"runs\[0\]: corpus 'maxi'; accepted: mini"),
        ({"runs": [{**ENTRY, "seeds": ["one"]}]}, "seed 'one'; accepted are whole numbers"),
        ({"corpora": {"x": {"corpus": "minni"}}}, "corpora.x: corpus 'minni' is unknown"),
        (
            {"runs": [ENTRY, {**ENTRY, "seeds": [3], "s2t_args": "--max_epoch 3"}]},
            "max_epoch is 6 in mini/base_seed1 and 3 in mini/base_seed3; accepted is the same",
        ),
        (
            {"experiments": [{"name": "x", "corpus": "mini", "systems": ["base"], "seeds": [9]}]},
            r"experiments\[0\]: mini/base_seed9 is none of the runs",
        ),
    ],
)
def test_a_mistake_in_the_study_stops_before_anything_runs(
    recipe: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], message: str
) -> None:
    change(**changes)
    assert run() == 1
    assert re.search(message, capsys.readouterr().err)
    assert not Path("calls").exists()


def test_the_list_says_what_is_done(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--stage", "list") == 0
    assert capsys.readouterr().out.splitlines() == [
        " to do  mini/base_seed1",
        " to do  mini/encdec_smoe_seed1",
    ]
