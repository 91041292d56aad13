"""Which runs and experiments of a study are done, and the jobs for the others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from jobs import Job
from study_data import TRAIN, decoded_sets
from study_places import (
    Places,
    code_commit,
    differences,
    evaluation_facts,
    identity,
    program,
    training_facts,
)
from study_plan import Experiment, Run, Study
from study_queue import Failure, Task
from study_results import read_json, read_result, write_result

from espnet_smoe.datadir import DataError, write_text

KEEP = ("none", "best", "all")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


class State:
    """A study against what is on disk.

    Args:
        study: The study.
        nproc: Processes at a time; noted in the results, whose times depend on it.
        ngpu: GPUs of each training; None: as the study's options of run.sh say.
        other_commits: ``accept`` takes results and trainings of another commit.
        keep: Which checkpoints stay: one of `KEEP`.

    Raises:
        DataError: A result's file is of other settings than the study's. Names both.
    """

    def __init__(
        self, study: Study, *, nproc: int, other_commits: str, keep: str, ngpu: int | None = None
    ) -> None:
        self.study = study
        self.nproc = nproc
        self.other_commits = other_commits
        self.keep = keep
        self.places = {key: Places(study, corpus, ngpu) for key, corpus in study.corpora.items()}
        self._left_out: set[str] = set()
        wrong = [line for run in study.runs for line in self.mismatch(run)]
        if wrong:
            raise DataError(
                "\n  ".join(["results of other settings than the study's (file's / now):", *wrong])
                + "\nMove them away to train anew, or change the study; of another commit, "
                "--other_commits accept takes them"
            )

    def done(self, run: Run) -> bool:
        return self.places[run.corpus.key].json(run).exists()

    def pending(self, corpus: str) -> list[Run]:
        """The runs of a corpus that are still to do."""
        if corpus in self._left_out:
            return []
        return [run for run in self.study.runs if run.corpus.key == corpus and not self.done(run)]

    def open_experiments(self, run: Run | None = None) -> list[Experiment]:
        """The experiments that are still to do, of one run or of all."""
        return [
            experiment
            for experiment in self.study.experiments
            if (run is None or experiment.run.label == run.label)
            and not self.places[experiment.run.corpus.key].experiment_json(experiment).exists()
        ]

    def overview(self) -> list[tuple[str, bool]]:
        """Label and state of every run and experiment."""
        open_labels = {experiment.label for experiment in self.open_experiments()}
        runs = [(run.label, self.done(run)) for run in self.study.runs]
        return runs + [(e.label, e.label not in open_labels) for e in self.study.experiments]

    def leave_out(self, corpus: str) -> None:
        """Do nothing more for a corpus."""
        self._left_out.add(corpus)

    def identity(self, run: Run) -> dict[str, Any]:
        """What the run is, and of which commit."""
        whole = {**identity(run), "commit": code_commit()}
        return json.loads(json.dumps(whole))  # as it is read back

    def mismatch(self, run: Run) -> list[str]:
        """How a finished run differs from what the study says; nothing for others."""
        if not self.done(run):
            return []
        path = self.places[run.corpus.key].json(run)
        found, wanted = read_result(path).content, self.identity(run)
        if self.other_commits == "accept":
            wanted.pop("commit")
        differs = differences({name: found.get(name) for name in wanted}, wanted)
        return [f"{path} / {run.label}: {'; '.join(differs)}"] if differs else []

    def require_same_data(self, places: Places) -> None:
        """Check that the data made here are those of the runs that are done already.

        Raises:
            DataError: Names a file and both lists.
        """
        here = training_facts(places.dumpdir / "s2t" / TRAIN)
        for run in self.study.runs:
            if run.corpus.key == places.corpus.key and self.done(run) and not run.data.as_dict():
                there = read_result(places.json(run)).content["train"]
                if there != here:
                    raise DataError(
                        f"{places.json(run)} was trained on {there}, and here is {here}: "
                        "not the same data"
                    )

    def tasks(self) -> list[Task]:
        """The jobs: a check of each system, the runs by seed, then the experiments."""
        runs = [
            run
            for run in self.study.runs
            if run.corpus.key not in self._left_out and not self.done(run)
        ]
        checks: dict[tuple[str, str], Task] = {}
        tasks = []
        for run in runs:
            system = (run.corpus.key, run.system)
            if system not in checks:
                checks[system] = self.check(run)
            tasks.append(self.train(run, checks[system].label))
        labels = {task.label for task in tasks}
        experiments = [
            self.experiment(experiment)
            for experiment in self.open_experiments()
            if experiment.run.label in labels or self.model_is_there(experiment.run)
        ]
        for run in self.study.runs:
            if self.done(run):
                self.tidy(run)
        return [*checks.values(), *tasks, *experiments]

    def check(self, run: Run) -> Task:
        """run.sh's stage 8: a config that cannot be trained shows before hours are spent."""
        places = self.places[run.corpus.key]
        label = f"{run.corpus.key}/check {run.system}"
        return Task(label, Job(places.command(run, (8, 8)), places.log(f"check_{run.system}")))

    def train(self, run: Run, check: str) -> Task:
        """A run, from training to its JSON."""
        places = self.places[run.corpus.key]
        examples = places.examples(run)
        job = {
            "name": run.corpus.key,
            "identity": self.identity(run),
            "data": {
                "train": training_facts(examples / TRAIN),
                "tests": {
                    name: evaluation_facts(examples / name) for name in decoded_sets(examples)
                },
            },
            "commands": {
                step: places.command(run, (stage, stage))
                for step, stage in (("train", 11), ("decode", 12), ("score", 13))
            },
            "s2t_dir": str(places.s2t_dir(run)),
            "decode_dir": str(places.decode_dir(run)),
            "examples": str(examples),
            "normalisation": run.corpus.option("text_normalisation", "nfc_ws"),
            "processes": self.nproc,
            "out": str(places.json(run)),
        }
        path = places.expdir / "jobs" / f"{run.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(job, indent=1) + "\n")
        command = program("study_run", "--job", path, "--other_commits", self.other_commits)
        log = places.log(run.name)
        return Task(
            run.label,
            Job(command, log, ONE_THREAD, append=True),
            needs=(check,),
            finish=lambda: self.finish_run(run),
        )

    def finish_run(self, run: Run) -> None:
        """Check that the JSON is there; make room."""
        read_result(self.places[run.corpus.key].json(run))
        self.tidy(run)

    def experiment(self, experiment: Experiment) -> Task:
        """An experiment's program; what it writes gets the run's particulars."""
        run = experiment.run
        places = self.places[run.corpus.key]
        name = f"{experiment.name}_{run.name}"
        out = places.expdir / "experiments" / f"{name}.json"
        out.parent.mkdir(parents=True, exist_ok=True)
        examples = places.examples(run)
        command = program(
            f"study_{experiment.name}",
            *("--s2t_dir", places.s2t_dir(run), "--model_file", places.model(run).name),
            *("--examples", examples),
            *("--sets", " ".join(decoded_sets(examples)), "--out", out, *experiment.args.split()),
        )

        def finish() -> None:
            content = read_json(out)
            if not isinstance(content, dict):
                raise DataError(f"{out}: a list; accepted is a JSON object")
            particulars = {"corpus": run.corpus.key, "name": run.system, "seed": run.seed}
            whole = {**content, **particulars, "commit": code_commit()}
            write_result(places.experiment_json(experiment), whole)
            self.tidy(run)

        job = Job(command, places.log(name), ONE_THREAD)
        return Task(experiment.label, job, needs=(run.label,), finish=finish)

    def model_is_there(self, run: Run) -> bool:
        return self.places[run.corpus.key].model(run).exists()

    def lost_models(self) -> list[Failure]:
        """Experiments whose run is done, but not its model: trained elsewhere, or removed."""
        return [
            Failure(
                experiment.label,
                f"{self.places[experiment.run.corpus.key].model(experiment.run)} is not here; "
                f"remove {self.places[experiment.run.corpus.key].json(experiment.run)} to train it "
                "again, or run the experiment where it was trained",
            )
            for experiment in self.open_experiments()
            if self.done(experiment.run) and not self.model_is_there(experiment.run)
        ]

    def tidy(self, run: Run) -> None:
        """Remove the checkpoints of a finished run that are not to be kept, after experiments."""
        if self.keep == "all" or self.open_experiments(run):
            return
        places = self.places[run.corpus.key]
        kept: set[Path] = set()
        if self.keep == "best":
            model = places.model(run)
            kept = {model, model.resolve()}
        directory = places.s2t_dir(run)
        for path in directory.glob("*.pth"):
            if path not in kept and path.resolve() not in kept:
                path.unlink()
        shutil.rmtree(directory / "before_restart", ignore_errors=True)
