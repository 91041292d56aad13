"""Stage 1 for the built-in corpus mini_hard: more words, more voices, noise around the speaker.

Like `prepare_mini`: generated Spanish sentences with English translations, spoken by espeak-ng, the
same bytes on every machine. The lexicon is ten times as large (`mini_hard_words`), valid and test
have speakers of their own, rates and pitches vary more, and every utterance has background noise
(`mini_noise`). ``utt2intent`` (the kind of sentence), ``utt2voice``, ``utt2background``,
``utt2rate`` and ``utt2noise`` say more of an utterance. With ``--english_share`` some sentences are
spoken in English and translated to Spanish.

Usage: python local/prepare_mini_hard.py --size 5000 --seed 1 --out data --audio_dir downloads/hard
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import mini_corpus
import mini_hard_being
import mini_hard_clauses
import mini_hard_grammar
import mini_hard_numbers
import mini_hard_questions
import mini_hard_splits
import mini_hard_verbs
import mini_hard_words
import mini_noise
import mini_speech
import mini_splits
import mini_words
import numpy as np
from mini_corpus import MiniError
from mini_hard_grammar import Sentence
from mini_speech import ACCENTS, ENGLISH, Speaker, SpeechError

# espeak-ng's variants that `prepare_mini` uses too: those with enough energy above 4 kHz.
FEMALE = {
    "test": ("f2", "f4", "linda"),
    "valid": ("f5", "Annie"),
    "train": ("f1", "f3", "Alicia", "aunty", "belinda", "grandma", "shelby", "Andrea"),
}
MALE = {
    "test": ("m3", "m7", "Michael", "robert", "Denis"),
    "valid": ("m8", "Mario", "pedro"),
    "train": (
        *("m1", "m2", "m4", "m5", "m6", "Alex", "Diogo", "Hugo", "Mike", "Nguyen", "Storm"),
        *("grandpa", "marcelo", "max", "pablo", "quincy", "victor", "sandro"),
    ),
}
RATES = (110, 170)  # words per minute, both ends included
RATE_NAMES = ((130, "slow"), (151, "medium"), (171, "fast"))  # below so many words per minute
PITCHES = (30, 70)  # espeak-ng's 0..99
SNR = (20, 40)  # dB, both ends included
CROWD = 24  # utterances from which a set's babble is made
MODULES = (
    *(mini_words, mini_splits, mini_speech, mini_noise, mini_hard_words, mini_hard_verbs),
    *(mini_hard_numbers, mini_hard_clauses, mini_hard_grammar, mini_hard_being),
    *(mini_hard_questions, mini_hard_splits),
)


class Utterance(NamedTuple):
    """One utterance to speak."""

    utt: str
    split: str
    speaker: str
    accent: str  # a key of `mini_speech.VOICES`; English for an English utterance
    variant: str
    pair: Sentence
    rate: int  # words per minute
    pitch: int
    noise: str  # one of `mini_noise.KINDS`
    tenths: int  # signal-to-noise ratio, tenths of a dB

    @property
    def is_english(self) -> bool:
        """Is English spoken?"""
        return self.accent in ENGLISH


class Options(NamedTuple):
    """What the corpus depends on, beside its sizes."""

    seed: int = 1
    snr: tuple[int, int] = SNR
    english_share: float = 0.0


def split_of_voice(split: str) -> str:
    """Splits but ``valid`` and ``test`` have the training voices."""
    return split if split in FEMALE else "train"


def variants_of(split: str) -> tuple[str, ...]:
    """The voice variants of a split's speakers."""
    return FEMALE[split_of_voice(split)] + MALE[split_of_voice(split)]


def between(ends: tuple[int, int], number: int) -> int:
    """Map 0..65,535 evenly to whole numbers, both ends included."""
    return ends[0] + (number * (ends[1] - ends[0] + 1) >> 16)


def plan(sizes: dict[str, int], options: Options) -> list[Utterance]:
    """Give every sentence an id, a speaker, a language, a rate, a pitch and a noise."""
    utterances = []
    tenths = (10 * options.snr[0], 10 * options.snr[1])
    for split, pairs in mini_hard_splits.make_splits(sizes, options.seed).items():
        order = mini_words.Chooser(options.seed)
        voices = [(variant, accent) for variant in variants_of(split) for accent in ACCENTS]
        voices.sort(key=lambda _: order.random())
        for number, pair in enumerate(pairs):
            variant, accent = voices[number % len(voices)]
            drawn = mini_noise.numbers(f"{options.seed} {split} {number}", 5).tolist()
            if drawn[4] < 65536 * options.english_share:
                accent = list(ENGLISH)[list(ACCENTS).index(accent)]
            speaker = f"{variant.lower()}-{accent}"
            utterances.append(
                Utterance(
                    f"{speaker}-{split}{number:05d}", split, speaker, accent, variant, pair,
                    between(RATES, drawn[0]), between(PITCHES, drawn[1]),
                    mini_noise.KINDS[drawn[2] * len(mini_noise.KINDS) >> 16],
                    between(tenths, drawn[3]),
                )
            )  # fmt: skip
    return utterances


