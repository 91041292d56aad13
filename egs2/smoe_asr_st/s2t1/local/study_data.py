"""The study's data: stages 1 to 7 and the statistics once per corpus, and changed training sets.

What is done is noted in ``dump/study_<corpus>/study.json``; a rerun goes on behind it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs import TAIL_LINES
from make_examples import EXAMPLE_TABLES, SPEAKERS
from study_places import Places, portable
from study_plan import Run

from espnet_smoe.batching import PLAN_NAME, iter_plan, write_plan
from espnet_smoe.datadir import DataError, iter_table, read_table, write_table
from espnet_smoe.datadir import write_text as write

DATA_STAGES = range(1, 8)  # 8: per system; 9: in the results; 10: per kind of features
TRAIN, VALID = "train", "valid"
SELECTED = "selected"  # of some tasks, before their labels are changed
MADE = "study_made"  # an empty file: the examples are complete


def prepare(places: Places, runs: Sequence[Run], nj: int) -> None:
    """Make what the runs of a corpus need, as far as it is not there.

    Args:
        places: Of the corpus.
        runs: Those that are still to do.
        nj: Processes at a time.

    Raises:
        DataError: A stage failed (with the end of its log), or the data there are of other options.
    """
    first = next((run for run in runs if not run.data.name(run.seed)), runs[0])
    mark = places.dumpdir / "study.json"
    wanted = {
        "corpus": places.corpus.corpus,
        "args": portable(places.corpus.args),
        "batch_bins": first.schedule["batch_bins"],
    }
    done = json.loads(mark.read_text(encoding="utf-8")) if mark.exists() else {**wanted, "stage": 0}
    made = {name: done[name] for name in wanted}
    if made != wanted:
        raise DataError(
            f"{places.dumpdir} was made with {made}, and now asked for is {wanted}: remove it and "
            f"{places.datadir}, or give the corpus another name in the study"
        )
    places.write_config(first, dict(first.config))
    for stage in DATA_STAGES:
        if stage > done["stage"]:
            call(places, first, stage, nj)
            places.dumpdir.mkdir(parents=True, exist_ok=True)
            write(mark, json.dumps({**wanted, "stage": stage}) + "\n")
    for run in runs:
        change_data(places, run)
        places.write_config(run, epoch_config(places, run))
    for run in runs:
        if not (places.stats(run) / TRAIN / "feats_stats.npz").exists():
            call(places, run, 10, nj)


def call(places: Places, run: Run, stage: int, nj: int) -> None:
    """Run a stage on the corpus's own data."""
    print(f"{places.corpus.key}: stage {stage}", flush=True)
    command = places.command(run, (stage, stage), dumpdir=places.dumpdir, nj=nj)
    log = places.log(f"stage_{stage}")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
        text = "\n".join(f"    {line}" for line in tail)
        raise DataError(f"stage {stage}: exit status {done.returncode}; the end of {log}:\n{text}")


def change_data(places: Places, run: Run) -> None:
    """Make the examples of a run whose system changes the data.

    The batches are those of the unchanged data: of its tasks alone, or with other labels.
    """
    out, source = places.examples(run), places.dumpdir / "s2t"
    mark = out / MADE
    if out == source or mark.exists():
        return
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for name in decoded_sets(source):
        (out / name).symlink_to(os.path.relpath(source / name, out))
    whole = source
    if run.data.tasks:
        whole = out / SELECTED if run.data.labels else out
        for name in (TRAIN, VALID):
            select_tasks(source / name, whole / name, run.data.tasks)
    if run.data.labels:
        from study_labels import corrupt_examples

        # the copy may link to its source
        shutil.copytree(whole / VALID, out / VALID)
        corrupt_examples(whole / TRAIN, out / TRAIN, seed=run.seed, **dict(run.data.labels))
        require_planned(out / TRAIN)
    mark.touch()


def decoded_sets(examples: Path) -> list[str]:
    """The test sets of stage 4, as they are decoded."""
    names = (path.name for path in examples.iterdir() if path.is_dir())
    return sorted(name for name in names if name not in (TRAIN, VALID, SELECTED))


def select_tasks(source: Path, out: Path, tasks: Sequence[str]) -> None:
    """Copy the examples and the planned batches of some tasks."""
    out.mkdir(parents=True)
    utt2task = read_table(source / "utt2task")
    unknown = sorted(set(tasks) - set(utt2task.values()))
    if unknown:
        known = ", ".join(sorted(set(utt2task.values())))
        raise DataError(f"{source}: no example of task {', '.join(unknown)}; there are: {known}")
    for name in (*EXAMPLE_TABLES.split(), SPEAKERS):
        if (source / name).exists():
            rows = iter_table(source / name)
            write_table(out / name, {utt: row for utt, row in rows if utt2task[utt] in tasks})
    write_plan(out / PLAN_NAME, (b for b in iter_plan(source / PLAN_NAME) if b.task in tasks))


def require_planned(directory: Path) -> None:
    """Check that the plan holds the examples, and no others."""
    planned = {utt for batch in iter_plan(directory / PLAN_NAME) for utt in batch.utts}
    examples = read_table(directory / "wav.scp").keys()
    if planned != examples:
        raise DataError(
            f"{directory}: {len(planned ^ examples)} example(s) are either not planned or not "
            "there; changed labels must leave the examples as they are"
        )


def updates_per_epoch(places: Places) -> int:
    """Batches of the unchanged plan."""
    return sum(1 for _ in iter_plan(places.dumpdir / "s2t" / TRAIN / PLAN_NAME))


def epoch_config(places: Places, run: Run) -> dict[str, Any]:
    """The run's config, with as many updates an epoch as on the unchanged data."""
    if run.schedule["num_iters_per_epoch"] is None and run.data.tasks:
        return {**run.config, "num_iters_per_epoch": updates_per_epoch(places)}
    return dict(run.config)
