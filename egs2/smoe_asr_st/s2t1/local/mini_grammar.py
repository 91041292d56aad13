"""The mini corpus's Spanish -> English grammar: everyday sentences and their translations.

Written for this project. A sentence is short, lower-case, without punctuation, and has exactly
one translation: a dropped subject is never ``he``, ``she`` or ``it``, object clitics only stand
for things, nothing translates ``su``. Translating still takes more than replacing words:
adjectives move, subjects appear, ``no`` becomes ``do not``, ``gustar`` and ``doler`` turn
around, clitics move behind the verb.
"""

from __future__ import annotations

from collections.abc import Callable

import mini_words as w
from mini_words import Chooser, Noun, Pair, Phrase, Subject, Verb, contract, inflect, phrase

MAX_WORDS = 8


def thing(c: Chooser, noun: Noun) -> Phrase:
    """Return an object phrase with any determiner and sometimes an adjective."""
    if not noun.es_pl:
        return phrase(c, noun, c.one(["", "the"]))
    adjectives = w.FOOD_LOOKS if noun in w.FOOD else w.COLORS + w.SHAPES
    adjective = c.one(adjectives) if c.chance(0.5) else None
    det, number = c.one(["the", "a", "my", "count"]), int(c.chance(0.5))
    return phrase(c, noun, det, number=number, adjective=adjective)


