#!/usr/bin/env python3
"""Add a task to the trained mini model: what it learns, and that nothing old changes.

Run in the recipe directory after stage 11:

    python ../../../benchmarks/add_task.py --model exp/mini/s2t_train_mini \
        --examples dump/mini/s2t --work DIR [--task intent | written] [--max_utts N]

A new decoder expert, its token's rows with it, is trained on the task (`mini_tasks`) by ESPnet's
own program, everything else frozen. Then the task is scored on both test sets with a 95 % bootstrap
interval, and `espnet_smoe.sameness` compares all old routes with those of the old model.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from mini_tasks import METRIC, SOURCES, TASKS
from tqdm import tqdm

from espnet_smoe import Speech2Text
from espnet_smoe.audio import read_audio
from espnet_smoe.datadir import read_table, write_table
from espnet_smoe.extend import DECODER, NewExpert, extend
from espnet_smoe.pretrained import find_model, load
from espnet_smoe.sameness import compare
from espnet_smoe.scoring import score

LOCAL = Path("local")
AS_THEY_ARE = ("wav.scp", "text.prev", "text.ctc", "bandwidth", "utt2bw", "utt2num_samples")
DATA = (
    ("wav.scp", "speech", "sound"),
    ("text", "text", "text"),
    ("text.prev", "text_prev", "text"),
    ("text.ctc", "text_ctc", "text"),
    ("bandwidth", "bandwidth", "text_int"),
)


def make_examples(source: Path, target: Path, task: str) -> Counter[str]:
    """Turn the asr examples of a set into examples of the task; count its texts."""
    target.mkdir(parents=True)
    tables = {name: read_table(source / name) for name in (*AS_THEY_ARE, "utt2task")}
    utts = [utt for utt, of in tables["utt2task"].items() if of == "asr"]
    new_id = {utt: f"{utt.removesuffix('_asr')}_{task}" for utt in utts}
    for name in AS_THEY_ARE:
        write_table(target / name, {new_id[utt]: tables[name][utt] for utt in utts})
    texts = {utt: TASKS[task](tables["text.ctc"][utt]) for utt in utts}
    write_table(
        target / "text", {new_id[u]: f"<spa><{task}><notimestamps> {t}" for u, t in texts.items()}
    )
    write_table(target / "utt2task", dict.fromkeys(new_id.values(), task))
    return Counter(texts.values())


def run(*command: str | Path) -> None:
    """Run a program of the recipe or of ESPnet."""
    subprocess.run([sys.executable, *map(str, command)], check=True)


def train(model: Path, examples: Path, out: Path, options: list[str]) -> float:
    """Train with ESPnet's own program; the minutes that it took."""
    config = model / "config.yaml"
    quiet = ("--use_tensorboard", "false", "--num_workers", "0", "--seed", "1")
    options = ["--init_param", str(model / "model.pth"), *quiet, *options]
    sets = ("--examples", examples, "--sets", "train valid")
    run(LOCAL / "plan_batches.py", *sets, "--", "--config", config, *options)
    data = [
        word
        for part in ("train", "valid")
        for file, name, kind in DATA
        for word in (
            f"--{part}_data_path_and_name_and_type",
            f"{examples / part / file},{name},{kind}",
        )
    ]
    started = time.time()
    program = ("-m", "espnet_smoe.run", "-m", "espnet2.bin.s2t_train", "--config", config)
    run(*program, "--use_preprocessor", "true", "--output_dir", out, *data, *options)
    return (time.time() - started) / 60


def decode(model: Path, examples: Path, task: str, limit: int | None) -> list[dict[str, Any]]:
    """Score the task on the test sets."""
    s2t = Speech2Text.from_pretrained(model, beam_size=5)
    rows = []
    for bandwidth in ("wb", "nb"):
        directory = examples / f"test_{bandwidth}"
        references = {
            utt: TASKS[task](text) for utt, text in read_table(directory / "text").items()
        }
        audio = dict(list(read_table(directory / "wav.scp").items())[:limit])
        references = {utt: references[utt] for utt in audio}
        found = {r.name: r.text for r in s2t.stream(audio.values(), tasks=task)}
        texts = {utt: found[path] for utt, path in audio.items()}
        result = score(references, texts, METRIC[task], task=task, bandwidth=bandwidth)
        exact = score(references, texts, "accuracy", task=task, bandwidth=bandwidth)
        for row in (result, exact) if METRIC[task] != "accuracy" else (result,):
            rows.append(row.as_dict())
            print(
                f"{task} {bandwidth}: {row.metric} {row.value:.2f} [{row.ci95[0]:.2f}, "
                f"{row.ci95[1]:.2f}], {row.n_utts} utterances",
                flush=True,
            )
        wrong = [
            (utt, references[utt], texts[utt]) for utt in audio if references[utt] != texts[utt]
        ]
        for utt, wanted, got in wrong[:5]:
            print(f"  {utt}: {wanted!r}, found {got!r}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--examples", type=Path, required=True, help="stage 4's output")
    parser.add_argument("--work", type=Path, required=True, help="for what is made here")
    parser.add_argument("--task", choices=sorted(TASKS), default="intent")
    parser.add_argument("--max_utts", type=int, help="of each test set; default: all")
    parser.add_argument("--json", type=Path)
    parser.add_argument("options", nargs=argparse.REMAINDER, help="-- ESPnet's training options")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    work = args.work / args.task
    extended, trained = work / "extended", work / "trained"
    summary: dict[str, Any] = {"task": args.task}
    if not (trained / "valid.acc.ave.pth").exists():
        shutil.rmtree(work, ignore_errors=True)
        for part in ("train", "valid"):
            texts = make_examples(args.examples / part, work / "examples" / part, args.task)
            print(f"{part}: {sum(texts.values())} examples, {len(texts)} different texts")
        source, token = SOURCES[args.task]
        new = f"<{args.task}>"
        expert = NewExpert(DECODER, args.task, source, (new,), {new: token}, train_embedding=True)
        extend(args.model, extended, expert)
        summary["minutes"] = train(extended, work / "examples", trained, args.options[1:])
        print(f"trained in {summary['minutes']:.1f} minutes")
    summary["scores"] = decode(trained, args.examples, args.task, args.max_utts)
    old, ours = load(find_model(args.model)), {"extended": extended, "trained": trained}
    for name, directory in ours.items():
        sets = [args.examples / f"test_{bandwidth}/wav.scp" for bandwidth in ("wb", "nb")]
        files = [pair for path in sets for pair in list(read_table(path).items())[: args.max_utts]]
        if name == "extended":  # not trained yet: some of them will do
            files = files[::40]
        audio = ((utt, read_audio(path, utt=utt)[0]) for utt, path in files)
        with tqdm(total=len(files), unit="utt", mininterval=5.0) as bar:
            found = compare(old, load(find_model(directory)), audio, on_utterance=bar.update)
        print(f"old routes ({', '.join(found.routes)}), {len(files)} utterances, {name}:")
        for kind, tally in found.tallies.items():
            print(f"  {kind}: {tally}")
        for line in found.different:
            print(f"  different: {line}")
        summary[name] = {kind: vars(tally) for kind, tally in found.tallies.items()}
    if args.json:
        args.json.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
