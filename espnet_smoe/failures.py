"""What is wrong with a text: another language, another task, nothing, or far too much.

Words tell the language: those that occur in the texts of one task only. So a word that both
languages know (a name, a loan word), and one that no text holds, decides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from espnet_smoe.scoring import corpus_value, normalise, utterance_counts

FAILURES = {
    "wrong_language": "more words of the other language than of the wanted one",
    "no_language": "a text without a word of either language",
    "language_mix": "words of both languages",
    "other_task": "closer (chrF) to the reference of another task",
    "empty": "no word at all",
    "runaway": "more than twice as long as the reference",
}
MARGIN = 10.0  # chrF points by which a text must be closer to the other task's reference
RUNAWAY = 2.0  # times the reference's characters
PROMPT = re.compile(r"^(?:<[^<>\s]+>)+\s*")  # of a training text


def words(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return normalise(text, "lower_nopunct").split()


def without_prompt(text: str) -> str:
    """A training text without the special tokens at its start."""
    return PROMPT.sub("", text)


@dataclass(frozen=True)
class Vocabularies:
    """The words that tell one language from others.

    Attributes:
        wanted: Words of the wanted language only.
        other: Words of the other languages only.
    """

    wanted: frozenset[str]
    other: frozenset[str]

    @classmethod
    def of(cls, wanted: Iterable[str], other: Iterable[str]) -> Vocabularies:
        """From texts in the wanted language, and texts in the others."""
        first, second = (frozenset(w for text in texts for w in words(text))
                         for texts in (wanted, other))  # fmt: skip
        return cls(first - second, second - first)

    def count(self, text: str) -> tuple[int, int]:
        """How many words of a text belong to the wanted and to the other language alone."""
        found = words(text)
        return sum(w in self.wanted for w in found), sum(w in self.other for w in found)


def vocabularies_of(texts: Mapping[str, Iterable[str]], task: str) -> Vocabularies:
    """The words of a task's language, against those of all other tasks.

    Args:
        texts: References by task.
        task: The wanted one.
    """
    others = [text for name, some in texts.items() if name != task for text in some]
    return Vocabularies.of(texts[task], others)


def failures(
    hypotheses: Sequence[str],
    wanted: Sequence[Sequence[str]],
    other: Sequence[Sequence[str]],
    vocabularies: Vocabularies,
    *,
    margin: float = MARGIN,
) -> list[frozenset[str]]:
    """Name what is wrong with each text.

    Args:
        hypotheses: U texts.
        wanted: Per text the references of the wanted task, at least one.
        other: Per text the references of the other tasks; none: `other_task` is not looked for.
        vocabularies: Of the languages.
        margin: chrF points by which a text must be closer to `other`.

    Returns:
        Per text names of `FAILURES`; none if it has no failure of these kinds. (It may have word
        errors all the same.)
    """
    own, others = (_best_chrf(hypotheses, references) for references in (wanted, other))
    found = []
    for hypothesis, references, mine, theirs in zip(hypotheses, wanted, own, others, strict=True):
        right, wrong = vocabularies.count(hypothesis)
        empty = not words(hypothesis)
        longest = max(len(normalise(text, "nfc_ws")) for text in references)
        checks = {
            "wrong_language": wrong > right,
            "no_language": not empty and right == wrong == 0,
            "language_mix": right > 0 and wrong > 0,
            "other_task": not empty and theirs > mine + margin,
            "empty": empty,
            "runaway": len(normalise(hypothesis, "nfc_ws")) > RUNAWAY * longest,
        }
        assert checks.keys() == FAILURES.keys()
        found.append(frozenset(name for name, is_so in checks.items() if is_so))
    return found


def _best_chrf(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Each text's chrF against the best of its references, float (U,); -inf without any."""
    places = [(i, text) for i, texts in enumerate(references) for text in texts]
    best = np.full(len(hypotheses), -np.inf)
    if places:
        counts = utterance_counts(
            "chrf",
            [[normalise(text, "nfc_ws")] for _, text in places],
            [normalise(hypotheses[i], "nfc_ws") for i, _ in places],
        )
        np.maximum.at(best, [i for i, _ in places], corpus_value("chrf", counts))
    return best
