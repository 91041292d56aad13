"""The mini corpus's Spanish -> English grammar: everyday sentences and their translations.

Written for this project. A sentence is short, lower-case, without punctuation, and has exactly
one translation: a dropped subject is never ``he``, ``she`` or ``it``, object clitics only stand
for things, nothing translates ``su``, and no two words differ in spelling alone. Translating
still takes more than replacing words: adjectives move, subjects appear, ``no`` becomes
``do not``, ``gustar`` and ``doler`` turn around, clitics move behind the verb.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")
MAX_WORDS = 8
POWER = 0.5
CANDIDATES = 40  # sentences drawn for each one kept: the more, the more even the word counts


class GrammarError(ValueError):
    """The grammar cannot give what was asked of it."""


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
WORK = ("trabajo trabajas trabaja trabajamos trabajan".split(), "work", "works")
RISE = ("levanto levantas levanta levantamos levantan".split(), "get up", "gets up")
GO = "voy vas va vamos van".split()
HAVE = "tengo tienes tiene tenemos tienen".split()
WANT = "quiero quieres quiere queremos quieren".split()
CAN = "puedo puedes puede podemos pueden".split()
BE_STATE = "estoy estás está estamos están".split()
BE_EN = "am are is are are".split()
CLITIC = "me te le nos les".split()
REFLEXIVE = "me te se nos se".split()
OBJECT_EN = "me you her us them".split()
OWNER_EN = "my your her our their".split()
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
COMPARED = {"grande": "bigger", "viej*": "older", "car*": "more expensive", "bonit*": "prettier"}
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
    """Return the adjective's form that agrees with a gender and a number (1: plural)."""
    if adjective.endswith("*"):
        return adjective[:-1] + {"m": "o", "f": "a"}[gender] + "s" * number
    return adjective.split()[number]


def article(gender: str, number: int) -> str:
    """Return the definite article."""
    return {"m": ("el", "los"), "f": ("la", "las")}[gender][number]


def with_article(english: str) -> str:
    """Put ``a`` or ``an`` in front."""
    return ("an " if english[0] in "aeiou" else "a ") + english


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


def thing(c: Chooser, noun: Noun) -> Phrase:
    """Return an object phrase with any determiner and sometimes an adjective."""
    if not noun.es_pl:
        return phrase(c, noun, c.one(["", "the"]))
    adjectives = FOOD_LOOKS if noun in FOOD else COLORS + SHAPES
    adjective = c.one(adjectives) if c.chance(0.5) else None
    det, number = c.one(["the", "a", "my", "count"]), int(c.chance(0.5))
    return phrase(c, noun, det, number=number, adjective=adjective)


def action(c: Chooser) -> tuple[Verb, list[Noun]]:
    """Return a verb and the nouns that it can have as its object."""
    goods = CLOTHES + THINGS
    return c.one([
        (BUY, FOOD + MEALS + DRINKS + goods), (SELL, FOOD + MEALS + goods),
        (EAT, FOOD + MEALS), (DRINK, DRINKS), (OPEN, CLOSED), (SEEK, goods + ANIMALS),
    ])  # fmt: skip


def join(*words: str) -> str:
    """Join the words that are not empty."""
    return " ".join(word for word in words if word)


def english_verb(who: Subject, base: str, third: str, negated: bool) -> str:
    """Return the English present, with ``do not`` or ``does not`` if negated."""
    if negated:
        return f"{'does' if who.person == 2 else 'do'} not {base}"
    return third if who.person == 2 else base


def transitive(c: Chooser) -> Pair:
    """``no compro pan`` -> ``i do not buy bread``."""
    who, negated = subject(c), c.chance(0.35)
    verb, nouns = action(c)
    what = thing(c, c.one(nouns))
    if c.chance(0.25):
        often = c.one([("siempre", "always"), ("nunca", "never")])
        english = english_verb(who, verb.en, verb.en_s, False)
        return Pair(
            join(who.es, often[0], verb.forms[who.person], what.es),
            join(who.en, often[1], english, what.en),
        )
    return Pair(
        join(who.es, "no" if negated else "", verb.forms[who.person], what.es),
        join(who.en, english_verb(who, verb.en, verb.en_s, negated), what.en),
    )


