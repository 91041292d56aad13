"""A tiny study: its YAMLs in a copy of the recipe, and synthetic results of runs."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from recipe_copy import RECIPE, REPOSITORY, copy_recipe, environment

sys.path.insert(0, str(RECIPE / "local"))

import study  # noqa: E402
import study_queue  # noqa: E402

SYSTEMS: dict[str, dict[str, Any]] = {
    "base": {
        "encoder": "conformer",
        "encoder_conf": None,
        "decoder": "transformer",
        "decoder_conf": None,
    },
    "encdec_smoe": {},
    "asr_only": {"data": {"tasks": ["asr"]}, "decoder": "transformer", "decoder_conf": None},
    "wrong_labels": {"data": {"labels": {"bandwidth_wrong": 0.5, "task_wrong": 0}}},
}
OWN_OPTIONS = {"experts", "expert_blocks", "macaron_experts", "default_expert"}
ARGS = (
    "--mini_size 24 --corpus_args '--valid_size 4 --test_size 4' --nbpe 330 "
    "--inference_args '--beam_size 2'"
)
STUDY: dict[str, Any] = {
    "name": "tiny",
    "corpora": {"mini": {"corpus": "mini", "args": ARGS, "config": "conf/train_tiny.yaml"}},
    "runs": [
        {
            "corpus": "mini",
            "systems": ["base", "encdec_smoe"],
            "seeds": [1],
            "s2t_args": "--max_epoch 2 --num_iters_per_epoch 2",
        }
    ],
}


def write_yaml(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def study_recipe(target: Path, study: dict[str, Any] = STUDY) -> Path:
    """A copy of the recipe with a study and systems of its own."""
    recipe = copy_recipe(target)
    tiny = yaml.safe_load((recipe / "conf/train_tiny.yaml").read_text(encoding="utf-8"))
    for system, changes in SYSTEMS.items():
        whole = dict(changes)
        for side in ("encoder_conf", "decoder_conf"):
            if side in whole:  # dense: without this package's own options
                whole[side] = dict.fromkeys(OWN_OPTIONS & tiny[side].keys())
        write_yaml(recipe / f"conf/study/systems/{system}.yaml", whole)
    write_yaml(recipe / "conf/study/tiny.yaml", study)
    return recipe


def fake_recipe(target: Path, study: dict[str, Any]) -> Path:
    """The same with a run.sh that trains nothing (`fake_run.py`)."""
    recipe = study_recipe(target, study)
    program = (REPOSITORY / "tests" / "fake_run.py").read_text(encoding="utf-8")
    run_sh = recipe / "run.sh"
    run_sh.write_text(program.replace("/usr/bin/env python3", sys.executable), encoding="utf-8")
    with (recipe / "local/study_collect.py").open("a", encoding="utf-8") as file:
        file.write(
            "\n\ndef parameters(s2t_dir):\n"
            '    return {"total": 3000000, "active": {"wb/asr": 2000000, "nb/asr": 2000000}}\n'
        )
    return recipe


# The harness on a run.sh that trains nothing; the working directory is the recipe's copy.
ENTRY: dict[str, Any] = {"corpus": "mini", "systems": ["base", "encdec_smoe"], "seeds": [1]}
PLAN: dict[str, Any] = {
    "name": "fake",
    "corpora": {"mini": {"corpus": "mini", "config": "conf/train_tiny.yaml"}},
    "runs": [ENTRY],
}
RESULTS = Path("study/results/mini")
EXP = Path("exp/study_fake/mini")


def enter(target: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a fake recipe with the study `PLAN`, and go there."""
    directory = fake_recipe(target / "egs2" / "s2t1", PLAN)
    monkeypatch.chdir(directory)
    monkeypatch.setattr(study_queue, "POLL_SECONDS", 0.02)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    return directory


def run(*options: object) -> int:
    """The harness in this process."""
    return study.main(["conf/study/tiny.yaml", "--nproc", "2", *map(str, options)])


def change(**changes: Any) -> None:
    """Write the study anew."""
    write_yaml(Path("conf/study/tiny.yaml"), {**copy.deepcopy(PLAN), **changes})


def calls(stage: int) -> list[str]:
    """The models for which a stage was called, in order."""
    lines = Path("calls").read_text(encoding="utf-8").splitlines()
    return [
        line.split()[1].removeprefix("study_") for line in lines if line.split()[0] == str(stage)
    ]
