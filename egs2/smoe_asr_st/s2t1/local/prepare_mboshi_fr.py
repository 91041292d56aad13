#!/usr/bin/env python3
"""Stage 1 for the Mboshi-French parallel corpus (Godard et al., LREC 2018).

4.5 hours of Mboshi speech (``mdw``) with transcripts and French translations (``fra``).
Two layouts are accepted:

- the public repository besacier/mboshi-french-parallel-corpus:
  ``full_corpus_newsplit/{train,dev}/<utt>.{wav,mb,fr}`` (its ``.cleaned``, ``.stm`` and other
  derived files are not read);
- ``{train,dev}.tsv`` with the columns ``utt_id duration_s transcript translation`` and
  ``{train,dev}/<utt>.opus`` (or ``.flac``, ``.wav``).

Writes ``<out>/{train,valid,dev}``. The corpus has no validation set, so about 150 training
utterances become ``valid``; a sentence is never on both sides.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from corpus import Utterance, get_parser, require_dir, run, split_valid, str2bool, usable, write_set

from espnet_smoe.datadir import DataError
from espnet_smoe.faults import Fault

LANGUAGE = "mdw"
TASK = "st_fra"
SPLITS = ("train", "dev")
TSV_COLUMNS = ["utt_id", "duration_s", "transcript", "translation"]
TSV_AUDIO = (".opus", ".flac", ".wav")
VALID_UTTERANCES = 150
SPEAKER_FIRST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*_[A-Za-z0-9._-]+")
SOURCE = (
    "the public repository besacier/mboshi-french-parallel-corpus, its folder "
    "full_corpus_newsplit (with train/ and dev/ of .wav, .mb, .fr), or a folder with train.tsv, "
    "dev.tsv, train/ and dev/"
)


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
    raise DataError(f"--corpus_dir {corpus_dir}: no Mboshi-French corpus; expected {SOURCE}")


def utterance(utt: str, audio: Path, transcript: str, translation: str, file: Path) -> Utterance:
    return Utterance(
        utt,
        str(audio),
        LANGUAGE,
        transcript,
        ((TASK, translation),),
        speaker=utt.partition("_")[0],
        file=str(file),
    )


def read_tsv(root: Path, split: str, faults: list[Fault]) -> Iterator[Utterance]:
    """Read ``<split>.tsv``; the first audio file that exists in ``<split>/`` is taken."""
    path = root / f"{split}.tsv"
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        header = next(rows, [])
        if header != TSV_COLUMNS:
            raise DataError(f"{path}:1: columns {header}; expected {TSV_COLUMNS}")
        for number, row in enumerate(rows, 2):
            if len(row) != len(TSV_COLUMNS):
                expected = f"expected {len(TSV_COLUMNS)}, separated by tabs"
                reason = f"{len(row)} columns; {expected}"
                faults.append(Fault(row[0] if row else "", f"{path}:{number}", reason))
                continue
            candidates = [root / split / f"{row[0]}{suffix}" for suffix in TSV_AUDIO]
            audio = next((p for p in candidates if p.is_file()), candidates[0])
            yield utterance(row[0], audio, row[2], row[3], path)


def read_public(root: Path, split: str, faults: list[Fault]) -> Iterator[Utterance]:
    """Read ``<split>/<utt>.{wav,mb,fr}``; an utterance is any of the three."""
    folder = root / split
    suffixes = (".wav", ".mb", ".fr")
    for utt in sorted({p.stem for p in folder.iterdir() if p.suffix in suffixes}):
        texts = {}
        for suffix in (".mb", ".fr"):
            path = folder / f"{utt}{suffix}"
            try:
                texts[suffix] = path.read_text(encoding="utf-8-sig") if path.is_file() else ""
            except UnicodeDecodeError as error:
                faults.append(Fault(utt, str(path), f"not UTF-8 at byte {error.start}"))
        if len(texts) == 2:
            yield utterance(utt, folder / f"{utt}.wav", texts[".mb"], texts[".fr"], folder)


def checked(
    utterances: Iterator[Utterance], faults: list[Fault], *, allow_missing_translation: bool
) -> Iterator[Utterance]:
    """Leave out ids that do not begin with a speaker and, if allowed, empty translations."""
    for u in utterances:
        if not SPEAKER_FIRST.fullmatch(u.utt):
            reason = f"id {u.utt!r}: expected <speaker>_<name> of letters, digits, '.', '-', '_'"
            faults.append(Fault(u.utt, u.file, reason))
        elif allow_missing_translation and not u.translations[0][1].strip():
            yield replace(u, translations=())
        else:
            yield u


def main(argv: Sequence[str] | None = None) -> None:
    parser = get_parser(__doc__, text_case="lower_nopunct")
    parser.add_argument(
        "--allow_missing_translation",
        type=str2bool,
        default=False,
        help="true: a missing translation is no fault",
    )
    parser.add_argument("--n_valid", type=int, default=VALID_UTTERANCES, help="at least so many")
    parser.add_argument("--seed", type=int, default=2025, help="of the choice of validation set")
    args = parser.parse_args(argv)
    given = require_dir(args.corpus_dir, corpus="mboshi_fr", variable="MBOSHI_FR", source=SOURCE)
    root, layout = find_corpus(given)
    read = {"tsv": read_tsv, "public": read_public}[layout]
    print(f"Mboshi-French in {root} ({layout} layout), --text_case {args.text_case}", flush=True)
    sets: dict[str, list[Utterance]] = {}
    faults: dict[str, list[Fault]] = {"train": [], "valid": [], "dev": []}
    for split in SPLITS:
        found = checked(
            read(root, split, faults[split]),
            faults[split],
            allow_missing_translation=args.allow_missing_translation,
        )
        sets[split] = list(usable(found, text_case=args.text_case, faults=faults[split]))
    sets["train"], sets["valid"] = split_valid(sets["train"], n_valid=args.n_valid, seed=args.seed)
    for name, utterances in sets.items():
        write_set(args.out / name, utterances, faults[name])


if __name__ == "__main__":
    run(main)
