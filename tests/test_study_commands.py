"""Which study's command stands under a part of STUDY.md."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml
from recipe_copy import RECIPE

from espnet_smoe.datadir import DataError

sys.path.insert(0, str(RECIPE / "local"))

from study_commands import commands  # noqa: E402


def write(recipe: Path, name: str, **study: object) -> None:
    path = recipe / "conf/study" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(study), encoding="utf-8")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    write(tmp_path, "one", runs=[{"corpus": "speech", "systems": ["base", "a"], "seeds": [1]}])
    write(tmp_path, "two", runs=[{"corpus": "speech", "systems": ["b"], "seeds": [1]}])
    write(tmp_path, "config", encoder="a", batch_bins=1)
    small = [{"corpus": "speech", "systems": ["base", "a"], "seeds": [1]}]
    write(tmp_path, "own", results="study/own/results", runs=small)
    return tmp_path


def test_studies_with_any_of_the_systems_are_named(recipe: Path) -> None:
    results = recipe / "study/results"
    one, two = "`local/study.sh conf/study/one.yaml`", "`local/study.sh conf/study/two.yaml`"
    assert commands(results, "speech", {"a"}, recipe) == [f"Command: {one}.", ""]
    assert commands(results, "speech", ["b", "a"], recipe) == [f"Commands: {one}, {two}.", ""]


def test_nothing_of_other_systems_corpora_and_places_of_the_results(recipe: Path) -> None:
    assert commands(recipe / "study/results", "speech", {"c"}, recipe) == []
    assert commands(recipe / "study/results", "music", {"a"}, recipe) == []
    assert commands(recipe / "elsewhere", "speech", {"a"}, recipe) == []
    own = commands(recipe / "study/own/results", "speech", {"a", "b"}, recipe)
    assert own == ["Command: `local/study.sh conf/study/own.yaml`.", ""]


def test_a_study_that_cannot_be_read_is_named(recipe: Path) -> None:
    (recipe / "conf/study/broken.yaml").write_text("runs: [", encoding="utf-8")
    with pytest.raises(DataError, match=r"broken\.yaml"):
        commands(recipe / "study/results", "speech", {"a"}, recipe)


@pytest.mark.parametrize(
    ("corpus", "system", "study"),
    [
        ("mini_hard", "encdec_smoe.task_wrong25", "labels"),
        ("mini_hard", "enc_smoe", "controls"),
        ("mini_hard", "learned_moe", "full"),
        ("mini_hard_tasks", "encdec_smoe.tasks8", "tasks"),
        ("mboshi_fr", "bandwidth_embedding", "mboshi_fr"),
    ],
)
def test_the_shipped_studies_are_found(corpus: str, system: str, study: str) -> None:
    found = commands(RECIPE / "study/results", corpus, {system})
    assert found == [f"Command: `local/study.sh conf/study/{study}.yaml`.", ""]


@pytest.mark.parametrize(
    "title",
    [
        "Routing correctness",
        "Wrong and missing labels at inference",
        "With wrong and missing labels in training",
        "What a learned gate learned",
        "As the number of tasks grows",
        "Where tasks and bandwidths interfere",
        "Where the experts stand",
    ],
)
def test_each_question_has_its_table_picture_and_command(title: str) -> None:
    text = (RECIPE / "STUDY.md").read_text(encoding="utf-8")
    section = re.search(rf"^(#+) {title}\n(.*?)(?=^#|\Z)", text, flags=re.M | re.S)
    assert section is not None
    assert all(part in section[2] for part in ("| --- |", "\n![", "\nCommand"))
