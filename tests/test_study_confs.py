"""The shipped studies name systems, corpora and programs that exist, and docs/study.md is right."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml
from recipe_copy import RECIPE, REPOSITORY

sys.path.insert(0, str(RECIPE / "local"))

from study_places import identity  # noqa: E402
from study_plan import SYSTEMS, Study, read_study  # noqa: E402
from study_tables import PAPER  # noqa: E402

STUDIES = sorted(
    path
    for path in (RECIPE / "conf/study").glob("*.yaml")
    if "runs" in yaml.safe_load(path.read_text(encoding="utf-8"))
)
DOCS = (REPOSITORY / "docs/study.md").read_text(encoding="utf-8")
QUICK_HOURS = 2
RUN_MINUTES = 20  # mini_hard, one thread, training and decoding


@pytest.fixture(autouse=True)
def in_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(RECIPE)
    monkeypatch.delenv("MBOSHI_FR", raising=False)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_can_be_read_and_its_programs_exist(path: Path) -> None:
    study = read_study(path)
    assert study.name == path.stem
    assert {run.corpus.key for run in study.runs} == set(study.corpora)
    for corpus in study.corpora:
        assert study.base in study.planned_seeds(corpus)
    for experiment in study.experiments:
        assert (RECIPE / f"local/study_{experiment.name}.py").exists()
        config = experiment.run.config  # random routes follow no label that could be wrong
        labelled = config["model"] == "smoe" and str(config["encoder"]).startswith("smoe_")
        labelled = labelled or config["decoder"] == "smoe_transformer"
        assert labelled or experiment.name != "routes"
    for run in study.runs:
        assert run.config["seed"] == run.seed
        assert "data" not in run.config


def test_quick_takes_no_more_than_two_hours_on_two_cores_and_keeps_to_itself() -> None:
    quick, full = (read_study(RECIPE / f"conf/study/{name}.yaml") for name in ("quick", "full"))
    assert len(quick.runs) * RUN_MINUTES / 2 <= QUICK_HOURS * 60 * 2 / 3
    assert {quick.results, quick.report}.isdisjoint({full.results, full.report})


def shipped(name: str) -> Study:
    return read_study(RECIPE / f"conf/study/{name}.yaml")


def test_the_committed_study_has_the_ladder_with_three_seeds_and_the_papers_systems() -> None:
    mini = shipped("full").planned_seeds("mini_hard")
    ladder = {"base", "dec_ffnx2", "dec_smoe", "encdec_smoe"}
    assert mini == dict.fromkeys([*ladder, "learned_moe", "bandwidth_embedding"], 3)
    mboshi = shipped("mboshi_fr").planned_seeds("mboshi_fr")
    assert mboshi == dict.fromkeys(("base", "encdec_smoe", "bandwidth_embedding"), 3)
    assert {system for system, *_ in PAPER} <= mini.keys()
    tasks = {run.data.tasks for run in shipped("controls").runs}
    assert {("asr",), ("st_eng",)} <= tasks  # the dedicated models


def test_studies_that_share_results_agree_on_the_runs_that_they_share() -> None:
    runs: dict[tuple[str, str], dict[str, object]] = {}
    for name in ("full", "controls", "labels", "tasks", "mboshi_fr", "quick"):
        study = shipped(name)
        assert (study.results == shipped("full").results) == (name != "quick")
        for run in study.runs:
            found = identity(run)
            assert runs.setdefault((run.corpus.key, run.name), found) == found


def test_systems_grow_from_two_to_eight_tasks_with_an_expert_each() -> None:
    pairs = {run.system: run for run in shipped("tasks").runs}
    every = [run.data.tasks for run in pairs.values() if run.data.tasks]
    for number in (2, 4, 6, 8):
        smoe = pairs[f"encdec_smoe.tasks{number}"]
        dense = pairs.get(f"base.tasks{number}", pairs["base"])
        assert smoe.data == dense.data
        assert len(smoe.config["decoder_conf"]["experts"]) == number
        assert len(smoe.data.tasks or range(8)) == number
    assert all(a == b[: len(a)] for a in every for b in every if len(a) <= len(b))


def test_every_system_differs_from_every_other_and_is_run() -> None:
    studies = [shipped(path.stem) for path in STUDIES]
    runs = {run.system: run for study in studies for run in study.runs if run.seed == 1}
    texts = [yaml.safe_dump([run.corpus.key, dict(run.config), run.data.as_dict()])
             for run in runs.values()]  # fmt: skip
    assert len(set(texts)) == len(texts)
    assert runs.keys() == {path.stem for path in SYSTEMS.glob("*.yaml")}


def test_the_page_shows_a_study_that_can_be_read(tmp_path: Path) -> None:
    text, data = re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL)
    shown = yaml.safe_load(text)
    del shown["corpora"]["mini_hard"]["config"]  # conf/x.yaml
    (tmp_path / "shown.yaml").write_text(yaml.safe_dump(shown), encoding="utf-8")
    study = read_study(tmp_path / "shown.yaml")
    assert [e.label for e in study.experiments] == ["mini_hard/routes_encdec_smoe_seed1"]
    assert study.corpora["mboshi_fr"].corpus_dir == ""
    assert yaml.safe_load(data)["data"]["tasks"] == ["asr"]


def test_the_page_names_every_option() -> None:
    program = (RECIPE / "local/study.py").read_text(encoding="utf-8")
    assert set(re.findall(r'"--(\w+)",', program)) - {"out", "base"} <= set(
        re.findall(r"`--(\w+)", DOCS)
    )
