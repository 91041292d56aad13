"""The mini_hard corpus's questions: without punctuation or melody, they are told by their words.

In Spanish the verb comes before its subject; in English a helper does.
"""

from __future__ import annotations

from collections.abc import Callable

import mini_hard_clauses as k
import mini_hard_words as w
from mini_hard_being import feels
from mini_hard_clauses import join
from mini_hard_grammar import Sentence, as_subject, some_thing
from mini_hard_words import Who
from mini_words import Chooser, Phrase

ASKED_TENSES = ("present", "present", "preterite", "preterite", "perfect", "future", "progressive")
OPEN = "open question"


def addressed(c: Chooser) -> Who:
    """Return ``you`` or ``they``, left out in Spanish, or somebody."""
    return w.pronoun(c, c.one([1, 1, 4]), drop=1.0) if c.chance(0.6) else w.somebody(c)


def yes_or_no(c: Chooser) -> Sentence:
    """``compró tu hermana la casa`` -> ``did your sister buy the house``."""
    who = w.somebody(c)
    kind = c.random()
    if kind < 0.2:
        es, en = feels(c, who, "present")
        verb, _, rest = es.partition(" ")
        be, _, rest_en = en.partition(" ")
        return Sentence(join(verb, who.es, rest), join(be, who.en, rest_en), "yes no question")
    done = k.with_thing(c, states=False) if kind < 0.6 else k.without_object(c)
    tense = k.tense_of(c, done.verb, ASKED_TENSES)
    verb = k.spanish(done.verb.forms, tense, who.person)
    en = k.english(done.verb.en, who, tense, ask=True, what=done.what[1], short=done.short)
    return Sentence(join(done.clitic, verb, who.es, done.what[0]), en, "yes no question")


def what(c: Chooser) -> Sentence:
    """``qué compraste ayer`` -> ``what did you buy yesterday``; ``qué libro leyó ana``."""
    who, verb = addressed(c), k.verb_of(c, "thing", states=False)
    tense = k.tense_of(c, verb, ASKED_TENSES)
    es, en = "qué", "what"
    if c.chance(0.4):
        noun = w.pick(c, w.NOUNS[c.one(verb.uses)])
        es, en = f"qué {noun.es}", f"which {noun.en}"
    english = k.english(verb.en, who, tense, ask=True)
    return Sentence(
        join(es, k.spanish(verb.forms, tense, who.person), who.es), join(en, english), OPEN
    )


def who_did(c: Chooser) -> Sentence:
    """``quién rompió la silla`` -> ``who broke the chair``; ``a quién visitaste``."""
    kind = c.random()
    if kind < 0.5:
        done = k.with_thing(c, states=False) if c.chance(0.6) else k.without_object(c)
        tense = k.tense_of(c, done.verb, ASKED_TENSES)
        es = join("quién", done.clitic, k.spanish(done.verb.forms, tense, 2), done.what[0])
        nobody = Who("", "who", 2, "m")
        return Sentence(
            es, k.english(done.verb.en, nobody, tense, what=done.what[1], short=done.short), OPEN
        )
    who = addressed(c)
    if kind < 0.75:
        verb = k.verb_of(c, "person", states=False)
        es, mate = "a quién", ""
    else:
        verb = w.pick(c, [v for v in w.VERBS_OF["alone"] if "with" in v.uses])
        es, mate = "con quién", "with"
    tense = k.tense_of(c, verb, ASKED_TENSES)
    en = k.english(verb.en, who, tense, ask=True, what=mate)
    return Sentence(join(es, k.spanish(verb.forms, tense, who.person), who.es), f"who {en}", OPEN)


def where(c: Chooser) -> Sentence:
    """``dónde trabaja tu padre`` -> ``where does your father work``; ``dónde está``."""
    kind = c.random()
    if kind < 0.35:
        _, thing = some_thing(c, ["clothes", "thing", "text", "container", "in", "at", "animal"])
        tense = c.one(["present", "imperfect"])
        es, en = k.spanish(w.ESTAR, tense, thing.person), k.to_be(thing, tense)
        return Sentence(f"dónde {es} {thing.es}", f"where {en} {thing.en}", OPEN)
    if kind < 0.5:
        who = w.somebody(c)
        es, en = k.spanish(w.SER, "present", who.person), k.to_be(who, "present")
        return Sentence(f"de dónde {es} {who.es}", f"where {en} {who.en} from", OPEN)
    if kind < 0.75:
        verb = w.pick(c, [v for v in w.VERBS_OF["alone"] if "in" in v.uses])
        done = k.Done(verb, "", ("", ""), False)
    else:
        done = k.with_thing(c, states=False)
    return asked(c, "dónde", "where", done)


