"""Stage 1 for the built-in corpus: generated Spanish sentences, spoken by espeak-ng.

Sentences and translations come from `mini_grammar`, speech from `mini_speech`. A speaker is a
voice variant in one of two accents; the speakers and the sentences of the test set are in no
other set. The same seed and sizes give the same bytes: an utterance's rate and pitch come from
a hash of its id, and neither the order nor the number of processes matters.

Usage: python local/prepare_mini.py --size 5000 --seed 1 --out data --audio_dir downloads/mini
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import mini_corpus
import mini_grammar
import mini_speech
import mini_splits
import mini_words
import numpy as np
from mini_corpus import MiniError
from mini_speech import ACCENTS, Speaker, SpeechError

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


COLUMNS = {
    "text": lambda item: item.pair.es,
    "text.st_eng": lambda item: item.pair.en,
    "utt2lang": lambda _: "spa",
    "utt2spk": lambda item: item.speaker,
}


def prepare(sizes: dict[str, int], seed: int, out: Path, audio_dir: Path, nj: int) -> bool:
    """Make the corpus unless it is there already, as `mini_corpus.make` does.

    Args:
        sizes: ``{split: number of sentences}``, training set first.
        seed: Same seed and sizes, same corpus.
        out: Receives ``<split>/`` with the tables.
        audio_dir: Receives ``<split>/<utterance>.wav``.
        nj: Number of processes.

    Raises:
        MiniError: espeak-ng failed; names the utterance.
        SplitError: The grammar has fewer sentences than asked for.
    """

    def start() -> tuple[list[Utterance], mini_corpus.Render]:
        items = plan(sizes, seed)
        speaker = Speaker()
        speaker.check_variants(TRAIN_VARIANTS + TEST_VARIANTS)
        return items, partial(render, speaker)

    modules = (mini_words, mini_grammar, mini_splits, mini_speech)
    sources = [Path(__file__), *(Path(str(module.__file__)) for module in modules)]
    corpus = mini_corpus.Corpus("mini", sizes, {"seed": seed}, sources, COLUMNS, start)
    return mini_corpus.make(corpus, out, audio_dir, nj)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options and make the corpus."""
    parser = mini_corpus.get_parser(__doc__ or "", "mini", (5000, 100, 220))
    options = parser.parse_args(arguments)
    sizes = mini_corpus.parse_sizes(parser, options)
    try:
        prepare(sizes, options.seed, options.out, options.audio_dir, options.nj)
    except ValueError as error:
        sys.exit(f"prepare_mini.py: {error}")


if __name__ == "__main__":
    main()
