"""What a study consists of, as its YAML says: corpora, runs (system x seed), experiments.

The YAML's keys, and those of a system's file under ``conf/study/systems``, are described in
docs/study.md. A mistake in them is an error before anything starts.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from options import setting, value_of

from espnet_smoe.datadir import DataError

SYSTEMS = Path("conf/study/systems")
RESULTS = "study/results"  # unless the YAML says otherwise
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
# What gives all systems of a corpus the same batches and the same number of updates.
SCHEDULE = ("iterator_type", "batch_bins", "num_iters_per_epoch", "max_epoch", "accum_grad")
SCHEDULE += ("patience",)
LABELS = ("bandwidth_wrong", "bandwidth_missing", "task_wrong", "task_missing")


@dataclass(frozen=True)
class Corpus:
    """A corpus of the study.

    Attributes:
        key: Its name in the study.
        corpus: run.sh's name of it.
        corpus_dir: Where it lies; empty: db.sh's.
        args: Further options of run.sh, for every stage.
        config: The training config that systems change.
        assume: Task to the percent WER or BLEU to expect, for the power calculation.
    """

    key: str
    corpus: str
    corpus_dir: str
    args: tuple[str, ...]
    config: Path
    assume: Mapping[str, float]

    def option(self, name: str, default: str = "") -> str:
        """The value of an option of run.sh among `args`."""
        found = value_of(list(self.args), name)
        return default if found is None else found


@dataclass(frozen=True)
class DataChange:
    """What a system changes in the training data.

    Attributes:
        tasks: Train, decode and score these only; empty: all.
        labels: Share of the training examples with a wrong or missing label, by kind.
    """

    tasks: tuple[str, ...] = ()
    labels: tuple[tuple[str, float], ...] = ()

    def name(self, seed: int) -> str:
        """Of its directory; empty: the data are as they are. Labels are drawn anew per seed."""
        parts = [f"tasks_{'_'.join(self.tasks)}"] if self.tasks else []
        if self.labels:
            parts += [f"{kind}{share:g}" for kind, share in self.labels] + [f"seed{seed}"]
        return "_".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """As a system's file has it."""
        parts = {"tasks": list(self.tasks), "labels": dict(self.labels)}
        return {name: value for name, value in parts.items() if value}


@dataclass(frozen=True)
class Run:
    """One training with its decoding and scores.

    Attributes:
        corpus: On which.
        system, seed: Of what.
        config: The whole training config, with the seed.
        s2t_args: Further options of ESPnet's training.
        data: What is changed in the training data.
    """

    corpus: Corpus = field(repr=False)
    system: str
    seed: int
    config: Mapping[str, Any] = field(repr=False)
    s2t_args: str
    data: DataChange

    @property
    def name(self) -> str:
        return f"{self.system}_seed{self.seed}"

    @property
    def label(self) -> str:
        return f"{self.corpus.key}/{self.name}"

    @cached_property
    def schedule(self) -> dict[str, Any]:
        """The settings of `SCHEDULE`."""
        words = shlex.split(self.s2t_args)
        return {name: setting(words, name, self.config.get(name)) for name in SCHEDULE}


@dataclass(frozen=True)
class Experiment:
    """A program ``local/study_<name>.py`` on a finished run."""

    name: str
    run: Run
    args: str

    @property
    def label(self) -> str:
        return f"{self.run.corpus.key}/{self.name}_{self.run.name}"


@dataclass(frozen=True)
class Study:
    """A study, as `read_study` reads it."""

    name: str
    base: str
    results: Path
    report: Path
    corpora: dict[str, Corpus]
    runs: list[Run]
    experiments: list[Experiment]

    def planned_seeds(self, corpus: str) -> dict[str, int]:
        """The number of seeds of each system of a corpus."""
        seeds: dict[str, int] = {}
        for run in self.runs:
            if run.corpus.key == corpus:
                seeds[run.system] = seeds.get(run.system, 0) + 1
        return seeds


def read_study(path: Path) -> Study:
    """Read a study's YAML.

    Raises:
        DataError: Names the entry that is wrong, and what is accepted.
    """
    top = mapping(load(path), f"{path}", "name base results report corpora runs experiments")
    name = plain_name(top.get("name", path.stem), f"{path}: name")
    corpora = {
        plain_name(key, f"{path}: corpora"): read_corpus(key, entry, f"{path}: corpora.{key}")
        for key, entry in mapping(top.get("corpora"), f"{path}: corpora").items()
    }
    runs: dict[tuple[str, str, int], Run] = {}
    for number, entry in enumerate(top.get("runs") or []):
        for run in read_runs(entry, corpora, f"{path}: runs[{number}]"):
            place = (run.corpus.key, run.system, run.seed)
            if place in runs:
                raise DataError(f"{path}: {run.label} comes twice; accepted is once")
            runs[place] = run
    if not runs:
        raise DataError(f"{path}: runs is empty; accepted is a list of at least one entry")
    require_same_schedule(runs.values())
    experiments = []
    for number, entry in enumerate(top.get("experiments") or []):
        where = f"{path}: experiments[{number}]"
        entry = mapping(entry, where, "name corpus systems seeds args")
        require(entry, where, "name corpus systems seeds")
        for system in entry["systems"]:
            for seed in entry["seeds"]:
                place = (entry["corpus"], system, seed)
                if place not in runs:
                    raise DataError(f"{where}: {place[0]}/{system}_seed{seed} is none of the runs")
                program = plain_name(entry["name"], f"{where}.name")
                experiments.append(Experiment(program, runs[place], str(entry.get("args") or "")))
    results = Path(top.get("results", RESULTS))
    report = Path(top.get("report", "STUDY.md"))
    ordered = sorted(runs.values(), key=lambda run: run.seed)  # stable: pairs of systems early
    base = str(top.get("base", "base"))
    return Study(name, base, results, report, corpora, ordered, experiments)


