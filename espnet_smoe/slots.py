"""Texts in the wrong place: a transcript where a translation belongs, or another language.

Every *slot* of a corpus (its transcripts; the translations of each task) has a language of its
own. What that language looks like is learned from the corpus itself: how often each letter
trigram occurs in the slot, counted without the line in question, and in which scripts it is
written. A line is reported when another slot explains it far better than its own, or when it is
written in a script that its slot does not use. Nothing is downloaded, and short lines are let be.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import islice

import numpy as np

BATCH = 1000  # lines judged at once
BUCKETS = 1 << 18  # of the trigram counts
SAMPLE = 20_000  # lines that a slot is learned from
MIN_LINES = 50  # a slot of fewer is not judged
MIN_LETTERS = 10  # a line of fewer is not judged
MARGIN = 12.0  # nats by which another slot must explain a line better than its own,
MARGIN_PER_TRIGRAM = 1.0  # and nats per trigram
CLEANINGS, DOUBT = 2, 0.2  # times that doubtful lines are left out of learning; their nats
OUTLIER = 8.0  # robust standard deviations below its set's median: no language of the corpus
OUTLIER_LETTERS = 25  # a line of fewer is not judged so
USUAL = 4.0  # robust standard deviations below a slot's median that its own lines may lie
LEAST_DEVIATION = 0.3  # nats per trigram
SMOOTHING = 0.1  # of a trigram's count
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
OWN_SCRIPT_SHARE = 0.01  # share of a slot's letters from which on a script is one of its own
FOREIGN_SHARE = 0.5  # share of a line's letters in scripts that are not


@cache
def script_of(char: str) -> str:
    """A letter's script, as its Unicode name begins (``LATIN``, ``HANGUL``); ``""``: no letter."""
    if not char.isalpha():
        return ""
    script = unicodedata.name(char, "").split(" ")[0].partition("-")[0]
    # One writing system each, for a reader.
    return {"HIRAGANA": "CJK", "KATAKANA": "CJK", "FULLWIDTH": "LATIN", "MODIFIER": ""}.get(
        script, script
    )


def scripts_of(text: str) -> Counter[str]:
    """Letters per script."""
    if text.isascii():
        letters = sum(map(str.isalpha, text))
        return Counter({"LATIN": letters} if letters else {})
    found = Counter(map(script_of, text))
    del found[""]
    return found


def _folded(text: str) -> str:
    """Words of letters, lower case, one space around each: punctuation and case tell nothing."""
    return f" {' '.join(WORD.findall(text.lower()))} "


