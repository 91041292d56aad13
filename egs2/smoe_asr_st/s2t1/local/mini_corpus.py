"""Make a built-in corpus once: audio in several processes, tables, and a stamp of what they are.

`prepare_mini` and `prepare_mini_hard` say what is spoken and how; neither the order nor the number
of processes may matter to that.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing as mp
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import mini_speech
import numpy as np
from mini_speech import RATE
from tqdm import tqdm

from espnet_smoe.datadir import publish_dir, write_table, write_text

Render = Callable[[Any], np.ndarray]  # an utterance to int16 (N,) at 16 kHz


class MiniError(ValueError):
    """A built-in corpus cannot be made as asked."""


@dataclass(frozen=True)
class Corpus:
    """What is to be made.

    Attributes:
        name: For messages.
        sizes: ``{split: number of sentences}``, training set first.
        options: All else that the corpus depends on; a change makes it anew.
        sources: The files that make it; likewise.
        columns: ``{table: value of an utterance}``; None: the table has no line for it.
        start: Called if the corpus is to be made: its utterances (with ``utt``, ``split``,
            ``speaker`` and ``pair``) and the function that speaks one.
    """

    name: str
    sizes: Mapping[str, int]
    options: Mapping[str, object]
    sources: Sequence[Path]
    columns: Mapping[str, Callable[[Any], object]]
    start: Callable[[], tuple[list[Any], Render]]

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables of every split."""
        return ("wav.scp", *self.columns)


def _work(render: Render, items: Sequence[Any], folder: Path, pipe: Connection) -> None:
    parent = os.getppid()
    try:
        for item in items:
            if os.getppid() != parent:  # the main process was killed
                os._exit(1)
            samples = render(item)
            mini_speech.write_wav(folder / item.split / f"{item.utt}.wav", samples)
            pipe.send(len(samples))
    except (MiniError, OSError) as error:
        pipe.send(str(error))


def speak_all(render: Render, items: Sequence[Any], folder: Path, nj: int) -> Iterator[int]:
    """Write all audio with ``nj`` processes; yield each utterance's number of samples."""
    context = mp.get_context("fork")  # inherits the loaded espeak-ng
    pipes: list[Connection] = []
    workers = []
    for job in range(nj):
        reader, writer = context.Pipe(duplex=False)
        worker = context.Process(
            target=_work, args=(render, items[job::nj], folder, writer), daemon=True
        )
        worker.start()
        writer.close()
        pipes.append(reader)
        workers.append(worker)
    done = 0
    while pipes:
        for pipe in wait(pipes):
            assert isinstance(pipe, Connection)
            try:
                message = pipe.recv()
            except EOFError:
                pipes.remove(pipe)
                continue
            if isinstance(message, str):
                raise MiniError(message)
            done += 1
            yield message
    for worker in workers:
        worker.join()
    if done != len(items):
        raise MiniError(f"a worker process died: {done} of {len(items)} utterances were spoken")


def fingerprint(paths: Sequence[Path]) -> str:
    """Return a hash of the files' bytes; of a missing file, its absence."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes() if path.is_file() else b"missing")
        digest.update(b"\0")
    return digest.hexdigest()


def make(corpus: Corpus, out: Path, audio_dir: Path, nj: int) -> bool:
    """Make a corpus unless it is there already, with the same options and the same bytes.

    Args:
        corpus: What to make.
        out: Receives ``<split>/`` with the tables.
        audio_dir: Receives ``<split>/<utterance>.wav``; a stamp is written beside it, last.
        nj: Number of processes.

    Returns:
        True if the corpus was made, False if it was there.

    Raises:
        MiniError: espeak-ng failed; names the utterance.
    """
    sizes = dict(corpus.sizes)
    stamp_path = audio_dir.with_name(audio_dir.name + ".stamp.json")
    tables = [out / split / table for split in sizes for table in corpus.tables]
    wanted = {
        "sizes": sizes, **corpus.options, "out": str(out), "audio_dir": str(audio_dir),
        "sources": fingerprint([Path(__file__), *corpus.sources]),
    }  # fmt: skip
    if stamp_path.is_file():
        stamp: dict[str, object] = json.loads(stamp_path.read_text(encoding="utf-8"))
        same = all(stamp.get(key) == value for key, value in wanted.items())
        files = sum(1 for split in sizes for _ in (audio_dir / split).glob("*.wav"))
        if same and stamp.get("tables") == fingerprint(tables) and files == sum(sizes.values()):
            print(f"{out}: the {corpus.name} corpus is complete already ({stamp_path})")
            return False
        stamp_path.unlink()
    items, render = corpus.start()
    audio_dir.parent.mkdir(parents=True, exist_ok=True)
    with publish_dir(audio_dir) as folder:
        for split in sizes:
            (folder / split).mkdir()
        spoken = speak_all(render, items, folder, nj)
        every = 0.2 if sys.stderr.isatty() else 5.0  # seconds; a log file wants few lines
        bar = tqdm(spoken, total=len(items), desc="speaking", unit="utt", mininterval=every)
        samples = sum(bar)
    for split in sizes:
        mine = [item for item in items if item.split == split]
        with publish_dir(out / split) as folder:
            wavs = {item.utt: audio_dir / split / f"{item.utt}.wav" for item in mine}
            write_table(folder / "wav.scp", wavs)
            for name, value in corpus.columns.items():
                column = {item.utt: value(item) for item in mine}
                write_table(folder / name, {u: v for u, v in column.items() if v is not None})
    hours = samples / RATE / 3600
    stamp = {**wanted, "tables": fingerprint(tables), "hours": round(hours, 4)}
    write_text(stamp_path, json.dumps(stamp, indent=1) + "\n")
    types = {word for item in items for word in item.pair.es.split()}
    print(
        f"{out}: {' + '.join(f'{size} {split}' for split, size in sizes.items())} utterances, "
        f"{hours:.2f} h, mean {samples / RATE / len(items):.2f} s, {len(types)} Spanish words, "
        f"{len({i.speaker for i in items})} speakers"
    )
    return True


def get_parser(description: str, name: str, sizes: tuple[int, int, int]) -> argparse.ArgumentParser:
    """Return the options that the built-in corpora have in common."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--size", type=int, default=sizes[0], help="training sentences")
    parser.add_argument("--valid_size", type=int, default=sizes[1])
    parser.add_argument("--test_size", type=int, default=sizes[2])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("data"))
    parser.add_argument("--audio_dir", type=Path, default=Path("downloads") / name)
    parser.add_argument("--nj", type=int, default=2, help="processes")
    return parser


def parse_sizes(parser: argparse.ArgumentParser, options: argparse.Namespace) -> dict[str, int]:
    """Check the options of `get_parser`; returns ``{split: size}``."""
    for name in ("size", "valid_size", "test_size", "nj"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} {getattr(options, name)}: must be at least 1")
    return {"train": options.size, "valid": options.valid_size, "test": options.test_size}
