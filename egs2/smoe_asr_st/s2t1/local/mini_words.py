"""The mini corpus's words: lexicon, agreement and noun phrases.

Written for this project, everyday domain. No two words differ in spelling alone (but ``que`` and
``qué``, which their places tell apart), and words that differ in one weak sound are left out
(``nuevo`` beside ``nueve``), except for endings, which agree with other words of the sentence.
`mini_grammar` makes sentences of them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Pair(NamedTuple):
    """A Spanish sentence and its English translation."""

    es: str
    en: str


class Noun(NamedTuple):
    """A noun; an empty plural marks a mass noun (``pan``)."""

    es: str
    es_pl: str
    gender: str  # "m" or "f"
    en: str
    en_pl: str


class Phrase(NamedTuple):
    """A noun phrase. ``number`` is 0 for singular, 1 for plural."""

    es: str
    en: str
    gender: str
    number: int


class Subject(NamedTuple):
    """A subject: its words (Spanish may be empty) and ``person``, a column of the verb tables."""

    es: str
    en: str
    person: int  # 0 yo, 1 tú, 2 ella, 3 nosotros, 4 ellos


class Verb(NamedTuple):
    """A verb: five present forms, the infinitive, past of ``yo`` and ``ella``; English forms."""

    forms: tuple[str, ...]
    infinitive: str
    past: tuple[str, str]
    en: str
    en_s: str
    en_past: str


def _nouns(table: str) -> list[Noun]:
    nouns = []
    for line in table.strip().splitlines():
        fields = [field.strip().replace("-", "") for field in line.split(",")]
        nouns.append(Noun(*fields))
    return nouns


# singular, plural, gender, English singular, plural ("-": none)
FOOD = _nouns("""manzana, manzanas, f, apple, apples
    naranja, naranjas, f, orange, oranges
    tomate, tomates, m, tomato, tomatoes
    huevo, huevos, m, egg, eggs""")
MEALS = _nouns("""pan, -, m, bread, -
    queso, -, m, cheese, -
    arroz, -, m, rice, -
    pescado, -, m, fish, -
    carne, -, f, meat, -""")
DRINKS = _nouns("""leche, -, f, milk, -
    café, -, m, coffee, -
    cerveza, -, f, beer, -
    zumo, -, m, juice, -""")
CLOTHES = _nouns("""camisa, camisas, f, shirt, shirts
    zapato, zapatos, m, shoe, shoes
    sombrero, sombreros, m, hat, hats""")
THINGS = _nouns("""libro, libros, m, book, books
    silla, sillas, f, chair, chairs
    bicicleta, bicicletas, f, bicycle, bicycles
    plato, platos, m, plate, plates
    coche, coches, m, car, cars
    flor, flores, f, flower, flowers""")
CLOSED = _nouns("""puerta, puertas, f, door, doors
    ventana, ventanas, f, window, windows
    maleta, maletas, f, suitcase, suitcases""")
PLACES = _nouns("""mercado, -, m, market, -
    cocina, -, f, kitchen, -
    escuela, -, f, school, -
    jardín, -, m, garden, -
    estación, -, f, station, -
    hotel, -, m, hotel, -
    tienda, -, f, store, -
    biblioteca, -, f, library, -""")
PEOPLE = _nouns("""madre, -, f, mother, -
    hermano, hermanos, m, brother, brothers
    hermana, hermanas, f, sister, sisters
    abuelo, abuelos, m, grandfather, grandparents
    abuela, -, f, grandmother, -
    amigo, amigos, m, friend, friends
    vecina, vecinas, f, neighbor, neighbors
    hijo, hijos, m, son, children""")
ANIMALS = _nouns("""perro, perros, m, dog, dogs
    gato, gatos, m, cat, cats""")
TABLE = Noun("mesa", "mesas", "f", "table", "tables")
HOUSE = Noun("casa", "casas", "f", "house", "houses")


def _verb(forms: str, past: str, english: str) -> Verb:
    words, en = forms.split(), english.split(",")
    yo, ella = past.split()
    return Verb(tuple(words[1:]), words[0], (yo, ella), en[0], en[1], en[2])


BUY = _verb("comprar compro compras compra compramos compran", "compré compró", "buy,buys,bought")
SELL = _verb("vender vendo vendes vende vendemos venden", "vendí vendió", "sell,sells,sold")
EAT = _verb("comer como comes come comemos comen", "comí comió", "eat,eats,ate")
DRINK = _verb("beber bebo bebes bebe bebemos beben", "bebí bebió", "drink,drinks,drank")
OPEN = _verb("abrir abro abres abre abrimos abren", "abrí abrió", "open,opens,opened")
SEEK = _verb(
    "buscar busco buscas busca buscamos buscan", "busqué buscó", "look for,looks for,looked for"
)
VISIT = _verb(
    "visitar visito visitas visita visitamos visitan", "visité visitó", "visit,visits,visited"
)
WORK = (["trabajo", "trabajas", "trabaja", "trabajamos", "trabajan"], "work", "works")
RISE = (["levanto", "levantas", "levanta", "levantamos", "levantan"], "get up", "gets up")
GO = ["voy", "vas", "va", "vamos", "van"]
HAVE = ["tengo", "tienes", "tiene", "tenemos", "tienen"]
WANT = ["quiero", "quieres", "quiere", "queremos", "quieren"]
CAN = ["puedo", "puedes", "puede", "podemos", "pueden"]
BE_STATE = ["estoy", "estás", "está", "estamos", "están"]
BE_EN = ["am", "are", "is", "are", "are"]
CLITIC = ["me", "te", "le", "nos", "les"]
OWNER_EN = ("my", "your")
REFLEXIVE = ["me", "te", "se", "nos", "se"]
OBJECT_EN = ["me", "you", "her", "us", "them"]
NUMBERS = [
    *(("dos", "two"), ("tres", "three"), ("cuatro", "four"), ("cinco", "five"), ("seis", "six")),
    *(("siete", "seven"), ("ocho", "eight"), ("diez", "ten"), ("once", "eleven")),
]
# stem + o/a/os/as, or the singular and plural that serve both genders
COLORS = [("blanc*", "white"), ("roj*", "red"), ("negr*", "black"), ("verde verdes", "green")]
SHAPES = [("pequeñ*", "small"), ("viej*", "old"), ("bonit*", "pretty"), ("grande grandes", "big")]
FOOD_LOOKS = [COLORS[1], COLORS[3], SHAPES[0], SHAPES[3]]
PRICES = [("car*", "expensive")]
MOODS = [("cansad*", "tired"), ("enferm*", "sick")]
COMPARED = {
    "grande grandes": "bigger",
    "viej*": "older",
    "car*": "more expensive",
    "bonit*": "prettier",
}
FEELINGS = [("hambre", "hungry"), ("sed", "thirsty"), ("frío", "cold"), ("sueño", "sleepy")]
PAINS = [("la cabeza", "head", 0), ("el brazo", "arm", 0), ("los pies", "feet", 1)]
ADVERBS = [("hoy", "today"), ("ahora", "now"), ("mañana", "tomorrow")]


class Chooser:
    """Draws from sequences with ``random()`` only, whose numbers no Python release changes."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed).random

    def one(self, items: Sequence[T]) -> T:
        """Return one of the items."""
        return items[int(self.random() * len(items))]

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self.random() < probability


