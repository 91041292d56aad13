"""Clauses of the mini_hard corpus: a subject, a verb in some tense, an object, in both languages.

A dropped subject is never ``he``, ``she`` or ``it``, and the preterite of nosotros, which is often
the present too, comes with a time, so that a Spanish sentence has one translation. The imperfect
is ``used to``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mini_hard_words as w
from mini_hard_verbs import English, Forms
from mini_hard_words import Verb, Who, Words
from mini_words import Chooser, Pair, contract

TENSES = (
    *["present"] * 6, *["preterite"] * 5, *["perfect"] * 2, *["progressive"] * 2,
    *["imperfect"] * 2, *["future"] * 2, "going", "was",
)  # fmt: skip
RARE_TENSES = ("imperfect", "future")
STATES = {"querer", "necesitar", "odiar", "conocer", "entender", "recordar"}
CLITICS = ("me", "te", "le", "nos", "les")
REFLEXIVES = ("me", "te", "se", "nos", "se")
OBJECTS_EN = ("me", "you", "", "us", "")
RARELY = (("siempre", "always"), ("nunca", "never"), ("siempre", "always"))


class Done(NamedTuple):
    """What somebody does: a verb with its object or complement.

    Attributes:
        verb: The verb.
        clitic: Spanish object pronoun before the verb.
        what: What follows the verb.
        short: ``what`` is an English pronoun.
    """

    verb: Verb
    clitic: str
    what: Words
    short: bool


def join(*words: str) -> str:
    """Join the words that are not empty."""
    return " ".join(word for word in words if word)


def spanish(forms: Forms, tense: str, person: int) -> str:
    """Return the verb in one of `TENSES`, as one word or as two."""
    if tense == "going":
        return f"{w.IR.present[person]} a {forms.infinitive}"
    if tense == "progressive":
        return f"{w.ESTAR.present[person]} {forms.gerund}"
    if tense == "was":
        return f"{w.ESTAR.imperfect[person]} {forms.gerund}"
    if tense == "perfect":
        return f"{w.HABER.present[person]} {forms.participle}"
    return str(getattr(forms, tense)[person])


def to_be(who: Who, tense: str) -> str:
    """Return the English ``be`` in the present, a past tense or the future."""
    if tense == "future":
        return "will be"
    return (w.BE if tense == "present" else w.WAS)[who.person]


def english(
    en: English, who: Who, tense: str, *, no: bool = False, ask: bool = False,
    adverb: str = "", what: str = "", short: bool = False,
) -> str:  # fmt: skip
    """Return an English clause.

    Args:
        en: The verb.
        who: The subject.
        tense: One of `TENSES`.
        no: Negate it.
        ask: As a question: ``does my sister read the book``.
        adverb: Before the verb: ``always``.
        what: Object or complement.
        short: It is a pronoun, which stands before the particle of a verb that has one.
    """
    third = who.person == 2
    simple = {
        "present": ("does" if third else "do", en.third if third else en.base, en.base),
        "preterite": ("did", en.past, en.base),
        "imperfect": ("did", f"used to {en.base}", f"use to {en.base}"),
    }
    if tense in simple:
        helper, plain, bare = simple[tense]
        helper, form = (helper, bare) if no or ask else ("", plain)
    else:
        helper, form = {
            "future": ("will", en.base),
            "going": (w.BE[who.person], f"going to {en.base}"),
            "progressive": (w.BE[who.person], en.ing),
            "was": (w.WAS[who.person], en.ing),
            "perfect": ("has" if third else "have", en.participle),
        }[tense]
    start = [helper, who.en] if ask else [who.en, helper]
    predicate = en.with_object(form, what, pronoun=short)
    return join(*start, "not" if no else "", adverb, predicate)


def place(c: Chooser) -> tuple[w.Noun, str, Words]:
    """Return a place, its English preposition, and ``el parque``, ``the park``."""
    preposition = c.one(["in", "in", "in", "in", "at", "on", "room"])
    noun = w.pick(c, w.NOUNS[preposition])
    adjective = w.pick(c, w.ADJECTIVES["site"]) if c.chance(0.1) else None
    det = c.one(["the", "the", "the", "the", "this", "our"])
    there = w.phrase(c, noun, det, adjective=adjective)
    return noun, "in" if preposition == "room" else preposition, (there.es, there.en)


def complement(c: Chooser, use: str) -> Words:
    """Return what follows a verb that has no object: a place, a companion, a manner, ..."""
    if use == "in":
        _, preposition, (es, en) = place(c)
        return f"en {es}", f"{preposition} {en}"
    if use == "to":
        _, _, (es, en) = place(c)
        return contract(f"a {es}"), f"to {en}"
    if use in ("city", "country"):
        es, en = w.pick(c, w.NAMES[use])
        return f"en {es}", f"in {en}"
    if use in ("tocity", "tocountry"):
        es, en = w.pick(c, w.NAMES[use.removeprefix("to")])
        return f"a {es}", f"to {en}"
    if use == "fromcity":
        es, en = w.pick(c, w.NAMES["city"])
        return f"de {es}", f"from {en}"
    if use == "with":
        mate = w.somebody(c)
        return f"con {mate.es}", f"with {mate.en}"
    if use == "clock":
        es, en = w.clock(c)
        return f"a {es}", f"at {en}"
    if use == "manner":
        return w.pick(c, w.NAMES["manner"])
    if use == "language":
        noun = w.pick(c, w.NOUNS["language"])
        return noun.es, noun.en
    if use == "game":
        noun = w.pick(c, w.NOUNS["game"])
        return f"al {noun.es}", noun.en
    return "", ""


def tense_of(c: Chooser, verb: Verb, tenses: Sequence[str] = TENSES) -> str:
    """Draw a tense that the verb is used in."""
    while True:
        tense = c.one(tenses)
        state = verb.forms.infinitive in STATES and tense not in ("present", "future")
        if not state and not (verb.rare and tense in RARE_TENSES):
            return tense


def verb_of(c: Chooser, section: str, *, states: bool = True) -> Verb:
    """Draw a verb; ``states=False``: none of those that have no progressive."""
    while True:
        verb = w.pick(c, w.VERBS_OF[section])
        if states or verb.forms.infinitive not in STATES:
            return verb


def with_thing(c: Chooser, *, states: bool = True, pronoun: float = 0.2) -> Done:
    """Return a verb with a thing as its object, which may be a pronoun: ``la abre``."""
    verb = verb_of(c, "thing", states=states)
    noun = w.pick(c, w.NOUNS[c.one(verb.uses)])
    if c.chance(pronoun):
        number = int(bool(noun.es_pl) and c.chance(0.4))
        clitic = ("lo", "la", "los", "las")[2 * number + (noun.gender == "f")]
        return Done(verb, clitic, ("", "them" if number else "it"), True)
    what = w.measured(c, noun) if not noun.es_pl and c.chance(0.3) else w.thing(c, noun)
    return Done(verb, "", (what.es, what.en), False)


def with_person(c: Chooser, who: Who, *, states: bool = True) -> Done:
    """Return a verb with a person as its object: ``a mi hermana``, ``me``."""
    verb = verb_of(c, "person", states=states)
    if c.chance(0.4):
        others = [p for p in (0, 1, 3) if p != who.person and {p, who.person} != {0, 3}]
        person = c.one(others)
        return Done(verb, CLITICS[person], ("", OBJECTS_EN[person]), True)
    whom = w.somebody(c)
    while whom.es == who.es:
        whom = w.somebody(c)
    return Done(verb, "", (contract(f"a {whom.es}"), whom.en), False)


def giving(c: Chooser, who: Who) -> Done:
    """Return a verb with a thing and its receiver: ``le doy un libro a mi madre``."""
    verb = verb_of(c, "giving")
    preposition = verb.uses[0]
    name = c.one(["food", "drink", "meal"] if verb.en.base == "prepare" else ["thing", "text"])
    gift = w.thing(c, w.pick(c, w.NOUNS[name]))
    if c.chance(0.5):
        person = c.one([p for p in (0, 1, 3) if p != who.person and {p, who.person} != {0, 3}])
        it = OBJECTS_EN[person]
        en = f"{gift.en} for {it}" if verb.en.base == "prepare" else f"{it} {gift.en}"
        return Done(verb, CLITICS[person], (gift.es, en), False)
    whom = w.somebody(c)
    while whom.es == who.es:
        whom = w.somebody(c)
    es = contract(f"{gift.es} a {whom.es}")
    return Done(verb, CLITICS[whom.person], (es, f"{gift.en} {preposition} {whom.en}"), False)


def without_object(c: Chooser) -> Done:
    """Return a verb with a complement: ``trabaja en la oficina``."""
    verb = w.pick(c, w.VERBS_OF["alone"])
    return Done(verb, "", complement(c, c.one(verb.uses)), False)


def oneself(c: Chooser, who: Who) -> Done:
    """Return a reflexive verb: ``me levanto a las dos``."""
    verb = w.pick(c, w.VERBS_OF["self"])
    return Done(verb, REFLEXIVES[who.person], complement(c, c.one(verb.uses)), False)


def anything(c: Chooser, who: Who, *, states: bool = True) -> Done:
    """Return any of these."""
    kind = c.random()
    if kind < 0.46:
        return with_thing(c, states=states)
    if kind < 0.6:
        return with_person(c, who, states=states)
    if kind < 0.68:
        return giving(c, who)
    return without_object(c) if kind < 0.9 else oneself(c, who)


def clause(
    c: Chooser, who: Who, done: Done, tense: str, *, no: float = 0.2, time: float = 0.3
) -> Pair:
    """Return a statement; the chances of a negation and of a time are given."""
    negated, adverb, moment = c.chance(no), ("", ""), ("", "")
    sure = tense == "preterite" and who.person == 3
    if not negated and tense in ("present", "imperfect", "perfect") and c.chance(0.15):
        adverb = ("ya", "already") if tense == "perfect" and c.chance(0.5) else c.one(RARELY)
    elif sure or (c.chance(time) and not done.what[0].startswith("a la")):
        moment = w.when(c, tense, sure=sure)
    es = join(
        who.es, "no" if negated else adverb[0], done.clitic,
        spanish(done.verb.forms, tense, who.person), done.what[0],
    )  # fmt: skip
    en = english(
        done.verb.en, who, tense, no=negated, adverb=adverb[1], what=done.what[1], short=done.short
    )
    if c.chance(0.5):
        return Pair(join(moment[0], es), join(moment[1], en))
    return Pair(join(es, moment[0]), join(en, moment[1]))


def chained(first: Verb, second: Done) -> tuple[str, English]:
    """Put a verb behind one like ``querer`` or ``dejar de``.

    Returns:
        What stands behind the first verb's form in Spanish, and an English verb of both.
    """
    ing = first.en.rest.endswith("+ing")
    form = second.verb.forms.gerund if ing and not first.after else second.verb.forms.infinitive
    es = join(first.after, form, second.what[0])
    inner = second.verb.en
    if first.en.base == "+again":
        forms = (inner.base, inner.third, inner.past, inner.participle, inner.ing)
        both = [
            f"{inner.with_object(form, second.what[1], pronoun=second.short)} again"
            for form in forms
        ]
        return es, English(*both)
    base = inner.with_object(inner.ing if ing else inner.base, second.what[1], pronoun=second.short)
    return es, first.en._replace(rest=join(first.en.rest.removesuffix("+ing"), base), split=False)
