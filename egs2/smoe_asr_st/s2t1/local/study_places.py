"""Where a study's things are, the run.sh commands that make them, and what identifies a run."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from options import value_of
from study_plan import Corpus, Experiment, Run, Study

from espnet_smoe.datadir import iter_table, read_table, write_text

DECODE_TAG = "decode"
FS = 16000  # Hz, run.sh's default
# Of run.sh: these change where and how fast, not what.
HOST_OPTIONS = frozenset({"nj", "ngpu", "dask", "python", "train_threads", "decode_threads"})
# Two models whose configs agree in these have the same features.
FEATURES = ("frontend", "frontend_conf", "preprocessor", "preprocessor_conf")
# What a model's figures do not depend on, as git's patterns; see `code_commit`.
NOT_CODE = ("study", "STUDY.md", "conf/study", "local/study*")
NOT_CODE_TOP = (  # what analyses runs, or looks at finished models
    *("espnet_smoe/paired.py", "espnet_smoe/power.py", "espnet_smoe/plots.py"),
    *("espnet_smoe/swaps.py", "espnet_smoe/failures.py", "espnet_smoe/mixing.py"),
    *("espnet_smoe/mutual_information.py", "espnet_smoe/gradient_cosines.py"),
    "espnet_smoe/teacher_forcing.py",
)
DATA_TABLES = ("text", "text.ctc", "utt2bw", "bandwidth", "utt2task", "utt2num_samples")


@dataclass(frozen=True)
class Places:
    """Directories and commands of a corpus in a study, relative to the recipe's directory.

    Attributes:
        study, corpus: Which.
        ngpu: GPUs of each training, whatever the corpus's ``args`` say; None: as they say.
    """

    study: Study
    corpus: Corpus
    ngpu: int | None = None

    @property
    def datadir(self) -> Path:
        return Path("data") / f"study_{self.corpus.key}"

    @property
    def dumpdir(self) -> Path:
        return Path("dump") / f"study_{self.corpus.key}"

    @property
    def expdir(self) -> Path:
        return Path("exp") / f"study_{self.study.name}" / self.corpus.key

    @property
    def results(self) -> Path:
        return self.study.results / self.corpus.key

    def dump_of(self, run: Run) -> Path:
        """The dump directory that a run trains on."""
        variant = run.data.name(run.seed)
        return self.dumpdir / "variants" / variant if variant else self.dumpdir

    def examples(self, run: Run) -> Path:
        return self.dump_of(run) / "s2t"

    def s2t_dir(self, run: Run) -> Path:
        return self.expdir / f"s2t_{tag(run)}"

    def decode_dir(self, run: Run) -> Path:
        return self.s2t_dir(run) / DECODE_TAG

    def stats(self, run: Run) -> Path:
        """Feature statistics: one directory for all models of the same features."""
        features = {name: run.config.get(name) for name in FEATURES}
        return self.expdir / f"stats_{digest(features)[:8]}"

    def config(self, run: Run) -> Path:
        return self.expdir / "conf" / f"{run.name}.yaml"

    def log(self, name: str) -> Path:
        return self.expdir / "log" / f"{name}.log"

    def json(self, run: Run) -> Path:
        return self.results / f"{run.name}.json"

    def experiment_json(self, experiment: Experiment) -> Path:
        name = f"{experiment.name}_{experiment.run.name}.json"
        return self.results / "experiments" / name

    def model(self, run: Run) -> Path:
        """The model that is decoded."""
        name = self.corpus.option("inference_model", "valid.acc.ave.pth")
        return self.s2t_dir(run) / name

    def command(
        self, run: Run, stages: tuple[int, int], *, dumpdir: Path | None = None, nj: int = 1
    ) -> list[str]:
        """run.sh's command for stages of a run.

        Args:
            run: Its config and data.
            stages: The first and the last.
            dumpdir: Another one than the run's.
            nj: Processes of a stage.
        """
        options = {
            "corpus": self.corpus.corpus,
            "corpus_dir": self.corpus.corpus_dir,
            "datadir": self.datadir,
            "dumpdir": dumpdir or self.dump_of(run),
            "expdir": self.expdir,
            "stage": stages[0],
            "stop_stage": stages[1],
            "s2t_config": self.config(run),
            "s2t_tag": tag(run),
            "s2t_args": run.s2t_args,
            "stats_dir": self.stats(run),
            "inference_tag": DECODE_TAG,
            "tasks": " ".join(run.data.tasks),
            "train_threads": 1,
            "decode_threads": 1,
            "nj": nj,
            "ngpu": "" if self.ngpu is None else self.ngpu,
        }
        words = ["./run.sh", *self.corpus.args]
        for name, value in options.items():
            if str(value):
                words += [f"--{name}", str(value)]
        return with_parent(words)

    def write_config(self, run: Run, config: Mapping[str, Any]) -> None:
        """Write a run's training config."""
        self.config(run).parent.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
        write_text(self.config(run), text)


