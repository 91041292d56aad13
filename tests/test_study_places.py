"""What makes two runs of a study the same: config, data, commit; and what they may share."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from recipe_copy import RECIPE

from espnet_smoe.datadir import write_table

sys.path.insert(0, str(RECIPE / "local"))

from study_places import (  # noqa: E402
    Places,
    code_commit,
    differences,
    evaluation_facts,
    identity,
    portable,
    training_facts,
)
from study_plan import Corpus, DataChange, Run, Study, read_data  # noqa: E402

ARGS = ("--mini_size", "60", "--nj", "8", "--dask=slurm", "--nbpe", "300")
CORPUS = Corpus("mini", "mini", "/corpora/mini", ARGS, Path("x.yaml"), {})
STUDY = Study("s", "base", Path("study/results"), Path("STUDY.md"), {"mini": CORPUS}, [], [])
CONFIG = {"encoder": "conformer", "frontend_conf": {"n_mels": 40}, "optim_conf": {"lr": 0.1}}


@pytest.fixture(autouse=True)
def in_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(RECIPE)


def run_of(system: str = "base", seed: int = 1, **changes: object) -> Run:
    config = {**CONFIG, **changes, "seed": seed}
    return Run(CORPUS, system, seed, config, "", DataChange())


def test_options_of_the_machine_are_no_part_of_a_run() -> None:
    assert portable(ARGS) == ["--mini_size", "60", "--nbpe", "300"]
    assert identity(run_of())["args"] == ["--mini_size", "60", "--nbpe", "300"]
    assert "/corpora" not in str(identity(run_of()))


def test_an_identity_differs_in_what_decides_the_figures() -> None:
    first = identity(run_of())
    assert differences(first, identity(run_of())) == []
    other = identity(run_of("big", 2, optim_conf={"lr": 0.2}))
    assert differences(first, other) == [
        "config.optim_conf.lr 0.1 / 0.2",
        "config.seed 1 / 2",
        "seed 1 / 2",
        "system 'base' / 'big'",
    ]
    labelled = dataclasses.replace(run_of(), data=DataChange(labels=(("task_wrong", 0.1),)))
    assert differences(first, identity(labelled)) == ["data.labels None / {'task_wrong': 0.1}"]


def test_models_of_the_same_features_share_statistics() -> None:
    places = Places(STUDY, CORPUS)
    first = places.stats(run_of())
    assert first == places.stats(run_of("smoe", 3, encoder="smoe_conformer"))
    assert first != places.stats(run_of(frontend_conf={"n_mels": 80}))


def test_a_command_names_everything_and_keeps_the_corpus_options() -> None:
    places = Places(STUDY, CORPUS)
    words = places.command(run_of("smoe", 3), (11, 11))
    words = words[words.index("./run.sh") :]
    assert words[1 : 1 + len(ARGS)] == list(ARGS)
    options = dict(zip(words[1 + len(ARGS) :: 2], words[2 + len(ARGS) :: 2], strict=True))
    assert options["--corpus_dir"] == "/corpora/mini"
    assert options["--s2t_tag"] == "study_smoe_seed3"
    assert options["--dumpdir"] == "dump/study_mini"
    assert options["--stage"] == options["--stop_stage"] == "11"
    assert options["--train_threads"] == options["--decode_threads"] == options["--nj"] == "1"
    assert "--tasks" not in options and "--s2t_args" not in options


def test_gpus_are_an_option_of_the_machine() -> None:
    words = Places(STUDY, CORPUS, 1).command(run_of(), (11, 12))
    assert words[words.index("--ngpu", words.index("--corpus_dir")) + 1] == "1"
    words = Places(STUDY, CORPUS).command(run_of(), (11, 12))
    assert "--ngpu" not in words[words.index("--corpus_dir") :]


def test_options_of_runs_exist() -> None:
    text = (RECIPE / "run.sh").read_text(encoding="utf-8")
    known = text.partition('\noptions="')[2].partition('"')[0].split()
    words = Places(STUDY, CORPUS).command(run_of(), (1, 7))
    named = {word.removeprefix("--") for word in words[words.index("./run.sh") :] if "--" in word}
    assert {name.partition("=")[0] for name in named} <= set(known)


def test_hashes_follow_the_texts_and_not_the_paths(tmp_path: Path) -> None:
    def write(wav: str, text: str) -> None:
        write_table(tmp_path / "wav.scp", {"a": wav})
        write_table(tmp_path / "text", {"a": text})
        write_table(tmp_path / "utt2bw", {"a": "wb"})
        write_table(tmp_path / "utt2num_samples", {"a": 57600000})

    write("here/a.flac", "hola")
    lists = training_facts(tmp_path), evaluation_facts(tmp_path)
    assert lists[0]["examples"] == lists[1]["utterances"] == 1
    assert lists[0]["hours"] == 1.0
    write("there/a.flac", "hola")
    assert (training_facts(tmp_path), evaluation_facts(tmp_path)) == lists
    write("there/a.flac", "adiós")
    assert training_facts(tmp_path)["sha256"] != lists[0]["sha256"]
    assert evaluation_facts(tmp_path)["sha256"] != lists[1]["sha256"]


def test_data_changes_have_names_of_their_own() -> None:
    assert DataChange().name(1) == ""
    assert DataChange(tasks=("asr",)).name(1) == DataChange(tasks=("asr",)).name(2) == "tasks_asr"
    labels = read_data({"labels": {"task_wrong": 0.1, "bandwidth_wrong": 0}}, "x")
    assert labels.name(2) == "task_wrong0.1_seed2"
    assert labels.as_dict() == {"labels": {"task_wrong": 0.1}}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"task": ["asr"]}, "x: unknown task; accepted: tasks labels"),
        ({"labels": {"speaker_wrong": 0.1}}, "x.labels: unknown speaker_wrong; accepted"),
        ({"labels": {"task_wrong": 2}}, "x.labels.task_wrong: 2; accepted is a share, 0 to 1"),
    ],
)
def test_data_that_are_not_understood_are_refused(entry: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_data(entry, "x")


def test_the_commit_is_the_last_one_that_figures_depend_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "egs2/s2t1"
    for name in ("espnet_smoe/encoder.py", "egs2/s2t1/run.sh", "egs2/s2t1/local/study.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1\n", encoding="utf-8")
    monkeypatch.chdir(recipe)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    commit_of = code_commit.__wrapped__

    def git(*words: str) -> str:
        who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        return subprocess.run(
            ["git", *who, *words], check=True, capture_output=True, text=True, cwd=tmp_path
        ).stdout.strip()

    def commit() -> str:
        git("add", "-A")
        git("commit", "-q", "-m", "x")
        return git("log", "-1", "--format=%h")

    assert commit_of() == "unknown"
    git("init", "-q")
    first = commit()
    assert commit_of() == first
    unimportant = ["STUDY.md", "study/results/x/base_seed1.json", "conf/study/x.yaml"]
    for name in [*unimportant, "local/study.py", "../../README.md", "../../espnet_smoe/paired.py"]:
        (recipe / name).parent.mkdir(parents=True, exist_ok=True)
        (recipe / name).write_text("2\n", encoding="utf-8")
        assert commit_of() == first, name
        commit()
        assert commit_of() == first, name
    (tmp_path / "espnet_smoe/encoder.py").write_text("2\n", encoding="utf-8")
    assert commit_of() == f"{first}-dirty"
    assert commit_of() != (second := commit()) != first
    assert commit_of() == second
