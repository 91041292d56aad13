"""The mini_hard corpus's sentences: what is done, liked, paid, commanded; the weather, the time.

Written for this project. Sentences are lower-case, without punctuation. Translating takes more than
replacing words: adjectives and clitics move, subjects appear, ``no`` becomes ``do not``, ``gustar``
and ``doler`` turn around, tenses take helpers. The intent is the kind of the sentence, in
plain words. `mini_hard_being` and `mini_hard_questions` have the other templates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import mini_hard_clauses as k
import mini_hard_words as w
from mini_hard_clauses import join
from mini_hard_words import Who, Words
from mini_words import Chooser, Pair, Phrase, contract

KIND_OF = {
    "present": "present action", "preterite": "past action", "imperfect": "past habit",
    "future": "plan", "going": "plan", "progressive": "ongoing action", "was": "ongoing action",
    "perfect": "completed action",
}  # fmt: skip
WEATHER = (("frío", "cold"), ("calor", "hot"), ("sol", "sunny"), ("viento", "windy"))
RAIN = (
    ("llueve", "llovió", "lloverá", "lloviendo", "rain"),
    ("nieva", "nevó", "nevará", "nevando", "snow"),
)


class Sentence(NamedTuple):
    """A Spanish sentence, its English translation, and its intent."""

    es: str
    en: str
    intent: str


def labelled(pair: Pair, intent: str) -> Sentence:
    """Give a pair its intent."""
    return Sentence(pair.es, pair.en, intent)


def no_of(c: Chooser, probability: float) -> Words:
    """Return ``no`` and ``not``, or nothing."""
    return ("no", "not") if c.chance(probability) else ("", "")


def as_subject(what: Phrase) -> Who:
    """Make a noun phrase a subject."""
    return Who(what.es, what.en, 4 if what.number else 2, what.gender)


def some_thing(c: Chooser, names: list[str], *, definite: bool = True) -> tuple[w.Noun, Who]:
    """Draw a noun of some classes, and a phrase of it as a subject."""
    noun = w.pick(c, w.NOUNS[c.one(names)])
    return noun, as_subject(w.thing(c, noun, definite=definite))


def action(c: Chooser) -> Sentence:
    """``ayer mi hermana no compró pan`` -> ``yesterday my sister did not buy bread``."""
    who = w.subject(c)
    done = k.anything(c, who)
    tense = k.tense_of(c, done.verb)
    return labelled(k.clause(c, who, done, tense), KIND_OF[tense])


def before_infinitive(c: Chooser) -> Sentence:
    """``no la quiero vender`` -> ``i do not want to sell it``; ``dejamos de correr``."""
    who, first = w.subject(c), w.pick(c, w.VERBS_OF["before infinitive"])
    intent = first.uses[0]
    tenses = ["present"] if intent in ("wish", "ability") else ["present", "preterite", "perfect"]
    if first.after == "que":
        tenses = ["present", "present", "preterite", "future"]
    tense = c.one(tenses)
    no, negated = no_of(c, 0.2)
    done = k.anything(c, who, states=False)
    es, en = k.chained(first, done)
    if first.en.base in ("can", "should"):
        tense = c.one(["present", "imperfect"]) if first.en.base == "can" else "present"
        helper = {"can": "can", "should": "should"}[first.en.base]
        helper = "could" if tense == "imperfect" else helper
        helper = "cannot" if helper == "can" and no else join(helper, negated)
        english = join(who.en, helper, en.rest)
    else:
        english = k.english(en, who, tense, no=bool(no))
    moment: Words = ("", "")
    if tense == "preterite" and who.person == 3:
        moment = w.when(c, tense, sure=True)
    spanish = join(who.es, no, done.clitic, k.spanish(first.forms, tense, who.person), es)
    return Sentence(join(moment[0], spanish), join(moment[1], english), intent)


def liking(c: Chooser) -> Sentence:
    """``a mi madre no le gustan las uvas`` -> ``my mother does not like grapes``."""
    if c.chance(0.5):
        who = w.somebody(c)
        start, clitic = f"a {who.es}", k.CLITICS[who.person]
    else:
        person = c.one([0, 0, 1, 3])
        who, start, clitic = w.pronoun(c, person, drop=1.0), "", k.CLITICS[person]
    no, negated = no_of(c, 0.3)
    tense, love = c.one(["present", "present", "imperfect"]), not no and c.chance(0.3)
    kind = c.random()
    if kind < 0.3:
        done = k.without_object(c) if c.chance(0.4) else k.with_thing(c, states=False, pronoun=0)
        es, number = join(done.verb.forms.infinitive, done.what[0]), 0
        en = done.verb.en.with_object(done.verb.en.ing, done.what[1])
    elif kind < 0.75:
        noun = w.pick(
            c, w.NOUNS[c.one(["food", "meal", "drink", "animal", "clothes", "show", "game"])]
        )
        number = int(bool(noun.es_pl))
        what = w.phrase(c, noun, "the", number=number)
        es, en = what.es, noun.en_pl or noun.en
    else:
        noun = w.pick(c, w.NOUNS[c.one(["clothes", "text", "song", "in", "vehicle", "furniture"])])
        number = int(c.chance(0.3))
        what = w.phrase(c, noun, c.one(["your", "this", "that"]), number=number)
        es, en = what.es, what.en
    forms = w.ENCANTAR if love else w.GUSTAR
    verb = k.spanish(forms, tense, 4 if number else 2)
    english = k.english(w.LOVE if love else w.LIKE, who, tense, no=bool(negated), what=en)
    return Sentence(contract(join(start, no, clitic, verb, es)), english, "liking")


def pain(c: Chooser) -> Sentence:
    """``hoy no me duelen los pies`` -> ``today my feet do not hurt``."""
    noun, person = w.pick(c, w.NOUNS["body"]), c.one([0, 0, 1, 3])
    number = int(bool(noun.es_pl) and c.chance(0.6))
    what = w.phrase(c, noun, "the", number=number)
    tense = c.one(["present", "present", "preterite"])
    no, _ = no_of(c, 0.3)
    moment: Words = ("", "")
    if c.chance(0.3):
        moment = w.when(c, tense, sure=True)
    owner = ("my", "your", "", "our")[person]
    who = Who("", f"{owner} {noun.en_pl if number else noun.en}", 4 if number else 2, noun.gender)
    verb = k.spanish(w.DOLER, tense, who.person)
    english = k.english(w.HURT, who, tense, no=bool(no))
    return Sentence(
        join(moment[0], no, k.CLITICS[person], verb, what.es), join(moment[1], english), "pain"
    )


def weather(c: Chooser) -> Sentence:
    """``mañana hará frío en madrid`` -> ``tomorrow it will be cold in madrid``."""
    tense = c.one(["present", "preterite", "future"])
    moment = ("hoy", "today") if tense == "present" else w.when(c, tense, sure=True)
    where = k.complement(c, c.one(["city", "country", "city", "in"]))
    if c.chance(0.25):
        where = ("", "")
    if c.chance(0.5):
        heat, en = c.one(WEATHER)
        much, very = ("mucho", "very") if c.chance(0.3) else ("", "")
        es = join(k.spanish(w.HACER, tense, 2), much, heat)
        be = {"present": "is", "preterite": "was", "future": "will be"}[tense]
        en = join("it", be, very, en)
    else:
        now, past, future, going_on, verb = c.one(RAIN)
        es = {"present": c.one([now, f"está {going_on}"]), "preterite": past, "future": future}[
            tense
        ]
        en = {"preterite": f"it {verb}ed", "future": f"it will {verb}"}.get(tense, f"it {verb}s")
        if es.startswith("está"):
            en = f"it is {verb}ing"
    return Sentence(join(moment[0], es, where[0]), join(moment[1], en, where[1]), "weather")


def price(c: Chooser) -> Sentence:
    """``el abrigo cuesta ciento veinte euros``; ``pagué diez euros por la taza``."""
    noun, what = some_thing(c, ["clothes", "thing", "furniture", "device", "vehicle", "container"])
    number = 2 + int(c.random() * (998 if c.chance(0.6) else 40))
    euros, euros_en = f"{w.number_es(number)} euros", f"{w.number_en(number)} euros"
    if c.chance(0.6):
        tense = c.one(["present", "present", "preterite", "future"])
        es = join(what.es, k.spanish(w.COSTAR, tense, what.person), euros)
        return Sentence(es, k.english(w.COST, what, tense, what=euros_en), "price")
    who, tense = w.subject(c), c.one(["preterite", "future", "perfect"])
    done = k.Done(w.PAY, "", (f"{euros} por {what.es}", f"{euros_en} for {what.en}"), False)
    return labelled(k.clause(c, who, done, tense, time=0.0), "price")


def telling_time(c: Chooser) -> Sentence:
    """``son las dos y media`` -> ``it is half past two``; ``hoy es el tres de mayo``."""
    if c.chance(0.4):
        (day, day_en), (dated, dated_en) = c.one(w.NAMES["day"]), w.date(c)
        start = c.one(
            [("hoy es", "today is"), ("mañana es", "tomorrow is"), ("ayer fue", "yesterday was")]
        )
        es, en = c.one(
            [(day, day_en), (dated, dated_en), (f"{day} {dated[3:]}", f"{day_en} {dated_en}")]
        )
        return Sentence(f"{start[0]} {es}", f"{start[1]} {en}", "date")
    es, en = w.clock(c)
    verb = "es" if es.startswith("la ") else "son"
    start = c.one([("ya", " already"), ("", "")])
    if c.chance(0.5):
        noun = w.pick(c, w.NOUNS[c.one(["show", "show", "in"])])
        what = as_subject(w.phrase(c, noun, "the"))
        begin = c.one([("empieza", "starts"), ("termina", "ends")])
        if w.CLASS_OF[noun.es] == "in":
            begin = c.one([("abre", "opens"), ("cierra", "closes")])
        return Sentence(f"{what.es} {begin[0]} a {es}", f"{what.en} {begin[1]} at {en}", "time")
    return Sentence(join(start[0], verb, es), f"it is{start[1]} {en}", "time")


def command(c: Chooser) -> Sentence:
    """``por favor cierra la puerta`` -> ``please close the door``; ``no la cierres``."""
    you = Who("", "", 1, "m")
    kind = c.random()
    done = k.with_thing(c, states=False) if kind < 0.6 else k.without_object(c)
    if kind > 0.85:
        done = k.with_person(c, you, states=False)
    forbidden = (c.chance(0.45) and not done.verb.rare) or bool(done.clitic)
    en = done.verb.en.with_object(done.verb.en.base, done.what[1], pronoun=done.short)
    if forbidden:
        return Sentence(
            join("no", done.clitic, done.verb.forms.subjunctive, done.what[0]), f"do not {en}",
            "prohibition",
        )  # fmt: skip
    es = join(done.verb.forms.command, done.what[0])
    if c.chance(0.5):
        return Sentence(f"por favor {es}", f"please {en}", "command")
    return Sentence(f"{es} por favor", f"{en} please", "command")


# how often a template stands here is how often it is drawn
STATEMENTS: list[Callable[[Chooser], Sentence]] = [
    *[action] * 22, *[before_infinitive] * 6, *[liking] * 3, pain, weather, *[price] * 2,
    telling_time, *[command] * 2,
]  # fmt: skip
