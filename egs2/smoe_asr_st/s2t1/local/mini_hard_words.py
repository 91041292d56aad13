"""The mini_hard corpus's words: its lexicon, numbers, noun phrases, subjects and times.

The words stand in ``mini_hard_lexicon.txt`` and ``mini_hard_verbs.txt``; `mini_hard_grammar` makes
sentences of them. Everything comes in pairs, Spanish and English.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from mini_hard_numbers import number_en, number_es, ordinal_en
from mini_hard_verbs import English, Forms, conjugate, english
from mini_words import Chooser, Noun, Phrase, inflect, with_article

T = TypeVar("T")
Words = tuple[str, str]  # Spanish and English
LEXICON = Path(__file__).with_name("mini_hard_lexicon.txt")
VERBS = Path(__file__).with_name("mini_hard_verbs.txt")
STRESSED_A = {"agua"}  # feminine, but with el
CHARACTERS = {"in": "site", "at": "site", "on": "site", "room": "site", "building": "site"}


class Adjective(NamedTuple):
    """An adjective as `mini_words.inflect` takes it; ``more`` is its comparative, if it has one."""

    es: str
    en: str
    more: str


class Verb(NamedTuple):
    """A verb of one section of the lexicon.

    Attributes:
        forms: Spanish.
        en: English.
        after: Spanish word between it and an infinitive (``que``, ``a``, ``de``), or empty.
        uses: Classes of its objects or complements.
        rare: Of the second half of its section: in the usual tenses only.
    """

    forms: Forms
    en: English
    after: str
    uses: tuple[str, ...]
    rare: bool = False


class Who(NamedTuple):
    """A subject: its words (Spanish may be empty), its column in the verbs' tables, its gender."""

    es: str
    en: str
    person: int  # 0 yo, 1 tú, 2 él/ella, 3 nosotros, 4 ellos
    gender: str


