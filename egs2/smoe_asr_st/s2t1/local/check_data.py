#!/usr/bin/env python3
"""Stage 7: validate the data; every problem found is listed with its utterance and file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from make_examples import find_tasks
from tqdm import tqdm

from espnet_smoe.audio import AudioError, read_header
from espnet_smoe.bandwidth import BANDWIDTHS
from espnet_smoe.batching import PLAN_NAME, read_plan
from espnet_smoe.datadir import DataError, read_table, require_same_keys
from espnet_smoe.routing import SPECIAL

TRAINING_TABLES = "text text.prev text.ctc bandwidth utt2bw utt2task utt2num_samples"
TEST_TABLES = "text utt2lang utt2bw utt2num_samples"
SHOWN = 50


def audio_problem(job: tuple[str, str, int, int]) -> str | None:
    """Open one utterance's audio and compare its header with the tables."""
    utt, path, samples, fs = job
    try:
        header = read_header(path)
    except AudioError as error:
        return f"utterance {utt}: {path}: unreadable: {error}"
    if (header.rate, header.channels, header.frames) != (fs, 1, samples):
        return (
            f"utterance {utt}: {path}: {header.rate} Hz, {header.channels} channel(s), "
            f"{header.frames} samples; expected {fs} Hz, 1 channel, {samples} samples"
        )
    return None


def text_problems(directory: Path, tokens: set[str]) -> Iterator[str]:
    """Check the prompts and that each text has something to learn."""
    for utt, text in read_table(directory / "text").items():
        prompt, _, words = text.partition(" ")
        for token in SPECIAL.findall(prompt):
            if token not in tokens:
                yield f"utterance {utt}: {directory}/text: {token} is not in the token list"
        if "".join(SPECIAL.findall(prompt)) != prompt or not words.strip():
            yield f"utterance {utt}: {directory}/text: {text!r} is not '<language><task>... text'"


def prompt_problems(directory: Path, languages: dict[str, str], tokens: set[str]) -> Iterator[str]:
    """Check that the prompts of a test set, which stage 12 makes, are in the token list."""
    for utt, language in languages.items():
        if f"<{language}>" not in tokens:
            yield f"utterance {utt}: {directory}/utt2lang: <{language}> is not in the token list"
    for task, path in find_tasks(directory).items():
        if f"<{task}>" not in tokens:
            yield f"{path}: <{task}> is not in the token list: nothing was trained for this task"


def check_set(directory: Path, args: argparse.Namespace, tokens: set[str]) -> Iterator[str]:
    """Yield every problem of one data directory."""
    training = (directory / "utt2task").exists()
    try:
        audio = read_table(directory / "wav.scp")
    except DataError as error:
        yield str(error)
        return
    tables = {}
    for name in (TRAINING_TABLES if training else TEST_TABLES).split():
        try:
            tables[name] = read_table(directory / name)
            require_same_keys(audio, tables[name], names=("wav.scp", f"{directory / name}"))
        except DataError as error:
            yield str(error)
    numbers = tables.get("bandwidth", {})
    for utt, bandwidth in tables.get("utt2bw", {}).items():
        if bandwidth not in BANDWIDTHS:
            accepted = ", ".join(BANDWIDTHS)
            yield f"utterance {utt}: {directory}/utt2bw: {bandwidth!r}; accepted: {accepted}"
        elif numbers.get(utt, "") not in ("", str(BANDWIDTHS.index(bandwidth))):
            yield (
                f"utterance {utt}: {directory}/bandwidth: {numbers[utt]!r}, but utt2bw has "
                f"{bandwidth} ({BANDWIDTHS.index(bandwidth)})"
            )
    if training and "text" in tables:
        yield from text_problems(directory, tokens)
        try:
            planned = {utt: "" for batch in read_plan(directory / PLAN_NAME) for utt in batch.utts}
            require_same_keys(audio, planned, names=("wav.scp", f"{directory / PLAN_NAME}"))
        except DataError as error:
            yield f"{error}; rerun stage 6"
    if not training:
        yield from prompt_problems(directory, tables.get("utt2lang", {}), tokens)
    samples = tables.get("utt2num_samples", {})
    seen: dict[str, tuple[str, str, int, int]] = {}
    for utt, path in audio.items():
        if utt in samples and not samples[utt].isdecimal():
            yield f"utterance {utt}: {directory}/utt2num_samples: {samples[utt]!r} is no number"
        elif utt in samples:
            seen.setdefault(path, (utt, path, int(samples[utt]), args.fs))
    with ThreadPoolExecutor(args.nj) as pool:  # reading headers is waiting for the disk
        results = pool.map(audio_problem, seen.values())
        bar = tqdm(results, total=len(seen), desc=str(directory), unit="file", mininterval=2)
        yield from (problem for problem in bar if problem)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=Path, required=True, help="directory of stage 4")
    parser.add_argument("--sets", required=True)
    parser.add_argument("--token_list", type=Path, required=True)
    parser.add_argument("--fs", type=int, default=16000)
    parser.add_argument("--nj", type=int, default=2)
    args = parser.parse_args()
    tokens = set(args.token_list.read_text(encoding="utf-8").split("\n"))
    problems = [
        problem
        for name in args.sets.split()
        for problem in check_set(args.examples / name, args, tokens)
    ]
    for problem in problems[:SHOWN]:
        print(f"check_data.py: {problem}", file=sys.stderr)
    if problems:
        print(f"check_data.py: {len(problems)} problem(s)", file=sys.stderr)
        return 1
    print(f"check_data.py: {args.sets}: no problem found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
