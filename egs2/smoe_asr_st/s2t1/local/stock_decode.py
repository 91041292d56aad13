#!/usr/bin/env python3
"""Stage 12 with ``--stock_decode true``: decode with ESPnet's own ``s2t_inference``.

Each job decodes a stretch of one test set for one task. A job that has ended is kept: a rerun
does only what is missing, unless the model or an option has changed.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import decode_dir
from decode_dir import TRANSCRIBING
from jobs import Job, run_jobs, split

from espnet_smoe import bbpe
from espnet_smoe.datadir import DataError, read_table, write_table
from espnet_smoe.model import ROUTE_LOG_VARIABLE, ROUTE_VARIABLE
from espnet_smoe.routing import SPECIAL

NUMBER = re.compile(r"[-+]?(?:\d[\d.]*(?:e[-+]?\d+)?|inf|nan)")


@dataclass(frozen=True)
class Stretch:
    """Utterances of one test set, decoded for one task by one process."""

    test_set: str
    task: str
    language: str
    index: int
    utts: dict[str, str]  # with what their audio is known by

    @property
    def name(self) -> str:
        return f"{self.test_set}.{self.task}.{self.language}.{self.index}"


def plan(examples: Path, sets: list[str], tasks: list[str], nj: int) -> list[Stretch]:
    """Cut the test sets into stretches, so many that `nj` processes have work to the end."""
    found = {s.name: s for s in decode_dir.read_sets(examples, sets, tasks)}
    groups: dict[tuple[str, str, str], list[str]] = {}
    for name, s in found.items():
        for task in s.tasks:
            for utt, language in s.languages.items():
                groups.setdefault((name, task, language), []).append(utt)
    parts = max(1, -(-nj // max(1, len(groups))))
    return [
        Stretch(*key, index, {utt: found[key[0]].audio[utt] for utt in part})
        for key, utts in groups.items()
        for index, part in enumerate(split(utts, parts))
    ]


def inference_options(args: argparse.Namespace, task: str) -> list[str]:
    """ESPnet's options for one task: CTC scores what it is trained on, transcripts, if at all."""
    config = decode_dir.inference_config(args)
    has_ctc = decode_dir.has_ctc(args.s2t_dir)
    options = ["--config", str(args.config)]
    if config.get("ctc_weight", 0.0) > 0.0 and (task != TRANSCRIBING or not has_ctc):
        options += ["--ctc_weight", "0.0"]
    return options


def warn_of_ctc(options: list[str], tasks: list[str]) -> None:
    """Say so when the user's own options put CTC on a task that it was not trained for."""
    weights = [options[i + 1] for i, o in enumerate(options[:-1]) if o == "--ctc_weight"]
    weights += [o.partition("=")[2] for o in options if o.startswith("--ctc_weight=")]
    others = [task for task in tasks if task != TRANSCRIBING]
    if others and any(float(weight) > 0.0 for weight in weights):
        print(
            f"stock_decode.py: warning: --ctc_weight {weights[-1]} is used on "
            f"{', '.join(others)} too; CTC is trained on transcripts and ruins other "
            f"tasks. Set it in the inference config, where it counts for {TRANSCRIBING} only",
            file=sys.stderr,
        )


def decode(args: argparse.Namespace, options: list[str]) -> None:
    """Decode what is missing, then gather each test set's and task's results."""
    stretches = plan(args.examples, args.sets.split(), args.tasks.split(), args.nj)
    warn_of_ctc(options, list(dict.fromkeys(s.task for s in stretches)))
    jobs_dir = args.out / "jobs"
    decode_dir.prepare(args.out, decode_dir.fingerprint(args, options, "stock_decode.py"))
    jobs, working = [], []
    for stretch in stretches:
        final = jobs_dir / stretch.name
        if is_done(final, stretch):
            continue
        partial = jobs_dir / f"{stretch.name}.partial"
        jobs.append(make_job(args, options, stretch, partial, final))
        working.append(partial / "1best_recog" / "score")
    total = sum(len(s.utts) for s in stretches)
    waiting = sum(len(s.utts) for s in stretches if not (jobs_dir / s.name).exists())

    def done() -> int:
        lines = sum(p.read_bytes().count(b"\n") for p in working if p.exists())
        kept = sum(len(s.utts) for s in stretches if (jobs_dir / s.name).exists())
        return min(total, kept + lines)

    if waiting or jobs:
        run_jobs(
            jobs,
            nj=1 if args.ngpu else args.nj,
            total=total,
            done=done,
            title="decode",
            unit="utt",
        )
    for key in dict.fromkeys((s.test_set, s.task) for s in stretches):
        gather(args.out, jobs_dir, key, [s for s in stretches if (s.test_set, s.task) == key])