def load(path: Path) -> Any:
    """A YAML file's content."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise DataError(f"{path}: {error}") from error


def mapping(value: Any, where: str, known: str = "") -> dict[str, Any]:
    """The value, which is to be a mapping with known keys."""
    if not isinstance(value, dict) or not value:
        raise DataError(f"{where}: {value!r}; accepted is a mapping that is not empty")
    unknown = [str(key) for key in value if known and key not in known.split()]
    if unknown:
        raise DataError(f"{where}: unknown {', '.join(unknown)}; accepted: {known}")
    return value


def require(entry: Mapping[str, Any], where: str, names: str) -> None:
    """Check that an entry has all of these keys."""
    missing = [name for name in names.split() if not entry.get(name)]
    if missing:
        raise DataError(f"{where}: {', '.join(missing)} is missing")


def plain_name(value: Any, where: str) -> str:
    """A name that is also one of a file."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise DataError(f"{where}: {value!r}; accepted are letters, digits, _ . -")
    return value


def read_corpus(key: str, entry: Any, where: str) -> Corpus:
    """One entry of ``corpora``."""
    entry = mapping(entry, where, "corpus corpus_dir args config assume")
    require(entry, where, "corpus")
    corpus = str(entry["corpus"])
    directory = os.path.expandvars(str(entry.get("corpus_dir") or ""))
    if directory.startswith("$"):  # not set: db.sh may know
        directory = ""
    config = Path(entry.get("config") or default_config(corpus, where))
    args = tuple(shlex.split(str(entry.get("args") or "")))
    return Corpus(key, corpus, directory, args, config, entry.get("assume") or {})


def default_config(corpus: str, where: str) -> str:
    """The training config that run.sh takes for a corpus."""
    command = '. ./db.sh; . local/corpora.sh; corpus_facts "$1" && echo "${facts_config}"'
    done = subprocess.run(["bash", "-c", command, "bash", corpus], capture_output=True, text=True)
    if done.returncode != 0:
        raise DataError(f"{where}: corpus {corpus!r} is unknown; see ./run.sh --help")
    return done.stdout.strip()


def read_runs(entry: Any, corpora: Mapping[str, Corpus], where: str) -> Iterable[Run]:
    """One entry of ``runs``."""
    entry = mapping(entry, where, "corpus systems seeds s2t_args")
    require(entry, where, "corpus systems seeds")
    if entry["corpus"] not in corpora:
        known = ", ".join(corpora)
        raise DataError(f"{where}: corpus {entry['corpus']!r}; accepted: {known}")
    corpus = corpora[entry["corpus"]]
    for system in entry["systems"]:
        config, data = read_system(corpus, plain_name(system, f"{where}.systems"))
        for seed in entry["seeds"]:
            if not isinstance(seed, int):
                raise DataError(f"{where}: seed {seed!r}; accepted are whole numbers")
            yield Run(
                corpus, system, seed, {**config, "seed": seed}, entry.get("s2t_args") or "", data
            )


def read_system(corpus: Corpus, system: str) -> tuple[dict[str, Any], DataChange]:
    """The training config of a system on a corpus, and what it changes in the data.

    Raises:
        DataError: No such system, or data that are not understood.
    """
    from study_config import merge_system

    path = SYSTEMS / f"{system}.yaml"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in SYSTEMS.glob("*.yaml"))) or "none"
        raise DataError(f"{path}: no such system; {SYSTEMS} has: {known}")
    changes = dict(load(path) or {})
    data = read_data(changes.pop("data", None), f"{path}: data")
    try:
        return merge_system(load(corpus.config), changes), data
    except ValueError as error:
        raise DataError(f"{path} on {corpus.config}: {error}") from error


def read_data(entry: Any, where: str) -> DataChange:
    """A system's ``data``."""
    if entry is None:
        return DataChange()
    entry = mapping(entry, where, "tasks labels")
    labels = mapping(entry["labels"], f"{where}.labels", " ".join(LABELS)) if (
        entry.get("labels")
    ) else {}  # fmt: skip
    for kind, share in labels.items():
        if not isinstance(share, int | float) or not 0 <= share <= 1:
            raise DataError(f"{where}.labels.{kind}: {share!r}; accepted is a share, 0 to 1")
    given = tuple((kind, float(share)) for kind, share in sorted(labels.items()) if share)
    return DataChange(tuple(entry.get("tasks") or ()), given)


def require_same_schedule(runs: Iterable[Run]) -> None:
    """Check that all runs of a corpus see the same batches, equally often.

    Raises:
        DataError: Names two runs and the setting in which they differ.
    """
    first: dict[str, Run] = {}
    for run in runs:
        other = first.setdefault(run.corpus.key, run)
        for name in SCHEDULE:
            mine, theirs = run.schedule[name], other.schedule[name]
            if mine != theirs:
                raise DataError(
                    f"{name} is {theirs!r} in {other.label} and {mine!r} in {run.label}; accepted "
                    "is the same for all runs of a corpus, which then make the same updates"
                )
