"""Draw the mini_hard corpus's sentences, and splits that share none in either language."""

from __future__ import annotations

import mini_hard_being
import mini_hard_grammar
import mini_hard_questions
from mini_hard_grammar import Sentence
from mini_splits import SplitError
from mini_words import Chooser

MIN_WORDS, MAX_WORDS = 3, 10  # Spanish
FAILURES = 3000  # sentences in a row that were drawn before: then the grammar has no more
TEMPLATES = (
    mini_hard_grammar.STATEMENTS + mini_hard_being.STATEMENTS + mini_hard_questions.QUESTIONS
)


def sentence(c: Chooser) -> Sentence:
    """Draw one sentence of `MIN_WORDS` to `MAX_WORDS` words."""
    while True:
        found = c.one(TEMPLATES)(c)
        if MIN_WORDS <= len(found.es.split()) <= MAX_WORDS:
            return found


def make_splits(sizes: dict[str, int], seed: int) -> dict[str, list[Sentence]]:
    """Draw the splits; the last is drawn first, so that its sentences depend on no other size.

    No Spanish and no English sentence of one split occurs in another. Words are as frequent as the
    grammar makes them, and a few of the test set's do not occur in training.

    Args:
        sizes: ``{split: number of sentences}``, training set first.
        seed: Same seed and sizes, same sentences.

    Raises:
        SplitError: The grammar has no more new sentences.
    """
    splits: dict[str, list[Sentence]] = {}
    taken: set[str] = set()  # both languages; they share no sentence
    for number, (name, size) in reversed(list(enumerate(sizes.items()))):
        c, failures = Chooser(seed * 1000 + number), 0
        found: dict[str, Sentence] = {}
        while len(found) < size:
            new = sentence(c)
            if new.es in found or new.es in taken or new.en in taken:
                failures += 1
                if failures > FAILURES:
                    raise SplitError(
                        f"only {len(found)} of {size} sentences found for {name}; the sizes asked "
                        "for do not fit the grammar"
                    )
                continue
            found[new.es], failures = new, 0
        splits[name] = list(found.values())
        for pair in splits[name]:
            taken.update((pair.es, pair.en))
    return {name: splits[name] for name in sizes}