def inflect(adjective: str, gender: str, number: int) -> str:
    """Return the adjective's form that agrees with a gender and a number (1: plural).

    ``blanc*`` takes o, a, os, as; ``verde verdes`` serves both genders; ``de madera`` is fixed.
    """
    if adjective.startswith("de "):
        return adjective
    if adjective.endswith("*"):
        return adjective[:-1] + {"m": "o", "f": "a"}[gender] + "s" * number
    return adjective.split()[number]


def article(gender: str, number: int) -> str:
    """Return the definite article."""
    return {"m": ("el", "los"), "f": ("la", "las")}[gender][number]


def with_article(english: str) -> str:
    """Put ``a`` or ``an`` in front."""
    vowel = re.match("(?!uni|use)[aeiou]|honest|hour", english)
    return ("an " if vowel else "a ") + english


def contract(spanish: str) -> str:
    """Apply the two Spanish contractions, ``al`` and ``del``."""
    return f" {spanish} ".replace(" a el ", " al ").replace(" de el ", " del ").strip()


def phrase(
    c: Chooser, noun: Noun, det: str, *, number: int = 0, adjective: tuple[str, str] | None = None
) -> Phrase:
    """Build a noun phrase; ``det`` is ``the``, ``a``, ``my``, ``count`` or empty."""
    number = number if noun.es_pl else 0
    if det == "count":
        number = 1
    elif det == "a" and number:
        det = ""
    es, en = (noun.es_pl, noun.en_pl) if number else (noun.es, noun.en)
    if adjective:
        es = f"{es} {inflect(adjective[0], noun.gender, number)}"
        en = f"{adjective[1]} {en}"
    if det == "the":
        es, en = f"{article(noun.gender, number)} {es}", f"the {en}"
    elif det == "a":
        es, en = f"{'un' if noun.gender == 'm' else 'una'} {es}", with_article(en)
    elif det == "my":
        owner = c.one([("mi", "my"), ("tu", "your")])
        es, en = f"{owner[0]}{'s' * number} {es}", f"{owner[1]} {en}"
    elif det == "count":
        count = c.one(NUMBERS)
        es, en = f"{count[0]} {es}", f"{count[1]} {en}"
    return Phrase(es, en, noun.gender, number)


def person_phrase(c: Chooser, number: int = 0) -> Phrase:
    """Return ``mi hermana``, ``tus amigos``, ..."""
    people = [noun for noun in PEOPLE if noun.es_pl or not number]
    return phrase(c, c.one(people), "my", number=number)


def subject(c: Chooser, *, third: bool = False) -> Subject:
    """Return a subject; dropped, pronoun or noun phrase (``third``: a noun phrase only)."""
    kind = int(c.random() * 12)
    if third or kind >= 8:
        number = int(c.chance(0.4))
        who = person_phrase(c, number)
        return Subject(who.es, who.en, 4 if number else 2)
    person = (0, 0, 1, 1, 3, 3, 4, 2)[kind]
    pronoun = ("yo", "", "ella", "nosotros", "ellos")[person]
    if person != 2 and not c.chance(0.25):
        pronoun = ""
    return Subject(pronoun, ("i", "you", "she", "we", "they")[person], person)
