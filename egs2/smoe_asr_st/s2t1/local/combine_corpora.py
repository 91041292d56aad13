#!/usr/bin/env python3
"""Stage 1 for several corpora: one training and one validation set of all of them.

Each corpus lies prepared in ``<parts>/<corpus>/<set>``. The training and the validation sets are
merged; every other set is written as ``<corpus>_<set>``. An utterance id that two corpora share
gets its corpus in front, others stay. A ``utt2bw`` of some corpora is kept; stage 2 measures the
others.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from corpus import run

from espnet_smoe.datadir import DataError, publish_dir, read_table, write_table
from espnet_smoe.faults import FAULTS_NAME, read_faults, summary, write_faults


def shared_ids(folders: Iterable[Path]) -> set[str]:
    """The ids that occur in more than one folder."""
    counts = Counter(utt for folder in folders for utt in read_table(folder / "wav.scp"))
    return {utt for utt, count in counts.items() if count > 1}


def merge(folders: dict[str, Path], target: Path) -> None:
    """Write one set of several corpora's.

    Raises:
        DataError: An id with its corpus in front is taken.
    """
    shared = shared_ids(folders.values())
    tables = sorted({p.name for folder in folders.values() for p in folder.iterdir()})

    def renamed(corpus: str, utt: str) -> str:
        return f"{corpus}_{utt}" if utt in shared else utt

    sizes, faults = {}, []
    with publish_dir(target) as out:
        for table in tables:
            having = {c: folder for c, folder in folders.items() if (folder / table).is_file()}
            if table == FAULTS_NAME:
                continue
            merged: dict[str, str] = {}
            for corpus, folder in having.items():
                rows = read_table(folder / table)
                clash = next((u for u in rows if renamed(corpus, u) in merged), None)
                if clash is not None:
                    raise DataError(
                        f"{folder / table}: utterance {clash!r}: its new id "
                        f"{renamed(corpus, clash)!r} is taken; rename it in {corpus}"
                    )
                merged.update((renamed(corpus, utt), value) for utt, value in rows.items())
                if table == "wav.scp":
                    sizes[corpus] = len(rows)
            write_table(out / table, merged)
        for corpus, folder in folders.items():
            faults += [replace(f, utt=renamed(corpus, f.utt)) for f in read_faults(folder)]
        write_faults(out, faults)
    parts = ", ".join(f"{size} of {corpus}" for corpus, size in sizes.items())
    print(f"{target}: {sum(sizes.values())} utterances ({parts}), {len(shared)} ids in common")
    if faults:
        print(summary(faults, f"{target}: {len(faults)} fault(s)"), file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--parts", type=Path, required=True, help="PARTS/<corpus>/<set>")
    parser.add_argument("--corpora", required=True, help="their names, between spaces")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train_set", default="train")
    parser.add_argument("--valid_set", default="valid")
    args = parser.parse_args(argv)
    corpora = args.corpora.split()
    for name in (args.train_set, args.valid_set):
        folders = {corpus: args.parts / corpus / name for corpus in corpora}
        lacking = [str(f) for f in folders.values() if not (f / "wav.scp").is_file()]
        if lacking:
            raise DataError(f"no data in {', '.join(lacking)}; run stage 1 from its beginning")
        merge(folders, args.out / name)
    for corpus in corpora:
        for folder in sorted((args.parts / corpus).iterdir()):
            if folder.name in (args.train_set, args.valid_set):
                continue
            if (folder / "wav.scp").is_file() and not folder.name.endswith((".partial", ".old")):
                merge({corpus: folder}, args.out / f"{corpus}_{folder.name}")


if __name__ == "__main__":
    run(main)
