"""Draw the mini corpus's splits: disjoint sentences whose words occur evenly."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache

from mini_grammar import sentence
from mini_words import Chooser, Pair

CANDIDATES = 40  # sentences drawn for each one kept: the more, the more even the word counts
FAILURES = 200  # rounds of candidates without a new sentence before giving up
WEIGHT_SCALE = 10**30


class SplitError(ValueError):
    """The grammar does not have the sentences asked for."""


def pair_words(pair: Pair) -> list[str]:
    """Return the words of both sides, marked by language: ``es:casa``, ``en:house``."""
    return [f"es:{word}" for word in pair.es.split()] + [f"en:{word}" for word in pair.en.split()]


@cache
def weight(count: int) -> int:
    """Return what a word adds to a sentence's score after ``count`` occurrences.

    An integer, because a float sum depends on the Python release.
    """
    return WEIGHT_SCALE // (1 + count) ** 6


def _draw(c: Chooser, size: int, taken: dict[str, str], known: set[str] | None) -> list[Pair]:
    """Draw ``size`` new sentences whose words are spread evenly.

    Args:
        c: The source of chance.
        size: Number of sentences.
        taken: ``{English: split}`` of earlier splits; neither it nor its Spanish is drawn again.
        known: Words that may be used; None: all.
    """
    chosen: list[Pair] = []
    counts: Counter[str] = Counter()
    mine: set[str] = set()
    failures = 0
    while len(chosen) < size:
        best, best_score = None, -1.0
        for _ in range(CANDIDATES):
            pair = sentence(c)
            words = pair.es.split()
            if pair.es in mine or pair.en in taken or (known and not known.issuperset(words)):
                continue
            # both languages' rare words count: "bigger" is as needed as "caras"
            drawn = pair_words(pair)
            score = sum(weight(counts[word]) for word in drawn) / math.sqrt(len(drawn))
            if score > best_score:
                best, best_score = pair, score
        if best is None:
            failures += 1
            if failures > FAILURES:
                raise SplitError(
                    f"only {len(chosen)} of {size} sentences found; the sizes asked for do not "
                    "fit the grammar (too many sentences, or a training set too small to hold "
                    "the words of the others)"
                )
            continue
        chosen.append(best)
        mine.add(best.es)
        counts.update(pair_words(best))
    return chosen


def make_splits(sizes: dict[str, int], seed: int) -> dict[str, list[Pair]]:
    """Draw the splits: the first is the training set.

    No Spanish and no English sentence of one split occurs in another, and the words of later
    splits all occur in the first.

    Args:
        sizes: ``{split: number of sentences}``, training set first.
        seed: Same seed and sizes, same sentences.

    Raises:
        SplitError: The grammar has no more new sentences.
    """
    splits: dict[str, list[Pair]] = {}
    taken: dict[str, str] = {}
    known: set[str] | None = None
    for number, (name, size) in enumerate(sizes.items()):
        splits[name] = _draw(Chooser(seed * 1000 + number), size, taken, known)
        taken.update((pair.en, name) for pair in splits[name])
        if known is None:
            known = {word for pair in splits[name] for word in pair.es.split()}
    return splits