def object_clitic(c: Chooser) -> Pair:
    """``mi madre la abre`` -> ``my mother opens it``; ``lo quiero vender``."""
    who, negated = subject(c), c.chance(0.35)
    verb, _ = action(c)
    plural = int(c.chance(0.5))
    clitic, it = c.one([("lo", "los"), ("la", "las")])[plural], ("it", "them")[plural]
    no = "no" if negated else ""
    if c.chance(0.5):
        es, en = verb.forms[who.person], english_verb(who, verb.en, verb.en_s, negated)
    else:
        es, en = f"{WANT[who.person]} {verb.infinitive}", f"to {verb.en}"
        en = join(english_verb(who, "want", "wants", negated), en)
    return Pair(join(who.es, no, clitic, es), join(who.en, en, it))


def modal(c: Chooser) -> Pair:
    """``tengo que abrir la puerta`` -> ``i have to open the door``."""
    who, kind = subject(c), c.one(["want", "can", "must", "will", "past"])
    if c.chance(0.25):
        verb, whom = VISIT, person_phrase(c, int(c.chance(0.4)))
        what = whom._replace(es=f"a {whom.es}")
    else:
        verb, nouns = action(c)
        what = thing(c, c.one(nouns))
    if kind == "past":
        while who.person not in (0, 2):
            who = subject(c)
        return Pair(
            join("ayer", who.es, verb.past[who.person // 2], what.es),
            join("yesterday", who.en, verb.en_past, what.en),
        )
    negated = kind != "will" and c.chance(0.3)
    if kind == "will":
        when = c.one([*ADVERBS, ("", "")])
        es, en = f"{GO[who.person]} a", f"{BE_EN[who.person]} going to"
    else:
        when, es = ("", ""), {"want": WANT, "can": CAN, "must": HAVE}[kind][who.person]
        if kind == "must":
            es, en = f"{es} que", english_verb(who, "have to", "has to", negated)
        elif kind == "can":
            en = "cannot" if negated else "can"
        else:
            en = english_verb(who, "want to", "wants to", negated)
    return Pair(
        join(when[0], who.es, "no" if negated else "", es, verb.infinitive, what.es),
        join(when[1], who.en, en, verb.en, what.en),
    )


def personal(c: Chooser) -> Pair:
    """``visito a mi abuela`` -> ``i visit my grandmother``."""
    who, whom, verb = subject(c), person_phrase(c, int(c.chance(0.4))), c.one([VISIT, SEEK])
    negated = c.chance(0.3)
    return Pair(
        join(who.es, "no" if negated else "", verb.forms[who.person], "a", whom.es),
        join(who.en, english_verb(who, verb.en, verb.en_s, negated), whom.en),
    )


def liking(c: Chooser) -> Pair:
    """``no me gustan las flores`` -> ``i do not like flowers``."""
    noun = c.one(FOOD + MEALS + DRINKS + CLOTHES + ANIMALS)
    what = phrase(c, noun, "the", number=1)
    negated, es = c.chance(0.4), "gustan" if noun.es_pl else "gusta"
    en_what = noun.en_pl or noun.en
    no = "no" if negated else ""
    if c.chance(0.4):
        who = subject(c, third=True)
        start = join("a", who.es, no, CLITIC[who.person])
    else:
        person = c.one([0, 1, 3, 4])
        who = Subject("", ("i", "you", "", "we", "they")[person], person)
        start = join(no, CLITIC[person])
    return Pair(
        join(start, es, what.es), join(who.en, english_verb(who, "like", "likes", negated), en_what)
    )


def hurting(c: Chooser) -> Pair:
    """``me duelen los pies`` -> ``my feet hurt``."""
    es, en, number = c.one(PAINS)
    person = c.one([0, 1]) if not number else c.one([0, 1, 3, 4])
    negated, when = c.chance(0.35), c.one([("", ""), ("", ""), *ADVERBS[:2]])
    who = Subject("", f"{OWNER_EN[person]} {en}", 4 if number else 2)
    return Pair(
        join(when[0], "no" if negated else "", CLITIC[person], "duele" + "n" * number, es),
        join(when[1], who.en, english_verb(who, "hurt", "hurts", negated)),
    )


def property_of(c: Chooser) -> Pair:
    """``la casa no es grande`` -> ``the house is not big``; comparisons."""
    noun = c.one([*CLOTHES, *THINGS, *CLOSED, HOUSE, TABLE, *ANIMALS])
    what = phrase(c, noun, c.one(["the", "my"]), number=int(c.chance(0.5)))
    es, en = ("es", "is") if not what.number else ("son", "are")
    if c.chance(0.35):
        adjective = c.one(list(COMPARED))
        forms = "grande grandes" if adjective == "grande" else adjective
        other = phrase(c, c.one(THINGS), "my")
        return Pair(
            join(what.es, es, "más", inflect(forms, what.gender, what.number), "que", other.es),
            join(what.en, en, COMPARED[adjective], "than", other.en),
        )
    stem, meaning = c.one(COLORS + SHAPES + (PRICES * 2 if noun not in ANIMALS else []))
    negated, very = c.chance(0.3), c.chance(0.35)
    return Pair(
        join(what.es, "no" if negated else "", es, "muy" if very else "",
             inflect(stem, what.gender, what.number)),
        join(what.en, en, "not" if negated else "", "very" if very else "", meaning),
    )  # fmt: skip


def mood(c: Chooser) -> Pair:
    """``mis hermanas están cansadas`` -> ``my sisters are tired``; ``tengo sed``."""
    negated, very = c.chance(0.3), c.chance(0.3)
    no, no_en = ("no", "not") if negated else ("", "")
    if c.chance(0.3):
        who, (feeling, meaning) = subject(c), c.one(FEELINGS)
        return Pair(
            join(who.es, no, HAVE[who.person], feeling),
            join(who.en, BE_EN[who.person], no_en, meaning),
        )
    number = int(c.chance(0.5))
    noun = c.one([n for n in PEOPLE + ANIMALS if n.es_pl or not number])
    who_np = phrase(c, noun, "my", number=number)
    (stem, meaning), person = c.one(MOODS), 4 if number else 2
    es = inflect(stem, who_np.gender, number)
    return Pair(
        join(who_np.es, no, BE_STATE[person], "muy" if very else "", es),
        join(who_np.en, BE_EN[person], no_en, "very" if very else "", meaning),
    )


def place(c: Chooser) -> tuple[str, str]:
    """Return ``en la mesa``, ``cerca del hotel``, ..."""
    noun = c.one([*PLACES, TABLE, HOUSE, *CLOSED[:2]])
    there = phrase(c, noun, "the")
    prepositions = [("cerca de", "near"), ("detrás de", "behind")]
    if noun in PLACES or noun is HOUSE:
        prepositions.append(("en", "in"))
    elif noun is TABLE:
        prepositions = [("en", "on"), ("debajo de", "under")]
    es, en = c.one(prepositions)
    return contract(f"{es} {there.es}"), f"{en} {there.en}"


def location(c: Chooser) -> Pair:
    """``el gato está debajo de la mesa``; ``hay dos sillas en el jardín``; questions."""
    noun, (es, en) = c.one(CLOTHES + THINGS + ANIMALS + CLOSED[2:]), place(c)
    number, kind = int(c.chance(0.5)), c.one(["is", "there", "where"])
    if kind == "there":
        what = phrase(c, noun, "count" if number else "a")
        return Pair(join("hay", what.es, es), join("there", ("is", "are")[number], what.en, en))
    if kind == "where":
        if c.chance(0.5):
            noun, number = c.one(PLACES), 0
        what = phrase(c, noun, c.one(["the", "my"]), number=number)
        verb = (BE_STATE[2], BE_STATE[4])[number]
        return Pair(join("dónde", verb, what.es), join("where", ("is", "are")[number], what.en))
    what, no = phrase(c, noun, c.one(["the", "my"]), number=number), c.chance(0.2)
    return Pair(
        join(what.es, "no" if no else "", (BE_STATE[2], BE_STATE[4])[number], es),
        join(what.en, ("is", "are")[number], "not" if no else "", en),
    )


def doing(c: Chooser) -> Pair:
    """``trabajamos en la escuela``; ``voy al mercado con mi madre``."""
    who, where, negated = subject(c), phrase(c, c.one(PLACES), "the"), c.chance(0.25)
    no, (forms, base, third) = "no" if negated else "", c.one([WORK, (GO, "go", "goes")])
    es, en = ("a", "to") if base == "go" else c.one([("en", "in"), ("cerca de", "near")])
    mate = person_phrase(c) if not who.es and c.chance(0.35) else None
    tail = ("con " + mate.es, "with " + mate.en) if mate else ("", "")
    return Pair(
        join(who.es, no, forms[who.person], contract(f"{es} {where.es}"), tail[0]),
        join(who.en, english_verb(who, base, third, negated), en, where.en, tail[1]),
    )


def clock(c: Chooser) -> Pair:
    """``el tren llega a las dos y media`` -> ``the train arrives at half past two``."""
    (es, en), half = c.one(NUMBERS), c.chance(0.4)
    es, en = join("las", es, "y media" if half else ""), join("half past" if half else "", en)
    kind = c.one(["now", "train", "rise", "rise"])
    if kind == "now":
        hour = en if half else f"{en} oclock"
        when = c.one([("", ""), ADVERBS[1]])
        return Pair(join(when[0], "son", es), join(when[1], "it is", hour))
    if kind == "train":
        noun = c.one([("el tren", "the train", 0), ("los trenes", "the trains", 1)])
        move = c.one([("llega", "arrive"), ("sale", "leave")])
        return Pair(
            join(noun[0], move[0] + "n" * noun[2], "a", es),
            join(noun[1], move[1] + "s" * (1 - noun[2]), "at", en),
        )
    who, negated = subject(c), c.chance(0.25)
    start = join(who.es, "no" if negated else "", REFLEXIVE[who.person], RISE[0][who.person])
    english = join(who.en, english_verb(who, RISE[1], RISE[2], negated))
    return Pair(join(start, "a", es), join(english, "at", en))


def question(c: Chooser) -> Pair:
    """``cuántos libros tienes`` -> ``how many books do you have``; prices, who, what, why."""
    kind = c.one(["many", "much", "who", "what", "why"])
    person = c.one([1, 3, 4])
    who = ("", "you", "", "we", "they")[person]
    verb, nouns = action(c)
    if kind == "many":
        noun = c.one(FOOD + CLOTHES + THINGS)
        forms, base = c.one([(HAVE, "have"), (WANT, "want"), (verb.forms, verb.en)])
        if base in ("eat", "drink", "open", "look for"):
            forms, base = BUY.forms, BUY.en
        es = join("cuántos" if noun.gender == "m" else "cuántas", noun.es_pl, forms[person])
        return Pair(es, join("how many", noun.en_pl, "do", who, base))
    if kind == "much":
        what = phrase(c, c.one(FOOD + CLOTHES + THINGS), "the", number=int(c.chance(0.5)))
        es = join("cuánto", "cuestan" if what.number else "cuesta", what.es)
        return Pair(es, join("how much", "do" if what.number else "does", what.en, "cost"))
    what = thing(c, c.one(nouns))
    if kind == "who":
        forms, third = c.one([(HAVE, "has"), (WANT, "wants"), (verb.forms, verb.en_s)])
        return Pair(join("quién", forms[2], what.es), join("who", third, what.en))
    if kind == "what":
        want, en = c.one([(WANT, "want to"), (HAVE, "have to")])
        middle = "que" if want is HAVE else ""
        verb = c.one([BUY, SELL, EAT, DRINK, OPEN])
        es = join("qué", want[person], middle, verb.infinitive)
        return Pair(es, join("what do", who, en, verb.en))
    negated = c.chance(0.3)
    es = join("por qué", "no" if negated else "", verb.forms[person], what.es)
    return Pair(es, join("why do", who, "not" if negated else "", verb.en, what.en))


def giving(c: Chooser) -> Pair:
    """``mi abuela nos compra un libro`` -> ``my grandmother buys us a book``."""
    who, verb = subject(c), c.one([BUY, SELL])
    receiver = c.one([p for p in (0, 1, 3) if p != who.person and {p, who.person} != {0, 3}])
    what = thing(c, c.one(FOOD + CLOTHES + THINGS))
    return Pair(
        join(who.es, CLITIC[receiver], verb.forms[who.person], what.es),
        join(who.en, english_verb(who, verb.en, verb.en_s, False), OBJECT_EN[receiver], what.en),
    )


def owning(c: Chooser) -> Pair:
    """``tengo dos hermanas``; ``ella tiene ocho años`` -> ``she is eight years old``."""
    who, negated = subject(c), c.chance(0.2)
    if c.chance(0.25):
        es, en = c.one(NUMBERS)
        return Pair(
            join(who.es, HAVE[who.person], es, "años"),
            join(who.en, BE_EN[who.person], en, "years old"),
        )
    noun = c.one([*ANIMALS, *THINGS, *CLOTHES, HOUSE, TABLE, PEOPLE[1], PEOPLE[2]])
    adjective = c.one(COLORS + SHAPES) if noun not in PEOPLE and c.chance(0.5) else None
    what = phrase(
        c, noun, c.one(["a", "count"]), number=int(c.chance(0.4)), adjective=adjective
    )
    return Pair(
        join(who.es, "no" if negated else "", HAVE[who.person], what.es),
        join(who.en, english_verb(who, "have", "has", negated), what.en),
    )


def material(c: Chooser) -> Pair:
    """``quiero zumo de naranja`` -> ``i want orange juice``; ``una mesa de madera``."""
    who, negated = subject(c), c.chance(0.3)
    forms, base, third = c.one([
        (WANT, "want", "wants"), (BUY.forms, "buy", "buys"), (SELL.forms, "sell", "sells"),
    ])  # fmt: skip
    if c.chance(0.4):
        es, en = c.one([
            ("zumo de naranja", "orange juice"), ("zumo de manzana", "apple juice"),
            ("zumo de tomate", "tomato juice"),
        ])  # fmt: skip
    else:
        noun = c.one([TABLE, THINGS[1], *CLOSED[:2], HOUSE])
        what = phrase(c, noun, c.one(["a", "count"]))
        plain = noun.en_pl if what.number else noun.en
        en = what.en[: -len(plain)] + "wooden " + plain
        if not what.number:
            en = with_article("wooden " + plain)
        es = f"{what.es} de madera"
    return Pair(
        join(who.es, "no" if negated else "", forms[who.person], es),
        join(who.en, english_verb(who, base, third, negated), en),
    )


TEMPLATES: tuple[Callable[[Chooser], Pair], ...] = (
    *(transitive, transitive, object_clitic, modal, modal, modal, personal, liking, hurting),
    *(property_of, property_of, mood, mood, mood, location, location, doing, doing, clock, clock, question),
    *(question, giving, owning, material),
)


def sentence(c: Chooser) -> Pair:
    """Draw one sentence of at most `MAX_WORDS` words, with its translation."""
    while True:
        pair = c.one(TEMPLATES)(c)
        if 3 <= len(pair.es.split()) <= MAX_WORDS:
            return pair


def pair_words(pair: Pair) -> list[str]:
    """Return the words of both sides, marked by language: ``es:casa``, ``en:house``."""
    return [f"es:{word}" for word in pair.es.split()] + [f"en:{word}" for word in pair.en.split()]


def _draw(c: Chooser, size: int, taken: dict[str, str], known: set[str] | None) -> list[Pair]:
    """Draw ``size`` new sentences whose words are spread evenly.

    Args:
        c: The source of chance.
        size: Number of sentences.
        taken: ``{English: split}`` of earlier splits; neither it nor its Spanish is drawn again.
        known: Words that may be used; None: all.
    """
    chosen: list[Pair] = []
    counts: Counter[str] = Counter()
    mine: set[str] = set()
    failures = 0
    while len(chosen) < size:
        best, best_score = None, -1.0
        for _ in range(CANDIDATES):
            pair = sentence(c)
            words = pair.es.split()
            if pair.es in mine or pair.en in taken or (known and not known.issuperset(words)):
                continue
            # both languages' rare words count: "bigger" is as needed as "caras"
            drawn = pair_words(pair)
            score = sum((1 + counts[word]) ** -8.0 for word in drawn) / len(drawn) ** POWER
            if score > best_score:
                best, best_score = pair, score
        if best is None:
            failures += 1
            if failures > 200:
                raise GrammarError(
                    f"only {len(chosen)} of {size} sentences found; the sizes asked for do not "
                    "fit the grammar (too many sentences, or a training set too small to hold "
                    "the words of the others)"
                )
            continue
        chosen.append(best)
        mine.add(best.es)
        counts.update(pair_words(best))
    return chosen


def make_splits(sizes: dict[str, int], seed: int) -> dict[str, list[Pair]]:
    """Draw the splits: the first is the training set.

    No Spanish and no English sentence of one split occurs in another, and the words of later
    splits all occur in the first.

    Args:
        sizes: ``{split: number of sentences}``, training set first.
        seed: Same seed and sizes, same sentences.

    Raises:
        GrammarError: The grammar has no more new sentences.
    """
    splits: dict[str, list[Pair]] = {}
    taken: dict[str, str] = {}
    known: set[str] | None = None
    for number, (name, size) in enumerate(sizes.items()):
        splits[name] = _draw(Chooser(seed * 1000 + number), size, taken, known)
        taken.update((pair.en, name) for pair in splits[name])
        if known is None:
            known = {word for pair in splits[name] for word in pair.es.split()}
    return splits
