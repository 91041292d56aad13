"""Further tasks on the mini corpus, each a function of the Spanish transcript.

``intent``: what the speaker does, such as ``ask price`` or ``not want sell``. ``written``: the
sentence as it is written, with a capital and punctuation: ``¿Dónde está el gato?`` The model never
wrote those pieces, and its output layer is frozen, which makes ``written`` the hard case.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "egs2/smoe_asr_st/s2t1/local"))

import mini_words as w  # noqa: E402

ASKED = {
    "dónde": "place", "quién": "person", "qué": "thing", "por": "reason",
    "cuánto": "price", "cuántos": "number", "cuántas": "number",
}  # fmt: skip
VERBS = {
    form: verb.en.split()[0]  # "look for": look
    for verb in (w.BUY, w.SELL, w.EAT, w.DRINK, w.OPEN, w.SEEK, w.VISIT)
    for form in (*verb.forms, verb.infinitive, *verb.past)
}
VERBS |= {form: base for forms, base, _ in (w.WORK, w.RISE) for form in forms}
VERBS |= {"llega": "arrive", "llegan": "arrive", "sale": "leave", "salen": "leave"}
MOODS = {stem.rstrip("*") for stem, _ in w.MOODS}
FEELINGS = {word for word, _ in w.FEELINGS}


def intent(spanish: str) -> str:
    """The label of a sentence of the mini grammar.

    Raises:
        ValueError: It is none.
    """
    words = spanish.split()
    if words[0] in ASKED:
        return f"ask {ASKED[words[0]]}"
    label = _statement(words)
    if label is None:
        raise ValueError(f"{spanish!r} is no sentence of the mini grammar")
    return f"not {label}" if "no" in words else label


def _statement(words: list[str]) -> str | None:
    has = set(words)
    verb = next((VERBS[word] for word in words if word in VERBS), None)
    modals = ((w.WANT, "want"), (w.CAN, "can"), (w.GO, "plan"))
    if "son" in has and "las" in has and words[-1] in {*dict(w.NUMBERS), "media"} and verb is None:
        return "tell time"
    if has & {"gusta", "gustan"}:
        return "like"
    if has & {"duele", "duelen"}:
        return "hurt"
    if "hay" in has:
        return "exist"
    if has & {"es", "son"}:
        return "compare" if "más" in has else "describe"
    if has & set(w.BE_STATE):
        return "feel" if any(word[:-1] in MOODS or word[:-2] in MOODS for word in words) else "be"
    if has & set(w.HAVE):
        if verb and "que" in has:
            return f"must {verb}"
        return "feel" if has & FEELINGS else "age" if "años" in has else "have"
    for forms, name in modals:
        if has & set(forms):
            if verb:
                return f"{name} {verb}"
            return "go" if name == "plan" else name
    return f"past {verb}" if "ayer" in has and verb else verb


def written(spanish: str) -> str:
    """The sentence with a capital, and question marks or a full stop."""
    text = spanish[0].upper() + spanish[1:]
    return f"¿{text}?" if spanish.split()[0] in ASKED else f"{text}."


TASKS = {"intent": intent, "written": written}
SOURCES = {"intent": ("st", "<st_eng>"), "written": ("asr", "<asr>")}  # expert and token copied
METRIC = {"intent": "accuracy", "written": "wer"}