def _sections(path: Path) -> dict[str, list[list[str]]]:
    """Read ``{class: entries}``; an entry is a list of fields."""
    found: dict[str, list[list[str]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            entries = found.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            cells = [entry.strip() for entry in line.split(";")]
            entries += [[f.strip() for f in entry.split(",")] for entry in cells if entry]
    return found


def plain(text: str) -> str:
    """Drop accents, as English writes names: ``lucía`` -> ``lucia``."""
    parts = unicodedata.normalize("NFD", text)
    return "".join(char for char in parts if not unicodedata.combining(char))


def plural_es(word: str) -> str:
    """Return a Spanish noun's regular plural."""
    if word[-1] in "aeiouáé":
        return word + "s"
    if word.endswith("z"):
        return word[:-1] + "ces"
    return (word[:-2] + plain(word[-2:]) if word[-2] in "áéíóú" else word) + "es"


def plural_en(word: str) -> str:
    """Return an English noun's regular plural."""
    if word.endswith(("s", "x", "ch", "sh")):
        return word + "es"
    return word[:-1] + "ies" if re.search("[^aeiou]y$", word) else word + "s"


def _noun(fields: Sequence[str]) -> Noun:
    es, gender, en = fields
    (es, _, es_pl), (en, _, en_pl) = es.partition("/"), en.partition("/")
    if es_pl == "-":
        return Noun(es, "", gender, en, "")
    return Noun(es, es_pl or plural_es(es), gender, en, en_pl or plural_en(en))


def _verb(fields: Sequence[str], rare: bool) -> Verb:
    head, en, *uses = fields
    infinitive, *more = head.split()
    change = more[0] if more and more[0] not in ("a", "de", "que") else ""
    after = more[-1] if more and more[-1] in ("a", "de", "que") else ""
    return Verb(
        conjugate(infinitive, change), english(en), after, tuple(" ".join(uses).split()), rare
    )


_LISTS = _sections(LEXICON)
NOUNS = {
    name: [_noun(f) for f in entries]
    for name, entries in _LISTS.items()
    if len(entries[0]) == 3 and not name.startswith("adjective")
}
ADJECTIVES = {
    name.removeprefix("adjective "): [Adjective(*(fields + [""])[:3]) for fields in entries]
    for name, entries in _LISTS.items()
    if name.startswith("adjective")
}
NAMES = {
    name: [(fields[0], plain(fields[-1])) for fields in entries]
    for name, entries in _LISTS.items()
    if name not in NOUNS and not name.startswith("adjective")
}
CLASS_OF = {noun.es: name for name, nouns in NOUNS.items() for noun in nouns}
VERBS_OF = {
    name: [_verb(fields, 2 * rank >= len(entries)) for rank, fields in enumerate(entries)]
    for name, entries in _sections(VERBS).items()
}
SER, ESTAR, HABER, IR, HACER = (
    conjugate(verb) for verb in ("ser", "estar", "haber", "ir", "hacer")
)
TENER, COSTAR = conjugate("tener", "ie"), conjugate("costar", "ue")
DOLER, GUSTAR, ENCANTAR = conjugate("doler", "ue"), conjugate("gustar"), conjugate("encantar")
HURT, LIKE, LOVE, HAVE, COST = (
    english(entry) for entry in ("hurt/hurt", "like", "love", "have/had", "cost/cost")
)
PAY = Verb(conjugate("pagar"), english("pay/paid"), "", ())
BE = ("am", "are", "is", "are", "are")
WAS = ("was", "were", "was", "were", "were")


def pick(c: Chooser, items: Sequence[T]) -> T:
    """Return one of the items; the first ones are drawn more often, as in Zipf's law."""
    u = c.random()
    return items[int(len(items) * u * u)]


DETERMINERS = {  # Spanish m, f, plural m, f; English singular, plural
    "the": ("el la los las", "the", "the"),
    "my": ("mi mi mis mis", "my", "my"),
    "your": ("tu tu tus tus", "your", "your"),
    "our": ("nuestro nuestra nuestros nuestras", "our", "our"),
    "this": ("este esta estos estas", "this", "these"),
    "that": ("ese esa esos esas", "that", "those"),
    "other": ("otro otra otros otras", "another", "other"),
    "many": ("mucho mucha muchos muchas", "a lot of", "many"),
}
OWNERS = ("my", "your", "our")


def phrase(
    c: Chooser, noun: Noun, det: str, *, number: int = 0, adjective: Adjective | None = None
) -> Phrase:
    """Build a noun phrase.

    Args:
        c: The source of chance, for ``count`` only.
        noun: The noun; a mass noun is always singular.
        det: A key of `DETERMINERS`, ``a``, ``count`` (plural), or empty.
        number: 1: plural.
        adjective: Stands behind the Spanish noun.
    """
    number = number if noun.es_pl else 0
    es, en = (noun.es_pl, noun.en_pl) if number else (noun.es, noun.en)
    if adjective:
        es = f"{es} {inflect(adjective.es, noun.gender, number)}"
        en = f"{adjective.en} {en}"
    if det in DETERMINERS:
        forms, one, many = DETERMINERS[det]
        form = forms.split()[2 * number + (noun.gender == "f")]
        if form == "la" and noun.es in STRESSED_A:
            form = "el"
        es, en = f"{form} {es}", f"{many if number else one} {en}"
    elif det == "a":
        es, en = f"{'un' if noun.gender == 'm' else 'una'} {es}", with_article(en)
    elif det == "count":
        count = 2 + int(c.random() * (11 if c.chance(0.8) else 98))
        es, en = f"{number_es(count, noun.gender)} {es}", f"{number_en(count)} {en}"
    return Phrase(es, en, noun.gender, number)


def adjectives_of(noun: Noun) -> list[Adjective]:
    """Return the adjectives that go with a noun."""
    name = CLASS_OF[noun.es]
    if name in ("food", "meal", "drink"):
        return ADJECTIVES["fruit" if name == "food" else "food"]
    if name in CHARACTERS:
        return ADJECTIVES[CHARACTERS[name]]
    if name in ("person", "profession"):
        return ADJECTIVES["character"]
    if name in ("text", "show", "song"):
        return ADJECTIVES["work"]
    if name == "animal":
        return ADJECTIVES["creature"]
    return ADJECTIVES["color"] + ([] if name == "plant" else ADJECTIVES["shape"])


def thing(c: Chooser, noun: Noun, *, definite: bool = False, bare: bool = True) -> Phrase:
    """Return a phrase of the noun with any fitting determiner, number and adjective."""
    adjective = pick(c, adjectives_of(noun)) if c.chance(0.25) else None
    if not noun.es_pl:
        det = c.one(["the", "the", "my", "this"] if definite else ["", "", "the", "many"])
        return phrase(c, noun, det, adjective=adjective)
    number = int(c.chance(0.35))
    dets = ["the", "the", "the", "my", "your", "our", "this", "that"]
    if not definite:
        dets += (
            ["count", "count", "many", "other"] + [""] * bare if number else ["a"] * 5 + ["other"]
        )
    return phrase(c, noun, c.one(dets), number=number, adjective=adjective)


def measured(c: Chooser, noun: Noun) -> Phrase:
    """Return some of a mass noun: ``un vaso de leche``, ``un kilo de arroz``."""
    drink = CLASS_OF[noun.es] == "drink"
    es, en, gender = c.one(
        [("un vaso", "a glass", "m"), ("una botella", "a bottle", "f"), ("una taza", "a cup", "f")]
        if drink
        else [
            ("un kilo", "a kilo", "m"),
            ("un plato", "a plate", "m"),
            ("un poco", "a little", "m"),
        ]
    )
    return Phrase(
        f"{es} de {noun.es}", f"{en} {'' if en == 'a little' else 'of '}{noun.en}", gender, 0
    )


def named(c: Chooser, gender: str = "") -> Who:
    """Return a person by name."""
    gender = gender or c.one("mf")
    return Who(*pick(c, NAMES["men" if gender == "m" else "women"]), 2, gender)


def somebody(c: Chooser, *, plural: float = 0.25) -> Who:
    """Return a person or persons, never a pronoun: ``mi hermana``, ``los médicos``, ``ana``."""
    kind = c.random()
    if kind < 0.35:
        one = named(c)
        other = named(c)
        if not c.chance(plural / 2) or other.es == one.es:
            return one
        both = "m" if "m" in (one.gender, other.gender) else "f"
        link = "e" if other.es.startswith("i") else "y"
        return Who(f"{one.es} {link} {other.es}", f"{one.en} and {other.en}", 4, both)
    number = int(c.chance(plural))
    if kind < 0.8:
        noun = pick(c, NOUNS["person"])
        det = c.one(OWNERS if noun.es_pl else OWNERS[:2])  # "our husband"
    else:
        noun, det = pick(c, NOUNS["profession"]), c.one(["the", "this", "the"])
    found = phrase(c, noun, det, number=number)
    return Who(found.es, found.en, 4 if found.number else 2, found.gender)


PRONOUNS = ("yo", "tú", "él", "nosotros", "ellos"), ("yo", "tú", "ella", "nosotras", "ellas")
PRONOUNS_EN = ("i", "you", "he", "we", "they"), ("i", "you", "she", "we", "they")


def pronoun(c: Chooser, person: int, gender: str = "", *, drop: float = 0.8) -> Who:
    """Return a pronoun subject, in Spanish mostly left out; never that of the third singular."""
    gender = gender or c.one("mf")
    place = int(gender == "f")
    es = PRONOUNS[place][person] if person == 2 or not c.chance(drop) else ""
    return Who(es, PRONOUNS_EN[place][person], person, gender)


def subject(c: Chooser) -> Who:
    """Return any subject."""
    kind = c.random()
    if kind < 0.6:
        return pronoun(c, (0, 0, 0, 0, 0, 1, 1, 1, 3, 4, 4, 2)[int(kind * 20)])
    return somebody(c)


def clock(c: Chooser) -> Words:
    """Return a time of day: ``las dos y media``, ``half past two``."""
    hour = 1 + int(c.random() * 12)
    es = ("la " if hour == 1 else "las ") + (number_es(hour, "f"))
    en = number_en(hour)
    kind = c.one(["", "", "half", "quarter", "to", "minutes"])
    if kind == "half":
        es, en = f"{es} y media", f"half past {en}"
    elif kind == "quarter":
        es, en = f"{es} y cuarto", f"quarter past {en}"
    elif kind == "to":
        es, en = f"{es} menos cuarto", f"quarter to {en}"
    elif kind == "minutes":
        minutes = c.one([5, 10, 20, 25])
        es, en = f"{es} y {number_es(minutes)}", f"{number_en(minutes)} past {en}"
    return es, en


def date(c: Chooser) -> Words:
    """Return a day of the year: ``el tres de mayo``, ``may third``."""
    day, (month, month_en) = 2 + int(c.random() * 29), c.one(NAMES["month"])
    if month == "febrero":
        day = min(day, 28)
    if day % 10 == 1:
        day += 1  # "veintiuno" stands before no noun
    return f"el {number_es(day)} de {month}", f"{month_en} {ordinal_en(day)}"


def when(c: Chooser, tense: str, *, sure: bool = False) -> Words:
    """Return a time that goes with a tense; ``sure``: one that tells past from present."""
    day, day_en = c.one(NAMES["day"])
    month, month_en = c.one(NAMES["month"])
    n = 2 + int(c.random() * 11)
    unit = c.one([("días", "days"), ("semanas", "weeks"), ("meses", "months"), ("años", "years")])
    season, season_en = c.one(NAMES["season"])
    (hour, hour_en), (dated, dated_en) = clock(c), date(c)
    in_month, at = (f"en {month}", f"in {month_en}"), (f"a {hour}", f"at {hour_en}")
    on_date = (dated, f"on {dated_en}")
    if tense == "preterite":
        choices = [
            ("ayer", "yesterday"), ("anoche", "last night"), ("la semana pasada", "last week"),
            ("el mes pasado", "last month"), ("el año pasado", "last year"),
            (f"el {day} pasado", f"last {day_en}"),
            (f"hace {number_es(n)} {unit[0]}", f"{number_en(n)} {unit[1]} ago"),
        ]  # fmt: skip
        return c.one(choices if sure else [*choices, in_month, on_date])
    if tense in ("future", "going"):
        return c.one([
            ("mañana", "tomorrow"), ("esta noche", "tonight"), ("pronto", "soon"),
            ("la semana que viene", "next week"), ("el año que viene", "next year"),
            (f"el {day} que viene", f"next {day_en}"), in_month, on_date,
            (f"dentro de {number_es(n)} {unit[0]}", f"in {number_en(n)} {unit[1]}"),
        ])  # fmt: skip
    if tense == "perfect":
        return c.one([("hoy", "today"), ("esta semana", "this week"), ("este año", "this year")])
    if tense == "progressive":
        return c.one([("ahora", "now"), ("en este momento", "right now")])
    if tense == "was":
        return c.one([("ayer", "yesterday"), ("anoche", "last night"), at])
    many = day if day.endswith("s") else day + "s"
    return c.one([
        ("todos los días", "every day"), (f"los {many}", f"on {day_en}s"), at,
        ("por la mañana", "in the morning"), ("por la noche", "at night"),
        (f"cada {season}", f"every {season_en}"), ("cada semana", "every week"),
    ])  # fmt: skip
