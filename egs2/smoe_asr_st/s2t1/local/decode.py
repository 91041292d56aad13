#!/usr/bin/env python3
"""Stage 12: decode every test set, task and language in one process, with this package's search.

The tasks of an utterance share its encoder pass. A journal holds every utterance that is done: a
run that is killed goes on behind the last of them, unless the model or an option has changed.
``stock_decode.py`` does the same with ESPnet's own program.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import decode_dir
import yaml

from espnet_smoe.audio import AudioError
from espnet_smoe.audio_reader import read_value
from espnet_smoe.bandwidth import BANDWIDTHS
from espnet_smoe.datadir import DataError, read_table
from espnet_smoe.journal import Journal
from espnet_smoe.results import Failure, Result
from espnet_smoe.transcribe import Progress, outcomes, quietly
from espnet_smoe.transcripts import one_line

SHOWN = 5  # utterances listed in an error
BLEND = "blend"
EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
Entry = dict[str, str]  # text, score, route of an utterance and task


@dataclass(frozen=True)
class Request:
    """An utterance and the tasks that it lacks."""

    test_set: str
    utt: str
    language: str
    audio: str
    tasks: tuple[str, ...]

    @property
    def key(self) -> tuple[str, ...]:
        """What an entry of the journal must agree in."""
        return (self.test_set, self.utt, self.language, self.audio)


def decode(args: argparse.Namespace, options: list[str]) -> None:
    """Decode what is missing, then write each test set's and task's tables."""
    keywords = search_options(args, options)
    sets = decode_dir.read_sets(args.examples, args.sets.split(), args.tasks.split())
    decode_dir.prepare(args.out, decode_dir.fingerprint(args, options, "decode.py"))
    with Journal(args.out / "journal.jsonl") as journal:
        done = {tuple(entry["key"]): entry["tasks"] for entry in journal.entries}
        requests = list(plan(args.examples, sets, done))
        if requests:
            total = sum(len(s.languages) for s in sets)
            speech2text = load(args, keywords)
            decode_missing(speech2text, args.examples, requests, total, journal, done)
    for s in sets:
        for task in s.tasks:
            rows = {u: done[s.name, u, s.languages[u], s.audio[u]][task] for u in s.languages}
            tables = {
                name: {utt: entry[name] for utt, entry in rows.items() if name in entry}
                for name in ("text", "score", "utt2route")
            }
            decode_dir.write_results(args.out, s.name, task, tables)


def search_options(args: argparse.Namespace, options: list[str]) -> dict[str, Any]:
    """The keywords of `Speech2Text`: the YAML's, and the command line's over them.

    Raises:
        DataError: An option is not written ``--name value``.
    """
    keywords = decode_dir.inference_config(args)
    if not decode_dir.has_ctc(args.s2t_dir):
        keywords.pop("ctc_weight", None)
    name = ""
    for word in options:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            keywords[name] = [value] if equals else []
        elif not name:
            raise DataError(f"inference option {word!r}; accepted is --name value")
        else:
            keywords[name].append(word)
    for name, value in keywords.items():
        if isinstance(value, list) and all(isinstance(word, str) for word in value):
            keywords[name] = parse_words(name, value)
    return keywords


def parse_words(name: str, words: list[str]) -> Any:
    """What the words behind an option stand for: ESPnet has ``none`` for null, and lists."""
    if not words:
        raise DataError(f"inference option --{name} has no value; accepted is --{name} value")
    values = [_value(word) for word in words]
    return values[0] if len(values) == 1 and name != "quantize_modules" else values


def _value(word: str) -> Any:
    if word.lower() == "none":
        return None
    value = yaml.safe_load(word)
    # YAML takes 1e-3 for a text
    return float(value) if isinstance(value, str) and EXPONENT.fullmatch(value) else value


def plan(examples: Path, sets: list[decode_dir.TestSet], done: dict) -> Iterator[Request]:
    """What is missing, the longest first: what does not fit in memory shows at once."""
    requests = []
    for s in sets:
        sizes = read_table(examples / s.name / "utt2num_samples")
        for utt, language in s.languages.items():
            request = Request(s.name, utt, language, s.audio[utt], tuple(s.tasks))
            there = done.get(request.key, {})
            tasks = tuple(task for task in s.tasks if task not in there)
            if tasks:
                missing = Request(s.name, utt, language, s.audio[utt], tasks)
                requests.append((-int(sizes.get(utt, 0)), missing))
    return (request for _, request in sorted(requests, key=lambda pair: pair[0]))


def load(args: argparse.Namespace, keywords: dict[str, Any]) -> Any:
    """The model.

    Raises:
        DataError: Names an option that it does not take.
    """
    from espnet_smoe.inference_options import OptionError

    if args.ngpu:
        keywords = {"device": "cuda", **keywords}
    if args.route_override:
        keywords = {**keywords, "bandwidth": args.route_override}
    try:
        with quietly():
            from espnet_smoe.inference import Speech2Text

            return Speech2Text.from_pretrained(args.s2t_dir, model_file=args.model, **keywords)
    except OptionError as error:
        raise DataError(f"{args.config} and --inference_args: {error}") from error


def decode_missing(
    speech2text: Any,
    examples: Path,
    requests: list[Request],
    total: int,
    journal: Journal,
    done: dict[tuple[str, ...], dict[str, Entry]],
) -> None:
    """Decode, and put every utterance into the journal and into `done`.

    Raises:
        DataError: Names utterances that could not be decoded, after the others are.
    """
    from espnet_smoe.inference import Speech

    wavs = {
        name: read_table(examples / name / "wav.scp") for name in {r.test_set for r in requests}
    }
    failures = []
    encoder = getattr(getattr(speech2text, "s2t_model", None), "encoder", None)
    known = getattr(encoder, "expert_names", ())

    def work() -> Iterator[tuple[Request, Any]]:
        for request in requests:
            try:  # in 16 bit and at 16 kHz, as in training, whatever the file's rate
                x = read_value(wavs[request.test_set][request.utt], request.utt)
            except AudioError as error:
                failures.append(str(error))
                continue
            yield (
                request,
                Speech(
                    (x, 16000),
                    name=f"{request.test_set}: utterance {request.utt}",
                    tasks=list(request.tasks),
                    language=request.language,
                ),
            )

    with Progress(total, done=total - len(requests), title="decode", unit="utt") as progress:
        for request, outcome in outcomes(speech2text, work(), progress):
            if isinstance(outcome, Failure):
                failures.append(str(outcome.error))
                continue
            entries = {task: entry_of(result, known) for task, result in outcome.items()}
            tasks = {**done.get(request.key, {}), **entries}
            journal.add({"key": list(request.key), "tasks": tasks})
            done[request.key] = tasks
    if failures:
        more = ["..."] if len(failures) > SHOWN else []
        raise DataError(
            "\n  ".join([f"{len(failures)} utterance(s) not decoded:", *failures[:SHOWN], *more])
        )


def entry_of(result: Result, known: Collection[str] = ()) -> Entry:
    """What the tables say of a result."""
    entry = {"text": one_line(result.text), "score": f"{result.score:.4f}"}
    expert = encoder_expert(result.route, known)
    if expert:
        entry["utt2route"] = expert
    return entry


def encoder_expert(route: str, known: Collection[str] = ()) -> str:
    """The encoder's part of a route such as ``nb/asr``; empty if it has no experts.

    Args:
        route: A result's.
        known: The encoder's experts that are no bandwidths.
    """
    first, slash, _ = route.partition("/")
    return first if slash or first in (*BANDWIDTHS, BLEND, *known) else ""


if __name__ == "__main__":
    sys.exit(decode_dir.run(decode, "decode.py", __doc__))
