#!/usr/bin/env python3
"""Stage 1 for LibriSpeech (Panayotov et al., 2015): English read aloud, transcripts only.

``--corpus_dir`` is the folder ``LibriSpeech`` or holds it:
``<subset>/<reader>/<chapter>/<reader>-<chapter>-<number>.flac`` (16 kHz) with
``<reader>-<chapter>.trans.txt`` beside them, and ``SPEAKERS.TXT``
(``reader | sex | subset | minutes | name``, comments behind ``;``).

Writes ``<out>/train`` (the train-* subsets that are there), ``valid`` (dev-*), ``test_clean`` and
``test_other``. The transcripts are upper case, so ``--text_case lower_nopunct`` is the default.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from corpus import Utterance, get_parser, read_lines, require_dir, run, usable, write_set

from espnet_smoe.datadir import DataError
from espnet_smoe.faults import Fault

LANGUAGE = "eng"
SETS = {
    "train": ("train-clean-100", "train-clean-360", "train-other-500"),
    "valid": ("dev-clean", "dev-other"),
    "test_clean": ("test-clean",),
    "test_other": ("test-other",),
}
SOURCE = (
    "LibriSpeech/{train-*,dev-*,test-*}/<reader>/<chapter>/*.{flac,trans.txt} and SPEAKERS.TXT "
    "(OpenSLR, SLR12; CC BY 4.0)"
)


def find_subsets(corpus_dir: Path) -> dict[str, list[Path]]:
    """The subsets that are there, by set.

    Raises:
        DataError: A set would be empty.
    """
    roots = (corpus_dir, corpus_dir / "LibriSpeech")
    for root in roots:
        found = {
            name: [root / subset for subset in subsets if (root / subset).is_dir()]
            for name, subsets in SETS.items()
        }
        if any(found.values()):
            break
    for name, folders in found.items():
        if not folders:
            raise DataError(
                f"--corpus_dir {corpus_dir}: none of {', '.join(SETS[name])} for the set {name}; "
                f"expected {SOURCE}"
            )
    return found


def readers_of(root: Path) -> dict[str, str]:
    """``{reader: subset}`` of SPEAKERS.TXT; empty without the file."""
    path = root / "SPEAKERS.TXT"
    if not path.is_file():
        return {}
    rows = (line.split("|") for line in read_lines(path) if not line.startswith(";"))
    return {row[0].strip(): row[2].strip() for row in rows if len(row) >= 3}


def read_subset(folder: Path, readers: dict[str, str], faults: list[Fault]) -> Iterator[Utterance]:
    """The utterances of one subset."""
    for chapter in sorted(path for path in folder.glob("*/*") if path.is_dir()):
        reader = chapter.parent.name
        listing = chapter / f"{reader}-{chapter.name}.trans.txt"
        listed = readers.get(reader)
        if readers and listed != folder.name:
            where = f"listed for {listed}" if listed else "not listed"
            reason = f"reader {reader} is in {folder.name} but {where} in SPEAKERS.TXT"
            faults.append(Fault("", str(chapter), reason))
            continue
        heard = {path.stem for path in chapter.glob("*.flac")}
        for line in read_lines(listing) if listing.is_file() else []:
            utt, _, transcript = line.partition(" ")
            heard.discard(utt)
            yield Utterance(
                utt,
                str(chapter / f"{utt}.flac"),
                LANGUAGE,
                transcript,
                speaker=reader,
                file=str(listing),
            )
        for utt in sorted(heard):
            faults.append(Fault(utt, str(listing), "no transcript"))


def main(argv: Sequence[str] | None = None) -> None:
    args = get_parser(__doc__, text_case="lower_nopunct").parse_args(argv)
    root = require_dir(args.corpus_dir, corpus="librispeech", variable="LIBRISPEECH", source=SOURCE)
    for name, folders in find_subsets(root).items():
        readers = readers_of(folders[0].parent)
        faults: list[Fault] = []
        utterances = (u for folder in folders for u in read_subset(folder, readers, faults))
        write_set(
            args.out / name, usable(utterances, text_case=args.text_case, faults=faults), faults
        )


if __name__ == "__main__":
    run(main)
