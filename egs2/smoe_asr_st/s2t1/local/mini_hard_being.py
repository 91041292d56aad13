"""The mini_hard corpus's sentences about what is: looks, moods, places, possessions, reasons."""

from __future__ import annotations

from collections.abc import Callable

import mini_hard_clauses as k
import mini_hard_words as w
from mini_hard_clauses import join
from mini_hard_grammar import Sentence, as_subject, no_of, some_thing
from mini_hard_verbs import Forms
from mini_hard_words import Who, Words
from mini_words import Chooser, contract, inflect, with_article

STATE_TENSES = ("present", "present", "present", "imperfect", "imperfect", "future")
FEELINGS = (
    ("hambre", "f", "hungry"), ("sed", "f", "thirsty"), ("frío", "m", "cold"),
    ("calor", "m", "hot"), ("sueño", "m", "sleepy"), ("miedo", "m", "afraid"),
    ("prisa", "f", "in a hurry"),
    ("suerte", "f", "lucky"), ("cuidado", "m", "careful"),
)  # fmt: skip
NEAR = (
    ("cerca de", "near"), ("lejos de", "far from"), ("detrás de", "behind"),
    ("delante de", "in front of"), ("al lado de", "next to"),
)  # fmt: skip
ON = (("debajo de", "under"), ("encima de", "on top of"), ("en", "on"))


PASSING = {"rot*", "mojad*", "limpi*", "suci*", "sec*", "frí*", "caliente calientes", "madur*"}
DESCRIBED = ["clothes", "thing", "furniture", "device", "container", "vehicle", "text", "show"]
DESCRIBED += ["food", "animal", "in", "building", "person", "profession", "on", "room"]


def be_with(adjective: w.Adjective) -> Forms:
    """Return ``ser``, or ``estar`` for an adjective that tells a passing state."""
    return w.ESTAR if adjective.es in PASSING else w.SER


def description(c: Chooser) -> Sentence:
    """``esa camisa era muy cara`` -> ``that shirt was very expensive``; comparisons."""
    noun, who = some_thing(c, DESCRIBED)
    adjective = w.pick(c, w.adjectives_of(noun))
    tense = c.one(STATE_TENSES)
    es, en = k.spanish(be_with(adjective), tense, who.person), k.to_be(who, tense)
    form = inflect(adjective.es, who.gender, int(who.person == 4))
    no, negated = no_of(c, 0.2)
    if tense == "future":
        en = join("will", negated, "be")
        negated = ""
    if adjective.more and c.chance(0.4):
        _, other = some_thing(c, [w.CLASS_OF[noun.es]])
        if c.chance(0.3):
            es, en = join(no, es, "tan", form, "como"), join(en, negated, "as", adjective.en, "as")
        else:
            es, en = join(no, es, "más", form, "que"), join(en, negated, adjective.more, "than")
        return Sentence(join(who.es, es, other.es), join(who.en, en, other.en), "comparison")
    much, very = ("muy", "very") if c.chance(0.3) else ("", "")
    return Sentence(
        join(who.es, no, es, much, form),
        join(who.en, en, negated, very, adjective.en),
        "description",
    )


def that_clause(c: Chooser) -> Sentence:
    """``el libro que leyó ana es largo`` -> ``the book that ana read is long``."""
    verb = k.verb_of(c, "thing", states=False)
    noun = w.pick(c, w.NOUNS[c.one(verb.uses)])
    number = int(bool(noun.es_pl) and c.chance(0.3))
    what = as_subject(w.phrase(c, noun, "the", number=number))
    tense = k.tense_of(c, verb, ["preterite", "preterite", "perfect", "imperfect"])
    who = w.pronoun(c, c.one([0, 0, 1, 4]), drop=1.0) if c.chance(0.6) else w.somebody(c)
    adjective = w.pick(c, w.adjectives_of(noun))
    form = inflect(adjective.es, what.gender, number)
    es = join(what.es, "que", k.spanish(verb.forms, tense, who.person), who.es)
    en = join(what.en, "that", k.english(verb.en, who, tense))
    then = "imperfect" if tense == "imperfect" else "present"
    return Sentence(
        join(es, k.spanish(be_with(adjective), then, what.person), form),
        join(en, k.to_be(what, then), adjective.en),
        "description",
    )