def asked(
    c: Chooser, es: str, en: str, done: k.Done, *, intent: str = OPEN, no: bool = False
) -> Sentence:
    """Ask somebody about what is done, beginning with a question word."""
    who, tense = addressed(c), k.tense_of(c, done.verb, ASKED_TENSES)
    verb = k.spanish(done.verb.forms, tense, who.person)
    english = k.english(
        done.verb.en, who, tense, no=no, ask=True, what=done.what[1], short=done.short
    )
    spanish = join(es, "no" if no else "", done.clitic, verb, who.es, done.what[0])
    return Sentence(spanish, f"{en} {english}", intent)


def at_what_time(c: Chooser) -> Sentence:
    """``cuándo llegó el tren`` -> ``when did the train arrive``; ``cómo``, ``a qué hora``."""
    word, word_en = c.one([
        ("cuándo", "when"), ("cuándo", "when"), ("a qué hora", "at what time"), ("cómo", "how"),
    ])  # fmt: skip
    done = k.without_object(c) if c.chance(0.5) else k.with_thing(c, states=False)
    return asked(c, word, word_en, done)


def why(c: Chooser) -> Sentence:
    """``por qué no vino tu primo`` -> ``why did your cousin not come``."""
    done = k.without_object(c) if c.chance(0.5) else k.with_thing(c, states=False)
    return asked(c, "por qué", "why", done, intent="reason question", no=c.chance(0.4))


def how_many(c: Chooser) -> Sentence:
    """``cuántas sillas tienes`` -> ``how many chairs do you have``; prices."""
    if c.chance(0.35):
        _, thing = some_thing(c, ["clothes", "thing", "furniture", "food", "vehicle"])
        es = k.spanish(w.COSTAR, "present", thing.person)
        en = k.english(w.COST, thing, "present", ask=True)
        return Sentence(f"cuánto {es} {thing.es}", f"how much {en}", "price")
    who, verb = addressed(c), k.verb_of(c, "thing", states=False)
    tense = k.tense_of(c, verb, ASKED_TENSES)
    forms, english = verb.forms, verb.en
    noun = w.pick(c, w.NOUNS[c.one(verb.uses)])
    if c.chance(0.3):
        forms, english, tense = w.TENER, w.HAVE, c.one(["present", "future"])
    many, many_en = "cuánt" + {"m": "o", "f": "a"}[noun.gender], "how much"
    found = Phrase(noun.es, noun.en, noun.gender, 0)
    if noun.es_pl:
        many, many_en = many + "s", "how many"
        found = Phrase(noun.es_pl, noun.en_pl, noun.gender, 1)
    es = join(many, found.es, k.spanish(forms, tense, who.person), who.es)
    en = k.english(english, who, tense, ask=True)
    return Sentence(es, join(many_en, found.en, en), "quantity question")


def which_is(c: Chooser) -> Sentence:
    """``de qué color es tu abrigo`` -> ``what color is your coat``; ``de quién es``."""
    noun = w.pick(c, w.NOUNS[c.one(["clothes", "vehicle", "container", "furniture", "text"])])
    thing = as_subject(
        w.phrase(c, noun, c.one(["the", "your", "this", "that"]), number=int(c.chance(0.3)))
    )
    es, en = c.one([("de qué color", "what color"), ("de quién", "whose"), ("cómo", "what")])
    end = "like" if es == "cómo" else ""
    verb = k.spanish(w.SER, "present", thing.person)
    return Sentence(
        f"{es} {verb} {thing.es}", join(en, k.to_be(thing, "present"), thing.en, end), OPEN
    )


QUESTIONS: list[Callable[[Chooser], Sentence]] = [
    *[yes_or_no] * 3, what, what, who_did, who_did, where, where, at_what_time, why, why,
    how_many, how_many, which_is,
]  # fmt: skip