def is_done(directory: Path, stretch: Stretch) -> bool:
    """Has this stretch been decoded, with these utterances and this audio?"""
    keys = directory / "keys"
    return keys.exists() and read_table(keys, allow_empty=True) == stretch.utts


def make_job(
    args: argparse.Namespace, options: list[str], stretch: Stretch, partial: Path, final: Path
) -> Job:
    """One run of ESPnet's inference program, in a directory that becomes `final` at its end."""
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(final, ignore_errors=True)
    partial.mkdir(parents=True)
    write_table(partial / "keys", stretch.utts)
    routes = partial / "routes"
    wav_scp = args.examples / stretch.test_set / "wav.scp"
    command = [
        *args.python.split(),
        *("-m", "espnet_smoe.run", "-m", "espnet2.bin.s2t_inference"),
        *("--output_dir", str(partial), "--key_file", str(partial / "keys")),
        *("--ngpu", str(min(args.ngpu, 1)), "--num_workers", "0"),  # it decodes on one GPU
        *("--s2t_train_config", str(args.s2t_dir / "config.yaml")),
        *("--s2t_model_file", str(args.s2t_dir / args.model)),
        *("--data_path_and_name_and_type", f"{wav_scp},speech,{args.audio_type}"),
        *("--lang_sym", stretch.language, "--task_sym", stretch.task),
        *inference_options(args, stretch.task),
        *options,
    ]
    environment = {"OMP_NUM_THREADS": "1", ROUTE_LOG_VARIABLE: str(routes.absolute())}
    if args.route_override:
        environment[ROUTE_VARIABLE] = args.route_override

    def finish() -> None:
        best = partial / "1best_recog"
        rows = {utt: tokens.split() for utt, tokens in read_unsorted(best / "token").items()}
        if list(rows) != list(stretch.utts):
            raise DataError(f"{best}: {len(rows)} of {len(stretch.utts)} utterances decoded")
        texts = {
            utt: bbpe.decode([t for t in tokens if not SPECIAL.fullmatch(t)])
            for utt, tokens in rows.items()
        }
        write_table(partial / "text", texts)
        scores = read_unsorted(best / "score")
        write_table(partial / "score", {utt: plain(score) for utt, score in scores.items()})
        if routes.exists():  # one line per utterance, in the order of the keys
            names = routes.read_text(encoding="utf-8").split()
            if len(names) != len(stretch.utts):
                raise DataError(f"{routes}: {len(names)} routes for {len(stretch.utts)} utterances")
            write_table(partial / "utt2route", dict(zip(stretch.utts, names, strict=True)))
        partial.rename(final)

    return Job(command, partial / "log", environment, finish)


def read_unsorted(path: Path) -> dict[str, str]:
    """Read a table that ESPnet wrote: in the order of decoding, empty hypotheses included."""
    rows = (line.partition(" ") for line in path.read_text(encoding="utf-8").split("\n") if line)
    return {utt: value.strip() for utt, _, value in rows}


def plain(score: str) -> str:
    """The number in ESPnet's ``tensor(-8.4969)`` or ``tensor(-8.4969, device='cuda:0')``."""
    found = NUMBER.search(score)
    if found is None:
        raise DataError(f"{score!r} holds no score")
    return found[0]


def gather(out: Path, jobs_dir: Path, key: tuple[str, str], stretches: list[Stretch]) -> None:
    """Put the stretches of one test set and task together."""
    test_set, task = key
    tables: dict[str, dict[str, str]] = {"text": {}, "score": {}, "utt2route": {}}
    for name, table in tables.items():
        for stretch in stretches:
            path = jobs_dir / stretch.name / name
            if path.exists():
                table.update(read_table(path, allow_empty=True))
    decode_dir.write_results(out, test_set, task, tables)


if __name__ == "__main__":
    sys.exit(decode_dir.run(decode, "stock_decode.py", __doc__))