def feels(c: Chooser, who: Who, tense: str, no: str = "") -> Words:
    """Return ``está muy cansada``, ``is very tired``; ``tiene sed``, ``is thirsty``."""
    much = c.chance(0.25)
    be = k.to_be(who, tense)
    if tense == "future" and no:
        be, negated = "will not be", ""
    else:
        negated = "not" if no else ""
    if c.chance(0.35):
        es, gender, en = c.one(FEELINGS)
        very = {"m": "mucho", "f": "mucha"}[gender] if much else ""
        if much:
            en = "in a great hurry" if en.startswith("in ") else f"very {en}"
        return (
            join(no, k.spanish(w.TENER, tense, who.person), very, es),
            join(be, negated, en),
        )
    mood = w.pick(c, w.ADJECTIVES["mood"])
    form = inflect(mood.es, who.gender, int(who.person > 2))
    return (
        join(no, k.spanish(w.ESTAR, tense, who.person), "muy" if much else "", form),
        join(be, negated, "very" if much else "", mood.en),
    )


def feeling(c: Chooser) -> Sentence:
    """``mis hermanas están cansadas`` -> ``my sisters are tired``; ``tengo sed``."""
    who, tense = w.subject(c), c.one(STATE_TENSES)
    es, en = feels(c, who, tense, no_of(c, 0.2)[0])
    return Sentence(join(who.es, es), join(who.en, en), "feeling")


def reason(c: Chooser) -> Sentence:
    """``no trabajo porque estoy enfermo`` -> ``i do not work because i am sick``."""
    who, tense = w.subject(c), c.one(["present", "preterite", "preterite"])
    done = k.without_object(c) if c.chance(0.6) else k.with_thing(c, states=False)
    main = k.clause(c, who, done, tense, no=0.6, time=0.0)
    es, en = feels(c, who, "present" if tense == "present" else "imperfect")
    again = who.en if who.person in (0, 1, 3) else w.pronoun(c, who.person, who.gender).en
    return Sentence(join(main.es, "porque", es), join(main.en, "because", again, en), "reason")


def somewhere(c: Chooser, *, near: float = 0.4) -> Words:
    """Return ``cerca de la estación``, ``near the station``; ``debajo de la mesa``."""
    if c.chance(0.3):
        there = w.phrase(c, w.pick(c, w.NOUNS["furniture"]), c.one(["the", "my"]))
        es, en = c.one(ON)
        return contract(f"{es} {there.es}"), f"{en} {there.en}"
    _, preposition, (there_es, there_en) = k.place(c)
    es, en = c.one(NEAR) if c.chance(near) else ("en", preposition)
    return contract(f"{es} {there_es}"), f"{en} {there_en}"


PUT = ["clothes", "thing", "animal", "container", "text", "closed", "plant"]


def location(c: Chooser) -> Sentence:
    """``tu llave estaba debajo de la cama``; ``hay dos gatos en el jardín``."""
    tense, (es, en) = c.one(STATE_TENSES), somewhere(c)
    no, negated = no_of(c, 0.15)
    if c.chance(0.4):
        noun = w.pick(c, w.NOUNS[c.one([*PUT, "vehicle", "furniture", "profession"])])
        number = int(c.chance(0.5))
        what = w.phrase(
            c, noun, c.one(["count", "count", "many"]) if number else "a", number=number
        )
        verb = {"present": "hay", "imperfect": "había", "future": "habrá"}[tense]
        be = k.to_be(as_subject(what), tense)
        return Sentence(join(verb, what.es, es), join("there", be, what.en, en), "existence")
    who = w.somebody(c) if c.chance(0.4) else some_thing(c, PUT)[1]
    be = join("will", negated, "be") if tense == "future" else join(k.to_be(who, tense), negated)
    return Sentence(
        join(who.es, no, k.spanish(w.ESTAR, tense, who.person), es),
        join(who.en, be, en),
        "location",
    )