def tag(run: Run) -> str:
    """run.sh's --s2t_tag of a run."""
    return f"study_{run.name}"


@cache
def _setpriv() -> tuple[str, ...]:
    command = ("setpriv", "--pdeathsig", "KILL")
    try:
        done = subprocess.run([*command, "true"], capture_output=True, check=False)
    except OSError:
        return ()
    return command if done.returncode == 0 else ()


def with_parent(command: Sequence[str]) -> list[str]:
    """The command, killed when this process is: a restart finds nobody else writing."""
    return [*_setpriv(), *command]


def program(name: str, *options: object) -> list[str]:
    """A program of ``local``, killed when this process is."""
    return with_parent([sys.executable, f"local/{name}.py", *map(str, options)])


def digest(value: Any) -> str:
    """Of a JSON value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def portable(args: Sequence[str]) -> list[str]:
    """Options of run.sh without those that only speak of the machine."""
    kept: list[str] = []
    skip = False
    for word in args:
        name, equals, _ = word.removeprefix("--").partition("=")
        if skip:
            skip = False
        elif word.startswith("--") and name in HOST_OPTIONS:
            skip = not equals
        else:
            kept.append(word)
    return kept


def identity(run: Run) -> dict[str, Any]:
    """What a run is, the same on every machine: a result of another identity is another run's."""
    corpus = run.corpus
    return {
        "corpus": corpus.corpus,
        "args": portable(corpus.args),
        "system": run.system,
        "seed": run.seed,
        "config": dict(run.config),
        "s2t_args": run.s2t_args,
        "data": run.data.as_dict(),
        "inference": inference(corpus),
    }


def inference(corpus: Corpus) -> dict[str, Any]:
    """The decoding options of the corpus."""
    path = Path(value_of(list(corpus.args), "inference_config") or "conf/decode.yaml")
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def differences(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Names and both values of what differs in two identities."""
    found = []
    for name in sorted({*one, *other}):
        a, b = one.get(name), other.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{name}.")
        elif a != b:
            found.append(f"{prefix}{name} {a!r} / {b!r}")
    return found


@cache
def code_commit() -> str:
    """The last commit that changed what figures depend on, ``-dirty`` if that has changed since.

    Commits of results, reports and of the study's own programs do not change it, so that a study
    can be continued after them. ``unknown`` without git.
    """
    paths = [":(top)espnet_smoe", "."]
    paths += [f":(exclude){name}" for name in NOT_CODE]
    paths += [f":(top,exclude){name}" for name in NOT_CODE_TOP]
    try:
        last, changed = (
            subprocess.run(
                ["git", *words, "--", *paths], capture_output=True, text=True, check=True
            ).stdout.strip()
            for words in (["log", "-1", "--format=%h"], ["diff", "--name-only", "HEAD"])
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return (last or "unknown") + ("-dirty" if changed else "")


def training_facts(directory: Path) -> dict[str, Any]:
    """Size and hash of a training set of stage 4; paths are not in it, audio by its length."""
    samples = read_table(directory / "utt2num_samples")
    return {
        "examples": len(samples),
        "hours": round(sum(map(int, samples.values())) / FS / 3600, 2),
        "sha256": tables_hash(directory, DATA_TABLES),
    }


def evaluation_facts(directory: Path) -> dict[str, Any]:
    """Size and hash of a test set of stage 4: ids, references, bandwidths."""
    texts = sorted(path.name for path in directory.glob("text*"))
    return {
        "utterances": sum(1 for _ in iter_table(directory / "wav.scp")),
        "sha256": tables_hash(directory, [*texts, "utt2bw", "utt2num_samples"]),
    }


def tables_hash(directory: Path, names: Sequence[str]) -> str:
    """Of those of the tables that there are, with their names."""
    sha = hashlib.sha256()
    for name in names:
        if (directory / name).is_file():
            sha.update(name.encode() + b"\0" + (directory / name).read_bytes() + b"\0")
    return sha.hexdigest()[:16]
