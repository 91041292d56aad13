#!/usr/bin/env python3
"""Stage 1 for your own data: check the tables that are there; nothing is written.

Every set must have ``wav.scp``, and ``text`` and ``utt2lang`` for the same utterances;
``text.<task>`` may cover fewer. Texts are of assigned characters.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from make_examples import find_tasks, read_texts, require_known

from espnet_smoe.datadir import DataError, read_table, require_same_keys


def check_set(directory: Path) -> str:
    """Check one set; returns a line that says what it holds.

    Raises:
        ValueError: A missing table or line, or a character that Unicode does not know; names the
            file and the utterance.
    """
    if (directory / "segments").exists():
        raise DataError(
            f"{directory / 'segments'}: --corpus own reads no segments; run with --corpus kaldi "
            f"--corpus_dir {directory.parent}, which does"
        )
    utts = read_table(directory / "wav.scp")
    for name in ("text", "utt2lang"):
        table = read_table(directory / name)
        require_same_keys(utts, table, names=("wav.scp", f"{directory / name}"))
    for path in sorted(directory.glob("text*")):
        require_known(read_texts(path), utts, path)
    return f"{directory}: {len(utts)} utterances ({', '.join(find_tasks(directory))})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", required=True, help="names of the sets")
    args = parser.parse_args()
    try:
        for name in args.sets.split():
            if not (args.data / name / "wav.scp").exists():
                raise DataError(
                    f"--corpus own: {args.data / name} holds no wav.scp; the README shows the "
                    "tables"
                )
            print(check_set(args.data / name))
    except ValueError as error:
        print(f"prepare_own.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