def clean(speaker: Speaker, item: Utterance) -> np.ndarray:
    """Return the utterance without its noise, int16 (N,) at 16 kHz."""
    text = item.pair.en if item.is_english else item.pair.es
    try:
        x = speaker.speak(text, item.accent, item.variant, rate=item.rate, pitch=item.pitch)
        return mini_speech.trim(mini_speech.to_16k(x))
    except SpeechError as error:
        raise MiniError(f"utterance {item.utt}: {error}") from error


def crowd(speaker: Speaker, split: str, number: int) -> list[np.ndarray]:
    """Speak what a split's babble is made of: a few sentences by its own voices."""
    c, variants = mini_words.Chooser(number), variants_of(split)
    talks = []
    for place in range(CROWD):
        item = Utterance(
            f"babble {place}", split, "", list(ACCENTS)[place % 2], variants[place % len(variants)],
            mini_hard_splits.sentence(c), 175, 50, "", 0,
        )  # fmt: skip
        talks.append(mini_noise.level(clean(speaker, item)))
    return talks


def render(speaker: Speaker, crowds: dict[str, list[np.ndarray]], item: Utterance) -> np.ndarray:
    """Return the utterance's samples, int16 (N,) at 16 kHz."""
    x = clean(speaker, item)
    if item.noise == "babble":
        noise = mini_noise.babble(item.utt, len(x), crowds[item.split])
    else:
        make = {"white": mini_noise.white, "pink": mini_noise.pink}[item.noise]
        noise = make(item.utt, len(x))
    return mini_noise.mix(x, noise, item.tenths)


Column = Callable[[Utterance], "str | None"]
COLUMNS: dict[str, Column] = {
    "text": lambda i: i.pair.en if i.is_english else i.pair.es,
    "text.st_eng": lambda i: None if i.is_english else i.pair.en,
    "utt2lang": lambda i: "eng" if i.is_english else "spa",
    "utt2spk": lambda i: i.speaker,
    "utt2bw": lambda _: "wb",  # also where noise hides what a measurement needs
    "utt2intent": lambda i: i.pair.intent,
    "utt2voice": lambda i: "female" if i.variant in sum(FEMALE.values(), ()) else "male",
    "utt2background": lambda i: i.noise,
    "utt2rate": lambda i: next(name for end, name in RATE_NAMES if i.rate < end),
    "utt2noise": lambda i: f"{i.noise} {i.tenths / 10:.1f}",
}
TO_SPANISH: dict[str, Column] = {"text.st_spa": lambda i: i.pair.es if i.is_english else None}


def prepare(sizes: dict[str, int], options: Options, out: Path, audio_dir: Path, nj: int) -> bool:
    """Make the corpus unless it is there already, as `mini_corpus.make` does.

    Args:
        sizes: ``{split: number of sentences}``, training set first.
        options: Same options and sizes, same corpus.
        out: Receives ``<split>/`` with the tables.
        audio_dir: Receives ``<split>/<utterance>.wav``.
        nj: Number of processes.

    Raises:
        MiniError: espeak-ng failed; names the utterance.
        SplitError: The grammar has fewer sentences than asked for.
    """

    def start() -> tuple[list[Utterance], mini_corpus.Render]:
        items = plan(sizes, options)
        speaker = Speaker()
        for accent in {item.accent for item in items}:
            variants = {item.variant for item in items if item.accent == accent}
            speaker.check_variants(sorted(variants), [accent])
        first = options.seed * 1000 + 900  # `make_splits` takes those from 0
        crowds = {split: crowd(speaker, split, first + n) for n, split in enumerate(sizes)}
        return items, partial(render, speaker, crowds)

    sources = [Path(__file__), *(Path(str(module.__file__)) for module in MODULES)]
    sources += [mini_hard_words.LEXICON, mini_hard_words.VERBS]
    columns = COLUMNS | (TO_SPANISH if options.english_share else {})
    asked = {**options._asdict(), "snr": list(options.snr)}  # as JSON has it
    corpus = mini_corpus.Corpus("mini_hard", sizes, asked, sources, columns, start)
    return mini_corpus.make(corpus, out, audio_dir, nj)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options and make the corpus."""
    parser = mini_corpus.get_parser(__doc__ or "", "mini_hard", (5000, 200, 400))
    parser.add_argument(
        "--snr", type=int, nargs=2, default=SNR, metavar=("LOW", "HIGH"),
        help="range of the signal-to-noise ratios, dB",
    )  # fmt: skip
    parser.add_argument(
        "--english_share", type=float, default=0.0, help="share of sentences spoken in English"
    )
    given = parser.parse_args(arguments)
    sizes = mini_corpus.parse_sizes(parser, given)
    check(parser, given)
    options = Options(given.seed, tuple(given.snr), given.english_share)
    try:
        prepare(sizes, options, given.out, given.audio_dir, given.nj)
    except ValueError as error:
        sys.exit(f"prepare_mini_hard.py: {error}")


def check(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Refuse values outside what can be made."""
    low, high = given.snr
    if not -20 <= low <= high <= 60:
        parser.error(f"--snr {low} {high}: accepted is LOW HIGH, from -20 to 60 dB")
    if not 0.0 <= given.english_share <= 1.0:
        parser.error(f"--english_share {given.english_share}: accepted is 0 to 1")


if __name__ == "__main__":
    main()
