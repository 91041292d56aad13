#!/usr/bin/env python3
"""Stage 1 for CoVoST 2 (Wang et al., 2020): Common Voice read aloud, translated.

``--corpus covost2_<source>_<target>[_<target>...]`` with the corpus's own codes (``es_en``,
``en_zh-CN``, ``en_de_ja``). ``--corpus_dir`` holds, in itself or in ``<source>/``:

- Common Voice's (release 4) ``clips/*.mp3`` (48 kHz) and ``validated.tsv`` (``client_id path
  sentence ...``);
- per target ``covost_v2.<source>_<target>.tsv`` (``path translation split``) as published, or
  the ``covost_v2.<source>_<target>.{train,dev,test}.tsv`` (``path sentence translation
  client_id``) that the official script makes of it; then ``validated.tsv`` is not needed.

Writes ``<out>/{train,valid,test}``. As in the official splits, ``train_covost`` is training.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from corpus import Utterance, get_parser, require_dir, run, usable, write_set
from languages import language, pair, translation_task

from espnet_smoe.datadir import DataError
from espnet_smoe.faults import Fault

SETS = {"train": "train", "dev": "valid", "test": "test"}  # CoVoST's name: ours
SPLIT_OF = {**{name: name for name in SETS}, "train_covost": "train"}
SOURCE = (
    "Common Voice release 4 of the source language (Mozilla, commonvoice.mozilla.org: clips/ and "
    "validated.tsv) and beside it covost_v2.<source>_<target>.tsv, or the official split files "
    "covost_v2.<source>_<target>.{train,dev,test}.tsv (facebookresearch/covost)"
)


def find(root: Path, source: str, name: str) -> Path | None:
    """A file or folder of the corpus, in the root or in the language's folder."""
    places = (root / name, root / source / name)
    return next((path for path in places if path.exists()), None)


def read_tsv(path: Path, columns: Sequence[str], faults: list[Fault]) -> Iterator[dict[str, str]]:
    """Rows of a TSV written as CoVoST's and Common Voice's: no quotes, ``\\`` escapes."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE, escapechar="\\")
        header = next(rows, [])
        lacking = [name for name in columns if name not in header]
        if lacking:
            raise DataError(f"{path}:1: no column {', '.join(lacking)}; it has {header}")
        for row in rows:
            if len(row) != len(header):
                utt = PurePosixPath(row[header.index("path")]).stem if len(row) > 1 else ""
                reason = f"{len(row)} columns; expected {len(header)}"
                faults.append(Fault(utt, f"{path}:{rows.line_num}", reason))
            else:
                yield dict(zip(header, row, strict=True))


def official_rows(
    root: Path, source: str, target: str, split: str, faults: list[Fault]
) -> Iterator[dict[str, str]] | None:
    """Rows of an official split file; None: there is none."""
    path = find(root, source, f"covost_v2.{source}_{target}.{split}.tsv")
    columns = ("path", "sentence", "translation", "client_id")
    return None if path is None else read_tsv(path, columns, faults)


class Published:
    """The published files: one TSV of translations per target, joined with Common Voice's."""

    def __init__(self, root: Path, source: str) -> None:
        self.root, self.source = root, source
        self.path = find(root, source, "validated.tsv")
        self._sentences: dict[str, tuple[str, str]] = {}

    def sentences(self, faults: list[Fault]) -> dict[str, tuple[str, str]]:
        """``{clip: (sentence, client_id)}`` of Common Voice, read once."""
        if not self._sentences:
            if self.path is None:
                raise DataError(
                    f"--corpus_dir {self.root}: no validated.tsv of Common Voice; expected {SOURCE}"
                )
            for row in read_tsv(self.path, ("client_id", "path", "sentence"), faults):
                self._sentences[row["path"]] = (row["sentence"], row["client_id"])
        return self._sentences

    def rows(self, target: str, split: str, faults: list[Fault]) -> Iterator[dict[str, str]]:
        """The same rows as those of the official split file."""
        name = f"covost_v2.{self.source}_{target}.tsv"
        path = find(self.root, self.source, name)
        if path is None:
            raise DataError(f"--corpus_dir {self.root}: no {name}; expected {SOURCE}")
        sentences = self.sentences(faults)
        for row in read_tsv(path, ("path", "translation", "split"), faults):
            if SPLIT_OF.get(row["split"]) != split:  # the official script drops dev_covost, ...
                continue
            if row["path"] in sentences:
                sentence, client = sentences[row["path"]]
                yield {**row, "sentence": sentence, "client_id": client}
            else:
                reason = f"not in {self.path}: CoVoST 2 belongs to Common Voice release 4"
                faults.append(Fault(PurePosixPath(row["path"]).stem, str(path), reason))


def read_split(
    published: Published, clips: Path, targets: Sequence[str], split: str, faults: list[Fault]
) -> list[Utterance]:
    """The utterances of one split, with the translations into every target."""
    root, source = published.root, published.source
    found: dict[str, Utterance] = {}
    for target in targets:
        rows = official_rows(root, source, target, split, faults)
        file, task = f"covost_v2.{source}_{target}", translation_task(target)
        for row in rows if rows is not None else published.rows(target, split, faults):
            name = PurePosixPath(row["path"]).name
            name = name if "." in name else f"{name}.mp3"
            u = Utterance(
                name.rpartition(".")[0],
                str(clips / name),
                language(source),
                row["sentence"],
                ((task, row["translation"]),),
                speaker=row["client_id"],
                file=file,
            )
            known = found.setdefault(u.utt, u)
            if known is not u and task in dict(known.translations):
                faults.append(Fault(u.utt, file, "occurs twice"))
            elif known is not u:
                both = known.translations + u.translations
                found[u.utt] = replace(known, translations=both)
    return list(found.values())


def main(argv: Sequence[str] | None = None) -> None:
    args = get_parser(__doc__, text_case="raw").parse_args(argv)
    codes = pair(args.corpus, "covost2")
    root = require_dir(args.corpus_dir, corpus=args.corpus, variable="COVOST2", source=SOURCE)
    clips = find(root, codes[0], "clips")
    if clips is None:
        raise DataError(f"--corpus_dir {root}: no clips/ of Common Voice; expected {SOURCE}")
    published = Published(root, codes[0])
    held_out: set[str] = set()  # one target's test clip may be another's training clip
    for split in ("test", "dev", "train"):
        faults: list[Fault] = []
        found = read_split(published, clips, codes[1], split, faults)
        fresh = [u for u in found if u.utt not in held_out]
        if len(fresh) < len(found):
            print(f"{split}: {len(found) - len(fresh)} clips are held out for another target")
        held_out.update(u.utt for u in found)
        clean = usable(fresh, text_case=args.text_case, faults=faults)
        write_set(args.out / SETS[split], clean, faults)


if __name__ == "__main__":
    run(main)