def action(c: Chooser) -> tuple[Verb, list[Noun]]:
    """Return a verb and the nouns that it can have as its object."""
    goods = w.CLOTHES + w.THINGS
    return c.one([
        (w.BUY, w.FOOD + w.MEALS + w.DRINKS + goods), (w.SELL, w.FOOD + w.MEALS + goods),
        (w.EAT, w.FOOD + w.MEALS), (w.DRINK, w.DRINKS), (w.OPEN, w.CLOSED),
        (w.SEEK, goods + w.ANIMALS),
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
    who, negated = w.subject(c), c.chance(0.35)
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
    who, negated = w.subject(c), c.chance(0.35)
    verb, _ = action(c)
    plural = int(c.chance(0.5))
    clitic, it = c.one([("lo", "los"), ("la", "las")])[plural], ("it", "them")[plural]
    no = "no" if negated else ""
    if c.chance(0.5):
        es, en = verb.forms[who.person], english_verb(who, verb.en, verb.en_s, negated)
    else:
        es, en = f"{w.WANT[who.person]} {verb.infinitive}", f"to {verb.en}"
        en = join(english_verb(who, "want", "wants", negated), en)
    return Pair(join(who.es, no, clitic, es), join(who.en, en, it))


def modal(c: Chooser) -> Pair:
    """``tengo que abrir la puerta`` -> ``i have to open the door``."""
    who, kind = w.subject(c), c.one(["want", "can", "must", "will", "past"])
    if c.chance(0.25):
        verb, whom = w.VISIT, w.person_phrase(c, int(c.chance(0.4)))
        what = whom._replace(es=f"a {whom.es}")
    else:
        verb, nouns = action(c)
        what = thing(c, c.one(nouns))
    if kind == "past":
        while who.person not in (0, 2):
            who = w.subject(c)
        return Pair(
            join("ayer", who.es, verb.past[who.person // 2], what.es),
            join("yesterday", who.en, verb.en_past, what.en),
        )
    negated = kind != "will" and c.chance(0.3)
    if kind == "will":
        when = c.one([*w.ADVERBS, ("", "")])
        es, en = f"{w.GO[who.person]} a", f"{w.BE_EN[who.person]} going to"
    else:
        when, es = ("", ""), {"want": w.WANT, "can": w.CAN, "must": w.HAVE}[kind][who.person]
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
    who, whom, verb = w.subject(c), w.person_phrase(c, int(c.chance(0.4))), c.one([w.VISIT, w.SEEK])
    negated = c.chance(0.3)
    return Pair(
        join(who.es, "no" if negated else "", verb.forms[who.person], "a", whom.es),
        join(who.en, english_verb(who, verb.en, verb.en_s, negated), whom.en),
    )


def liking(c: Chooser) -> Pair:
    """``no me gustan las flores`` -> ``i do not like flowers``."""
    noun = c.one(w.FOOD + w.MEALS + w.DRINKS + w.CLOTHES + w.ANIMALS)
    what = phrase(c, noun, "the", number=1)
    negated, es = c.chance(0.4), "gustan" if noun.es_pl else "gusta"
    en_what = noun.en_pl or noun.en
    no = "no" if negated else ""
    if c.chance(0.4):
        who = w.subject(c, third=True)
        start = join("a", who.es, no, w.CLITIC[who.person])
    else:
        person = c.one([0, 1, 3, 4])
        who = Subject("", ("i", "you", "", "we", "they")[person], person)
        start = join(no, w.CLITIC[person])
    return Pair(
        join(start, es, what.es), join(who.en, english_verb(who, "like", "likes", negated), en_what)
    )


def hurting(c: Chooser) -> Pair:
    """``me duelen los pies`` -> ``my feet hurt``."""
    es, en, number = c.one(w.PAINS)
    person = c.one([0, 1])
    negated, when = c.chance(0.35), c.one([("", ""), ("", ""), *w.ADVERBS[:2]])
    who = Subject("", f"{w.OWNER_EN[person]} {en}", 4 if number else 2)
    return Pair(
        join(when[0], "no" if negated else "", w.CLITIC[person], "duele" + "n" * number, es),
        join(when[1], who.en, english_verb(who, "hurt", "hurts", negated)),
    )


def property_of(c: Chooser) -> Pair:
    """``la casa no es grande`` -> ``the house is not big``; comparisons."""
    noun = c.one([*w.CLOTHES, *w.THINGS, *w.CLOSED, w.HOUSE, w.TABLE, *w.ANIMALS])
    what = phrase(c, noun, c.one(["the", "my"]), number=int(c.chance(0.5)))
    es, en = ("es", "is") if not what.number else ("son", "are")
    if c.chance(0.35):
        adjective = c.one(list(w.COMPARED))
        other = phrase(c, c.one(w.THINGS), "my")
        return Pair(
            join(what.es, es, "más", inflect(adjective, what.gender, what.number), "que", other.es),
            join(what.en, en, w.COMPARED[adjective], "than", other.en),
        )
    stem, meaning = c.one(w.COLORS + w.SHAPES + (w.PRICES * 2 if noun not in w.ANIMALS else []))
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
        who, (feeling, meaning) = w.subject(c), c.one(w.FEELINGS)
        return Pair(
            join(who.es, no, w.HAVE[who.person], feeling),
            join(who.en, w.BE_EN[who.person], no_en, meaning),
        )
    number = int(c.chance(0.5))
    noun = c.one([n for n in w.PEOPLE + w.ANIMALS if n.es_pl or not number])
    who_np = phrase(c, noun, "my", number=number)
    (stem, meaning), person = c.one(w.MOODS), 4 if number else 2
    es = inflect(stem, who_np.gender, number)
    return Pair(
        join(who_np.es, no, w.BE_STATE[person], "muy" if very else "", es),
        join(who_np.en, w.BE_EN[person], no_en, "very" if very else "", meaning),
    )


def place(c: Chooser) -> tuple[str, str]:
    """Return ``en la mesa``, ``cerca del hotel``, ..."""
    noun = c.one([*w.PLACES, w.TABLE, w.HOUSE, *w.CLOSED[:2]])
    there = phrase(c, noun, "the")
    prepositions = [("cerca de", "near"), ("detrás de", "behind")]
    if noun in w.PLACES or noun is w.HOUSE:
        prepositions.append(("en", "in"))
    elif noun is w.TABLE:
        prepositions = [("en", "on"), ("debajo de", "under")]
    es, en = c.one(prepositions)
    return contract(f"{es} {there.es}"), f"{en} {there.en}"


def location(c: Chooser) -> Pair:
    """``el gato está debajo de la mesa``; ``hay dos sillas en el jardín``; questions."""
    noun, (es, en) = c.one(w.CLOTHES + w.THINGS + w.ANIMALS + w.CLOSED[2:]), place(c)
    number, kind = int(c.chance(0.5)), c.one(["is", "there", "where"])
    if kind == "there":
        what = phrase(c, noun, "count" if number else "a")
        return Pair(join("hay", what.es, es), join("there", ("is", "are")[number], what.en, en))
    if kind == "where":
        if c.chance(0.5):
            noun, number = c.one(w.PLACES), 0
        what = phrase(c, noun, c.one(["the", "my"]), number=number)
        verb = (w.BE_STATE[2], w.BE_STATE[4])[number]
        return Pair(join("dónde", verb, what.es), join("where", ("is", "are")[number], what.en))
    what, no = phrase(c, noun, c.one(["the", "my"]), number=number), c.chance(0.2)
    return Pair(
        join(what.es, "no" if no else "", (w.BE_STATE[2], w.BE_STATE[4])[number], es),
        join(what.en, ("is", "are")[number], "not" if no else "", en),
    )


def doing(c: Chooser) -> Pair:
    """``trabajamos en la escuela``; ``voy al mercado con mi madre``."""
    who, where, negated = w.subject(c), phrase(c, c.one(w.PLACES), "the"), c.chance(0.25)
    no, (forms, base, third) = "no" if negated else "", c.one([w.WORK, (w.GO, "go", "goes")])
    es, en = ("a", "to") if base == "go" else c.one([("en", "in"), ("cerca de", "near")])
    mate = w.person_phrase(c) if not who.es and c.chance(0.35) else None
    tail = ("con " + mate.es, "with " + mate.en) if mate else ("", "")
    return Pair(
        join(who.es, no, forms[who.person], contract(f"{es} {where.es}"), tail[0]),
        join(who.en, english_verb(who, base, third, negated), en, where.en, tail[1]),
    )


def clock(c: Chooser) -> Pair:
    """``el tren llega a las dos y media`` -> ``the train arrives at half past two``."""
    (es, en), half = c.one(w.NUMBERS), c.chance(0.4)
    es, en = join("las", es, "y media" if half else ""), join("half past" if half else "", en)
    kind = c.one(["now", "train", "rise", "rise"])
    if kind == "now":
        hour = en if half else f"{en} oclock"
        when = c.one([("", ""), w.ADVERBS[1]])
        return Pair(join(when[0], "son", es), join(when[1], "it is", hour))
    if kind == "train":
        noun = c.one([("el tren", "the train", 0), ("los trenes", "the trains", 1)])
        move = c.one([("llega", "arrive"), ("sale", "leave")])
        return Pair(
            join(noun[0], move[0] + "n" * noun[2], "a", es),
            join(noun[1], move[1] + "s" * (1 - noun[2]), "at", en),
        )
    who, negated = w.subject(c), c.chance(0.25)
    start = join(who.es, "no" if negated else "", w.REFLEXIVE[who.person], w.RISE[0][who.person])
    english = join(who.en, english_verb(who, w.RISE[1], w.RISE[2], negated))
    return Pair(join(start, "a", es), join(english, "at", en))


def question(c: Chooser) -> Pair:
    """``cuántos libros tienes`` -> ``how many books do you have``; prices, who, what, why."""
    kind = c.one(["many", "much", "who", "what", "why"])
    person = c.one([1, 3, 4])
    who = ("", "you", "", "we", "they")[person]
    verb, nouns = action(c)
    if kind == "many":
        noun = c.one(w.FOOD + w.CLOTHES + w.THINGS)
        forms, base = c.one([(w.HAVE, "have"), (w.WANT, "want"), (verb.forms, verb.en)])
        if base in ("eat", "drink", "open", "look for"):
            forms, base = w.BUY.forms, w.BUY.en
        es = join("cuántos" if noun.gender == "m" else "cuántas", noun.es_pl, forms[person])
        return Pair(es, join("how many", noun.en_pl, "do", who, base))
    if kind == "much":
        what = phrase(c, c.one(w.FOOD + w.CLOTHES + w.THINGS), "the", number=int(c.chance(0.5)))
        es = join("cuánto", "cuestan" if what.number else "cuesta", what.es)
        return Pair(es, join("how much", "do" if what.number else "does", what.en, "cost"))
    what = thing(c, c.one(nouns))
    if kind == "who":
        forms, third = c.one([(w.HAVE, "has"), (w.WANT, "wants"), (verb.forms, verb.en_s)])
        return Pair(join("quién", forms[2], what.es), join("who", third, what.en))
    if kind == "what":
        want, en = c.one([(w.WANT, "want to"), (w.HAVE, "have to")])
        middle = "que" if want is w.HAVE else ""
        verb = c.one([w.BUY, w.SELL, w.EAT, w.DRINK, w.OPEN])
        es = join("qué", want[person], middle, verb.infinitive)
        return Pair(es, join("what do", who, en, verb.en))
    negated = c.chance(0.3)
    es = join("por qué", "no" if negated else "", verb.forms[person], what.es)
    return Pair(es, join("why do", who, "not" if negated else "", verb.en, what.en))


def giving(c: Chooser) -> Pair:
    """``mi abuela nos compra un libro`` -> ``my grandmother buys us a book``."""
    who, verb = w.subject(c), c.one([w.BUY, w.SELL])
    receiver = c.one([p for p in (0, 1, 3) if p != who.person and {p, who.person} != {0, 3}])
    what = thing(c, c.one(w.FOOD + w.CLOTHES + w.THINGS))
    return Pair(
        join(who.es, w.CLITIC[receiver], verb.forms[who.person], what.es),
        join(who.en, english_verb(who, verb.en, verb.en_s, False), w.OBJECT_EN[receiver], what.en),
    )


def owning(c: Chooser) -> Pair:
    """``tengo dos hermanas``; ``ella tiene ocho años`` -> ``she is eight years old``."""
    who, negated = w.subject(c), c.chance(0.2)
    if c.chance(0.25):
        es, en = c.one(w.NUMBERS)
        return Pair(
            join(who.es, w.HAVE[who.person], es, "años"),
            join(who.en, w.BE_EN[who.person], en, "years old"),
        )
    noun = c.one([*w.ANIMALS, *w.THINGS, *w.CLOTHES, w.HOUSE, w.TABLE, w.PEOPLE[1], w.PEOPLE[2]])
    adjective = c.one(w.COLORS + w.SHAPES) if noun not in w.PEOPLE and c.chance(0.5) else None
    what = phrase(c, noun, c.one(["a", "count"]), number=int(c.chance(0.4)), adjective=adjective)
    return Pair(
        join(who.es, "no" if negated else "", w.HAVE[who.person], what.es),
        join(who.en, english_verb(who, "have", "has", negated), what.en),
    )


def material(c: Chooser) -> Pair:
    """``quiero zumo de naranja`` -> ``i want orange juice``; ``una mesa de madera``."""
    who, negated = w.subject(c), c.chance(0.3)
    forms, base, third = c.one([
        (w.WANT, "want", "wants"), (w.BUY.forms, "buy", "buys"), (w.SELL.forms, "sell", "sells"),
    ])  # fmt: skip
    if c.chance(0.4):
        es, en = c.one([
            ("zumo de naranja", "orange juice"), ("zumo de manzana", "apple juice"),
            ("zumo de tomate", "tomato juice"),
        ])  # fmt: skip
    else:
        noun = c.one([w.TABLE, w.THINGS[1], *w.CLOSED[:2], w.HOUSE])
        what = phrase(c, noun, c.one(["a", "count"]), adjective=("de madera", "wooden"))
        es, en = what.es, what.en
    return Pair(
        join(who.es, "no" if negated else "", forms[who.person], es),
        join(who.en, english_verb(who, base, third, negated), en),
    )


# how often a template stands here is how often it is drawn
TEMPLATES: tuple[Callable[[Chooser], Pair], ...] = (
    *(transitive, transitive, object_clitic, modal, modal, modal, personal, liking, hurting),
    *(property_of, property_of, mood, mood, mood, location, location, doing, doing),
    *(clock, clock, question, question, giving, owning, material),
)


def sentence(c: Chooser) -> Pair:
    """Draw one sentence of at most `MAX_WORDS` words, with its translation."""
    while True:
        pair = c.one(TEMPLATES)(c)
        if 3 <= len(pair.es.split()) <= MAX_WORDS:
            return pair
