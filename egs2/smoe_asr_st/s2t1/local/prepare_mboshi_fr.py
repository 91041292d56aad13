#!/usr/bin/env python3
"""Stage 1 for the Mboshi-French parallel corpus (Godard et al., LREC 2018).

4.5 hours of Mboshi speech (``mdw``) with transcripts and French translations (``fra``).
Two layouts are accepted:

- the public repository besacier/mboshi-french-parallel-corpus:
  ``full_corpus_newsplit/{train,dev}/<utt>.{wav,mb,fr}`` (its ``.cleaned``, ``.stm`` and other
  derived files are not read);
- ``{train,dev}.tsv`` with the columns ``utt_id duration_s transcript translation`` and
  ``{train,dev}/<utt>.opus`` (or ``.flac``, ``.wav``).

Writes ``<out>/{train,valid,dev}`` with ``wav.scp``, ``text`` (task asr), ``text.st_fra``,
``utt2lang`` and ``utt2spk``. The audio stays where it is. The corpus has no validation set, so
about 150 training utterances become ``valid``; a sentence is never on both sides.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_smoe.bbpe import normalize_text
from espnet_smoe.datadir import DataError, publish_dir, write_table
from espnet_smoe.scoring import normalise

LANGUAGE = "mdw"
TRANSLATION_TASK = "st_fra"
SPLITS = ("train", "dev")
TSV_COLUMNS = ["utt_id", "duration_s", "transcript", "translation"]
TSV_AUDIO = (".opus", ".flac", ".wav")
SHOWN = 10
VALID_UTTERANCES = 150
SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*_[A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Utterance:
    """One recording; a text is ``""`` where the corpus has none."""

    utt: str
    audio: Path
    transcript: str
    translation: str

    @property
    def speaker(self) -> str:
        return self.utt.partition("_")[0]


def find_corpus(corpus_dir: Path) -> tuple[Path, str]:
    """Find the corpus in the directory the user gave.

    Returns:
        The directory that holds ``train`` and ``dev``, and ``"tsv"`` or ``"public"``.

    Raises:
        DataError: Neither layout is there.
    """
    for root in (corpus_dir, corpus_dir / "full_corpus_newsplit"):
        if all((root / f"{split}.tsv").is_file() for split in SPLITS):
            return root, "tsv"
        if all((root / split).is_dir() for split in SPLITS):
            return root, "public"
    raise DataError(
        f"--corpus_dir {corpus_dir}: no Mboshi-French corpus. Accepted: the repository "
        "besacier/mboshi-french-parallel-corpus, its folder full_corpus_newsplit (with train/ and "
        "dev/ of .wav, .mb, .fr), or a folder with train.tsv, dev.tsv, train/ and dev/"
    )


def read_tsv(root: Path, split: str) -> list[Utterance]:
    """Read ``<split>.tsv``; the first audio file that exists in ``<split>/`` is taken."""
    path = root / f"{split}.tsv"
    utterances = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        header = next(rows, [])
        if header != TSV_COLUMNS:
            raise DataError(f"{path}:1: columns {header}; expected {TSV_COLUMNS}")
        for number, row in enumerate(rows, 2):
            if len(row) != len(TSV_COLUMNS):
                raise DataError(
                    f"{path}:{number}: utterance {row[0] if row else ''!r} has {len(row)} "
                    f"columns; expected {len(TSV_COLUMNS)}, separated by tabs"
                )
            candidates = [root / split / f"{row[0]}{suffix}" for suffix in TSV_AUDIO]
            audio = next((p for p in candidates if p.is_file()), candidates[0])
            utterances.append(Utterance(row[0], audio, row[2], row[3]))
    return utterances


def read_public(root: Path, split: str) -> list[Utterance]:
    """Read ``<split>/<utt>.{wav,mb,fr}``; an utterance is any of the three."""
    folder = root / split
    utts = {
        p.name[: -len(p.suffix)] for p in folder.iterdir() if p.suffix in (".wav", ".mb", ".fr")
    }
    utterances = []
    for utt in sorted(utts):
        texts = []
        for suffix in (".mb", ".fr"):
            path = folder / f"{utt}{suffix}"
            try:
                texts.append(path.read_text(encoding="utf-8-sig") if path.is_file() else "")
            except UnicodeDecodeError as error:
                raise DataError(f"{path}: utterance {utt!r}: not UTF-8") from error
        utterances.append(Utterance(utt, folder / f"{utt}.wav", texts[0], texts[1]))
    return utterances


def clean_text(text: str, text_case: str, utt: str, path: Path) -> str:
    """NFC text on one line; ``lower_nopunct`` also drops case and punctuation.

    Tone marks, the elision apostrophe (``s' éléngé``, ``l'ami``) and hyphens inside words
    stay: they are spelling.
    """
    return normalise(normalize_text(text, utt=utt, path=path), text_case)


def check(utterances: list[Utterance], *, allow_missing_translation: bool) -> None:
    """Collect everything that is wrong with the utterances.

    Raises:
        DataError: Unsafe or repeated ids, missing or empty audio, empty texts; names the
            first 10 utterances.
    """
    problems = []
    counts = Counter(u.utt for u in utterances)
    problems += [f"{utt}: occurs {n} times" for utt, n in counts.items() if n > 1]
    for u in utterances:
        if not SAFE_ID.fullmatch(u.utt):
            problems.append(
                f"{u.utt!r}: expected <speaker>_<name> of letters, digits, '.', '-', '_'"
            )
        if not u.audio.is_file():
            problems.append(f"{u.utt}: no audio {u.audio}")
        elif u.audio.stat().st_size == 0:
            problems.append(f"{u.utt}: empty audio file {u.audio}")
        if not u.transcript:
            problems.append(f"{u.utt}: missing or empty transcript")
        if not u.translation and not allow_missing_translation:
            problems.append(
                f"{u.utt}: missing or empty translation (run.sh's --corpus_args "
                "'--allow_missing_translation true' keeps the utterance for asr only)"
            )
    if problems:
        more = f"\n  ... and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        shown = "\n  ".join(problems[:SHOWN])
        raise DataError(f"{len(problems)} problem(s) in the corpus:\n  {shown}{more}")


def split_valid(
    utterances: list[Utterance], *, n_valid: int, seed: int
) -> tuple[list[Utterance], list[Utterance]]:
    """Take about ``n_valid`` utterances out of training.

    Whole sentences are taken (every recording of a transcript), in the order of a seeded hash
    of the transcript, so the choice is the same on every machine and Python version.

    Returns:
        Training and validation utterances.

    Raises:
        DataError: Nothing would be left to train on.
    """

    def rank(u: Utterance) -> str:
        sentence = normalise(u.transcript, "lower_nopunct")
        return hashlib.sha256(f"{seed} {sentence}".encode()).hexdigest()

    ordered = sorted(utterances, key=lambda u: (rank(u), u.utt))
    if n_valid == 0 or n_valid >= len(ordered):
        raise DataError(f"--n_valid {n_valid}: expected 1 to {len(ordered) - 1}")
    last = rank(ordered[n_valid - 1])
    valid = [u for u in ordered if rank(u) <= last]
    train = [u for u in ordered if rank(u) > last]
    if not train:
        raise DataError(f"--n_valid {n_valid}: no training sentence is left")
    return train, valid


def write_set(directory: Path, utterances: list[Utterance]) -> None:
    """Write one data directory; it appears whole or not at all."""
    with publish_dir(directory) as out:
        write_table(out / "wav.scp", {u.utt: u.audio.resolve() for u in utterances})
        write_table(out / "text", {u.utt: u.transcript for u in utterances})
        translated = {u.utt: u.translation for u in utterances if u.translation}
        if translated:
            write_table(out / f"text.{TRANSLATION_TASK}", translated)
        write_table(out / "utt2lang", {u.utt: LANGUAGE for u in utterances})
        write_table(out / "utt2spk", {u.utt: u.speaker for u in utterances})


def str2bool(value: str) -> bool:
    if value not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{value!r} is neither true nor false")
    return value == "true"


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Prepare the Mboshi-French corpus (stage 1).")
    parser.add_argument("--corpus_dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("data"))
    parser.add_argument(
        "--text_case",
        default="lower_nopunct",
        choices=("lower_nopunct", "raw"),
        help="lower_nopunct: lower case without punctuation, transcripts and translations; "
        "raw: as the linguists wrote them",
    )
    parser.add_argument("--allow_missing_translation", type=str2bool, default=False)
    parser.add_argument("--n_valid", type=int, default=VALID_UTTERANCES, help="at least so many")
    parser.add_argument("--seed", type=int, default=2025, help="of the choice of validation set")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    root, layout = find_corpus(args.corpus_dir)
    read = {"tsv": read_tsv, "public": read_public}[layout]
    case = {"raw": "nfc_ws"}.get(args.text_case, args.text_case)
    print(f"Mboshi-French in {root} ({layout} layout), --text_case {args.text_case}", flush=True)
    sets: dict[str, list[Utterance]] = {}
    for split in SPLITS:
        sets[split] = [
            Utterance(
                u.utt,
                u.audio,
                clean_text(u.transcript, case, u.utt, u.audio),
                clean_text(u.translation, case, u.utt, u.audio),
            )
            for u in read(root, split)
        ]
        if not sets[split]:
            raise DataError(f"{root / split}: no utterance")
    every = [u for utterances in sets.values() for u in utterances]
    check(every, allow_missing_translation=args.allow_missing_translation)
    sets["train"], sets["valid"] = split_valid(sets["train"], n_valid=args.n_valid, seed=args.seed)
    for name in ("train", "valid", "dev"):
        write_set(args.out / name, sets[name])
        speakers = Counter(u.speaker for u in sets[name])
        translated = sum(bool(u.translation) for u in sets[name])
        words = sum(len(u.transcript.split()) for u in sets[name])
        print(
            f"{args.out / name}: {len(sets[name])} utterances, {translated} translated, "
            f"{words} words, speakers {dict(sorted(speakers.items()))}"
        )


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:  # DataError, BbpeError
        sys.exit(f"prepare_mboshi_fr.py: {error}")
