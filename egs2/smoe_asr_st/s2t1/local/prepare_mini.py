"""Stage 1 for the built-in corpus: generated Spanish sentences, spoken by espeak-ng.

Sentences and translations come from `mini_grammar`, speech from `mini_speech`. A speaker is a
voice variant in one of two accents; the speakers and the sentences of the test set are in no
other set. The same seed and sizes give the same bytes: an utterance's rate and pitch come from
a hash of its id, and neither the order nor the number of processes matters.

Usage: python local/prepare_mini.py --size 5000 --seed 1 --out data --audio_dir downloads/mini
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing as mp
import os
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple

import mini_grammar
import mini_speech
import mini_splits
import mini_words
import numpy as np
from mini_speech import ACCENTS, RATE, Speaker, SpeechError
from tqdm import tqdm

from espnet_smoe.datadir import publish_dir, write_table, write_text

# Variants without enough energy above 4 kHz to be called wideband, whispers, robots, effects
# and Klatt voices are left out.
TEST_VARIANTS = ("f2", "f4", "linda", "m3", "m7", "Michael", "robert", "Denis")
TRAIN_VARIANTS = (
    *("f1", "f3", "f5", "Alicia", "Annie", "aunty", "belinda", "grandma", "shelby", "Andrea"),
    *("m1", "m2", "m4", "m5", "m6", "m8", "Alex", "Diogo", "Hugo", "Mario", "Mike", "Nguyen"),
    *("Storm", "grandpa", "marcelo", "max", "pablo", "pedro", "quincy"),
    *("victor", "sandro"),
)
RATES = (120, 165)  # words per minute, both ends included
PITCHES = (38, 62)  # espeak-ng's 0..99
TABLES = ("wav.scp", "text", "text.st_eng", "utt2lang", "utt2spk")


class MiniError(ValueError):
    """The mini corpus cannot be made as asked."""


class Utterance(NamedTuple):
    """One utterance to speak: ``accent`` is a key of `ACCENTS`."""

    utt: str
    split: str
    speaker: str
    accent: str
    variant: str
    pair: mini_words.Pair
    rate: int  # words per minute
    pitch: int


def plan(sizes: dict[str, int], seed: int) -> list[Utterance]:
    """Give every sentence an id, a speaker, a rate and a pitch."""
    utterances = []
    for split, pairs in mini_splits.make_splits(sizes, seed).items():
        variants = TEST_VARIANTS if split == "test" else TRAIN_VARIANTS
        voices = [(variant, accent) for variant in variants for accent in ACCENTS]
        order = mini_words.Chooser(seed)
        voices.sort(key=lambda _: order.random())
        for number, pair in enumerate(pairs):
            variant, accent = voices[number % len(voices)]
            speaker = f"{variant.lower()}-{accent}"
            utt = f"{speaker}-{split}{number:05d}"
            digest = hashlib.sha256(f"{seed} {utt}".encode()).digest()
            rate = RATES[0] + digest[0] * (RATES[1] - RATES[0] + 1) // 256
            pitch = PITCHES[0] + digest[1] * (PITCHES[1] - PITCHES[0] + 1) // 256
            utterances.append(Utterance(utt, split, speaker, accent, variant, pair, rate, pitch))
    return utterances


def render(speaker: Speaker, item: Utterance) -> np.ndarray:
    """Return the utterance's samples, int16 (N,) at 16 kHz."""
    try:
        x = speaker.speak(item.pair.es, item.accent, item.variant, rate=item.rate, pitch=item.pitch)
        return mini_speech.trim(mini_speech.to_16k(x))
    except SpeechError as error:
        raise MiniError(f"utterance {item.utt}: {error}") from error


def _work(speaker: Speaker, items: Sequence[Utterance], folder: Path, pipe: Connection) -> None:
    parent = os.getppid()
    try:
        for item in items:
            if os.getppid() != parent:  # the main process was killed
                os._exit(1)
            samples = render(speaker, item)
            mini_speech.write_wav(folder / item.split / f"{item.utt}.wav", samples)
            pipe.send(len(samples))
    except (MiniError, OSError) as error:
        pipe.send(str(error))


