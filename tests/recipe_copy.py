"""A copy of the recipe directory, its programs run there, and what stage 12 leaves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_smoe.audio import read_audio
from espnet_smoe.datadir import read_table

REPOSITORY = Path(__file__).parents[1]
RECIPE = REPOSITORY / "egs2" / "smoe_asr_st" / "s2t1"
PARTS = ("run.sh", "path.sh", "cmd.sh", "db.sh", "conf", "local")


def copy_recipe(target: Path) -> Path:
    """Copy the recipe's own files; what it made in its own place stays behind."""
    target.mkdir(parents=True)
    for name in PARTS:
        source = RECIPE / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("*_cache"))
        else:
            shutil.copy2(source, target / name)
    shutil.copy2(REPOSITORY / "tests" / "data" / "train_tiny.yaml", target / "conf")
    return target


def environment() -> dict[str, str]:
    """This interpreter and package first: the copy is at another depth than the original."""
    binaries = Path(sys.executable).parent
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
    }


def run(recipe: Path, *options: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the recipe's run.sh; stdout and stderr come together."""
    return call([str(recipe / "run.sh"), *options], cwd=cwd or recipe.parent)


def call(command: Sequence[str], *, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command with the recipe's environment; stdout and stderr come together."""
    return subprocess.run(
        list(command),
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def scores_of(directory: Path) -> dict[str, float]:
    """The scores of a test set and task."""
    return {utt: float(score) for utt, score in read_table(directory / "score").items()}


def tolerance(path: str | Path) -> float:
    """By how much the scores of ESPnet's program may differ from ours for a recording.

    ESPnet's pads with zeros; trimming them takes zeros at the recording's own end along.
    """
    return 1e-3 if read_audio(path)[0][-1] else 0.2