def owning(c: Chooser) -> Sentence:
    """``tenía dos perros`` -> ``i had two dogs``; ``ella tiene ocho años``."""
    who, tense = w.subject(c), c.one(STATE_TENSES)
    verb = k.spanish(w.TENER, tense, who.person)
    if c.chance(0.35):
        age = 2 + int(c.random() * 97)
        return Sentence(
            join(who.es, verb, w.number_es(age), "años"),
            join(who.en, k.to_be(who, tense), w.number_en(age), "years old"),
            "identity",
        )
    noun = w.pick(
        c, w.NOUNS[c.one(["animal", "vehicle", "thing", "device", "instrument", "clothes"])]
    )
    no, _ = no_of(c, 0.2)
    number = int(c.chance(0.5))
    adjective = w.pick(c, w.adjectives_of(noun)) if c.chance(0.4) else None
    det = c.one(["count", "count", "many"]) if number else "a"
    what = w.phrase(c, noun, det, number=number, adjective=adjective)
    past = "preterite" if tense == "imperfect" else tense
    en = k.english(w.HAVE, who, past, no=bool(no), what=what.en)
    return Sentence(join(who.es, no, verb, what.es), en, "possession")


def identity(c: Chooser) -> Sentence:
    """``me llamo ana`` -> ``my name is ana``; ``mi tía era médica``; ``soy de lima``."""
    kind = c.one(["name", "from", "from", "work", "work", "number"])
    if kind == "name":
        if c.chance(0.5):
            clitic, verb, owner = c.one([("me", "llamo", "my"), ("te", "llamas", "your")])
            name = w.named(c)
            return Sentence(f"{clitic} {verb} {name.es}", f"{owner} name is {name.en}", "identity")
        noun = w.pick(c, w.NOUNS[c.one(["person", "animal"])])
        who, name = as_subject(w.phrase(c, noun, c.one(w.OWNERS[:2]))), w.named(c, noun.gender)
        return Sentence(f"{who.es} se llama {name.es}", f"{who.en} is called {name.en}", "identity")
    if kind == "number":
        number = 2 + int(c.random() * 998)
        number += number % 10 == 1  # "uno" stands before no noun
        noun, noun_en = c.one([("casa", "house"), ("habitación", "room"), ("mesa", "table")])
        owner = c.one([("mi", "my"), ("tu", "your"), ("nuestra", "our")])
        return Sentence(
            f"{owner[0]} {noun} es la número {w.number_es(number)}",
            f"{owner[1]} {noun_en} is number {w.number_en(number)}", "identity",
        )  # fmt: skip
    who, tense = w.subject(c), c.one(["present", "present", "imperfect", "future"])
    be = k.spanish(w.SER, tense, who.person)
    no, negated = no_of(c, 0.2)
    to_be = join("will", negated, "be") if tense == "future" else join(k.to_be(who, tense), negated)
    if kind == "from" and tense != "future":
        es, en = w.pick(c, w.NAMES[c.one(["city", "country"])])
        return Sentence(join(who.es, no, be, "de", es), join(who.en, to_be, "from", en), "identity")
    noun = w.pick(c, [n for n in w.NOUNS["profession"] if n.gender == who.gender])
    many = who.person > 2
    es, en = (noun.es_pl, noun.en_pl) if many else (noun.es, with_article(noun.en))
    return Sentence(join(who.es, no, be, es), join(who.en, to_be, en), "identity")


# how often a template stands here is how often it is drawn
STATEMENTS: list[Callable[[Chooser], Sentence]] = [
    *[description] * 3, that_clause, *[feeling] * 2, *[reason] * 2, *[location] * 3, *[owning] * 2,
    *[identity] * 2,
]  # fmt: skip
