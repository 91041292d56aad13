#!/usr/bin/env python3
"""Stage 1 for your own data: check the tables that are there; nothing is written.

Every ``<set>/`` with a ``wav.scp`` must have ``text`` and ``utt2lang`` for the same utterances, and
texts of assigned characters; ``text.<task>`` may cover fewer.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from make_examples import find_tasks, read_texts

from espnet_smoe.datadir import DataError, read_table, require_same_keys


def check_set(directory: Path) -> str:
    """Check one set; returns a line that says what it holds.

    Raises:
        ValueError: A missing table or line, or a character that Unicode does not know; names the
            file and the utterance.
    """
    utts = read_table(directory / "wav.scp")
    for name in ("text", "utt2lang"):
        table = read_table(directory / name)
        require_same_keys(utts, table, names=("wav.scp", f"{directory / name}"))
    for path in sorted(directory.glob("text*")):
        unheard = sorted(set(read_texts(path)) - set(utts))
        if unheard:
            raise DataError(f"{path}: utterance {unheard[0]!r} is not in {directory}/wav.scp")
    return f"{directory}: {len(utts)} utterances ({', '.join(find_tasks(directory))})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args()
    sets = sorted(path.parent for path in args.data.glob("*/wav.scp"))
    try:
        if not sets:
            raise DataError(f"{args.data} holds no <set>/wav.scp; the README shows the tables")
        for directory in sets:
            print(check_set(directory))
    except ValueError as error:
        print(f"prepare_own.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