def speak_all(speaker: Speaker, items: Sequence[Utterance], folder: Path, nj: int) -> Iterator[int]:
    """Write all audio with ``nj`` processes; yield each utterance's number of samples."""
    context = mp.get_context("fork")  # inherits the loaded espeak-ng
    pipes: list[Connection] = []
    workers = []
    for job in range(nj):
        reader, writer = context.Pipe(duplex=False)
        worker = context.Process(
            target=_work, args=(speaker, items[job::nj], folder, writer), daemon=True
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


def prepare(sizes: dict[str, int], seed: int, out: Path, audio_dir: Path, nj: int) -> bool:
    """Make the corpus unless it is there already, with the same options and the same bytes.

    Args:
        sizes: ``{split: number of sentences}``, training set first.
        seed: Same seed and sizes, same corpus.
        out: Receives ``<split>/`` with the tables of `TABLES`.
        audio_dir: Receives ``<split>/<utterance>.wav``; a stamp is written beside it, last.
        nj: Number of processes.

    Returns:
        True if the corpus was made, False if it was there.

    Raises:
        MiniError: espeak-ng failed; names the utterance.
        SplitError: The grammar has fewer sentences than asked for.
    """
    stamp_path = audio_dir.with_name(audio_dir.name + ".stamp.json")
    tables = [out / split / table for split in sizes for table in TABLES]
    modules = (mini_words, mini_grammar, mini_splits, mini_speech)
    sources = [Path(__file__), *(Path(str(module.__file__)) for module in modules)]
    wanted = {
        "sizes": sizes, "seed": seed, "out": str(out), "audio_dir": str(audio_dir),
        "sources": fingerprint(sources),
    }  # fmt: skip
    if stamp_path.is_file():
        stamp: dict[str, object] = json.loads(stamp_path.read_text(encoding="utf-8"))
        same = all(stamp.get(key) == value for key, value in wanted.items())
        files = sum(1 for split in sizes for _ in (audio_dir / split).glob("*.wav"))
        if same and stamp.get("tables") == fingerprint(tables) and files == sum(sizes.values()):
            print(f"{out}: the mini corpus is complete already ({stamp_path})")
            return False
        stamp_path.unlink()
    items = plan(sizes, seed)
    speaker = Speaker()
    speaker.check_variants(TRAIN_VARIANTS + TEST_VARIANTS)
    audio_dir.parent.mkdir(parents=True, exist_ok=True)
    with publish_dir(audio_dir) as folder:
        for split in sizes:
            (folder / split).mkdir()
        spoken = speak_all(speaker, items, folder, nj)
        every = 0.2 if sys.stderr.isatty() else 5.0  # seconds; a log file wants few lines
        bar = tqdm(spoken, total=len(items), desc="speaking", unit="utt", mininterval=every)
        samples = sum(bar)
    for split in sizes:
        mine = [item for item in items if item.split == split]
        with publish_dir(out / split) as folder:
            columns: dict[str, dict[str, object]] = {
                "wav.scp": {i.utt: audio_dir / split / f"{i.utt}.wav" for i in mine},
                "text": {i.utt: i.pair.es for i in mine},
                "text.st_eng": {i.utt: i.pair.en for i in mine},
                "utt2lang": {i.utt: "spa" for i in mine},
                "utt2spk": {i.utt: i.speaker for i in mine},
            }
            for name in TABLES:
                write_table(folder / name, columns[name])
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options and make the corpus."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=5000, help="training sentences")
    parser.add_argument("--valid_size", type=int, default=100)
    parser.add_argument("--test_size", type=int, default=220)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("data"))
    parser.add_argument("--audio_dir", type=Path, default=Path("downloads/mini"))
    parser.add_argument("--nj", type=int, default=2, help="processes")
    options = parser.parse_args(arguments)
    for name in ("size", "valid_size", "test_size", "nj"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} {getattr(options, name)}: must be at least 1")
    sizes = {"train": options.size, "valid": options.valid_size, "test": options.test_size}
    try:
        prepare(sizes, options.seed, options.out, options.audio_dir, options.nj)
    except ValueError as error:
        sys.exit(f"prepare_mini.py: {error}")


if __name__ == "__main__":
    main()