def trigrams(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Buckets of the letter trigrams of several texts.

    Returns:
        int64 (M,), the buckets of all texts one behind the other, and int64 (len(texts),), how
        many each text has.
    """
    folded = [_folded(text) for text in texts]
    sizes = np.array([max(0, len(text) - 2) for text in folded], dtype=np.int64)
    codes = np.frombuffer("".join(folded).encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    if len(codes) < 3:
        return np.empty(0, dtype=np.int64), sizes
    mixed = codes[:-2] * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= codes[1:-1] * np.uint64(0xC2B2AE3D27D4EB4F)
    mixed ^= codes[2:] * np.uint64(0x165667B19E3779F9)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    buckets = (mixed >> np.uint64(46)).astype(np.int64)  # the upper 18 bits
    inside = np.ones(len(buckets), dtype=bool)  # no trigram reaches from one text into the next
    ends = np.cumsum([len(text) for text in folded])[:-1]
    for back in (1, 2):
        inside[np.maximum(ends - back, 0)] = False
    return buckets[inside], sizes


UNKNOWN = "no language of the corpus"


class Slots:
    """What each slot of a corpus looks like.

    Args:
        samples: ``{slot: (utterance id, text) lines}``, as `choose` picks them.
    """

    def __init__(self, samples: dict[str, list[tuple[str, str]]]) -> None:
        self.names = [name for name, lines in samples.items() if len(lines) >= MIN_LINES]
        self.learned = {name: {utt for utt, _ in samples[name]} for name in self.names}
        self.scripts: dict[str, set[str]] = {}
        self._counts = np.zeros((len(self.names), BUCKETS), dtype=np.float32)
        for place, name in enumerate(self.names):
            texts = [text for _, text in samples[name]]
            np.add.at(self._counts[place], trigrams(texts)[0], 1.0)
            letters: Counter[str] = Counter()
            for text in texts:
                letters.update(scripts_of(text))
            total = sum(letters.values())
            self.scripts[name] = {s for s, n in letters.items() if n >= OWN_SCRIPT_SHARE * total}
        self._totals = self._counts.sum(axis=1)
        self._kinds = np.maximum(1, (self._counts > 0).sum(axis=1))
        # What lines of each slot usually score per trigram, at least.
        self._usual = [self._usual_score(n, [t for _, t in samples[n]]) for n in self.names]

    @classmethod
    def learn(cls, samples: dict[str, list[tuple[str, str]]]) -> Slots:
        """Learn the slots, then again without the lines that look strange in theirs."""
        slots = cls(samples)
        for _ in range(CLEANINGS):
            cleaned = {}
            for slot, lines in samples.items():
                strange = {u for u, _, _ in slots.strangers(slot, lines, margin=DOUBT)}
                cleaned[slot] = [line for line in lines if line[0] not in strange]
            slots = cls(cleaned)
        return slots

    def strangers(
        self, slot: str, lines: Iterable[tuple[str, str]], *, margin: float = MARGIN_PER_TRIGRAM
    ) -> Iterator[tuple[str, str, str]]:
        """The lines of a slot that do not belong there.

        Args:
            slot: Its name; a slot that was not learned has no strangers.
            lines: (utterance id, text).
            margin: Nats per trigram by which another slot must explain a line better.

        Yields:
            (utterance id, text, what it looks like instead: a slot, ``the script X``, or
            `UNKNOWN`: far less like its slot than the set's other lines, so that a set from
            another domain has no strangers for that alone).
        """
        if slot not in self.names:
            return
        source = iter(lines)
        scores = array("f")
        lowest: list[tuple[float, str, str]] = []
        while batch := list(islice(source, BATCH)):
            strange = set()
            for utt, text, looks in self._judge(slot, batch, margin, scores, lowest):
                strange.add(utt)
                yield utt, text, looks
            lowest = sorted(line for line in lowest if line[1] not in strange)[:BATCH]
        if len(scores) >= MIN_LINES:
            median = float(np.median(scores))
            deviation = 1.4826 * float(np.median(np.abs(np.array(scores) - median)))
            limit = median - OUTLIER * max(deviation, LEAST_DEVIATION)
            for score, utt, text in lowest:
                if score < limit:
                    yield utt, text, UNKNOWN

    def _judge(
        self,
        slot: str,
        lines: list[tuple[str, str]],
        margin: float,
        own_scores: array[float],
        lowest: list[tuple[float, str, str]],
    ) -> Iterator[tuple[str, str, str]]:
        texts = [text for _, text in lines]
        buckets, sizes = trigrams(texts)
        ends = np.cumsum(sizes)
        own = self.names.index(slot)
        scores = np.zeros((len(self.names), len(lines)))
        for place in range(len(self.names)):
            total, kinds = float(self._totals[place]), float(self._kinds[place])
            each = np.log((self._counts[place][buckets] + SMOOTHING) / (total + SMOOTHING * kinds))
            sums = np.concatenate([[0.0], np.cumsum(each)])
            scores[place] = sums[ends] - sums[ends - sizes]
        best = scores.max(axis=0)
        for index, (utt, text) in enumerate(lines):
            letters = scripts_of(text)
            count = sum(letters.values())
            foreign = Counter({s: n for s, n in letters.items() if s not in self.scripts[slot]})
            if count >= MIN_LETTERS // 2 and sum(foreign.values()) > FOREIGN_SHARE * count:
                yield utt, text, f"the script {foreign.most_common(1)[0][0]}"
                continue
            # Without the line's own counts its slot can only explain it worse.
            limit = max(MARGIN, margin * float(sizes[index]))
            score = scores[own, index]
            if utt in self.learned[slot]:
                score = self._without(own, buckets[ends[index] - sizes[index] : ends[index]])
            if count >= OUTLIER_LETTERS:
                own_scores.append(score / sizes[index])
                lowest.append((score / float(sizes[index]), utt, text))
            if count < MIN_LETTERS or best[index] - score < limit:
                continue
            others = [p for p in range(len(self.names)) if p != own]
            if others:
                winner = max(others, key=lambda place: scores[place, index])
                usual = self._usual[winner] * float(sizes[index])
                if scores[winner, index] - score >= limit and scores[winner, index] >= usual:
                    yield utt, text, self.names[winner]

    def _usual_score(self, name: str, texts: list[str]) -> float:
        """The score per trigram that next to all of a slot's lines reach, each without itself."""
        texts = [text for text in texts[:BATCH] if len(text) >= MIN_LETTERS]
        buckets, sizes = trigrams(texts)
        place, ends = self.names.index(name), np.cumsum(sizes)
        scores = [
            self._without(place, buckets[end - size : end]) / size
            for end, size in zip(ends.tolist(), sizes.tolist(), strict=True)
            if size
        ]
        if not scores:
            return -np.inf
        median = float(np.median(scores))
        deviation = 1.4826 * float(np.median(np.abs(np.array(scores) - median)))
        return median - USUAL * max(deviation, LEAST_DEVIATION)

    def _without(self, place: int, buckets: np.ndarray) -> float:
        """Log-likelihood of a line under its slot's counts less its own."""
        kinds, back, times = np.unique(buckets, return_inverse=True, return_counts=True)
        counts = np.maximum(self._counts[place][kinds] - times, 0.0)[back]
        total = float(self._totals[place]) - len(buckets)
        return float(np.log((counts + SMOOTHING) / (total + SMOOTHING * self._kinds[place])).sum())


def are_alike(text: str, other: str) -> bool:
    """Do most words of a text stand in the other too, but for accents? So do lists of names."""
    words, others = (set(_folded(_without_accents(t)).split()) for t in (text, other))
    return len(words & others) * 2 >= len(words)


def _without_accents(text: str) -> str:
    parts = unicodedata.normalize("NFD", text)
    return "".join(char for char in parts if not unicodedata.combining(char))


def choose(lines: Iterable[tuple[str, str]], *, size: int = SAMPLE) -> list[tuple[str, str]]:
    """Pick lines to learn a slot from: the same ones each time, from the whole of it."""
    chosen: list[tuple[int, str, str]] = []
    limit = 1 << 32
    for utt, text in lines:
        rank = zlib.crc32(utt.encode())
        if rank < limit:
            chosen.append((rank, utt, text))
            if len(chosen) >= 2 * size:
                chosen = sorted(chosen)[:size]
                limit = chosen[-1][0]
    return [(utt, text) for _, utt, text in sorted(chosen)[:size]]
