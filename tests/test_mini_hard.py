"""The built-in corpus mini_hard: its verbs, its sentences, its splits."""

from __future__ import annotations

import importlib
import re
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from recipe_copy import RECIPE

LOCAL = Path(RECIPE) / "local"
sys.path.append(str(LOCAL))
mini_words: Any = importlib.import_module("mini_words")
words: Any = importlib.import_module("mini_hard_words")
verbs: Any = importlib.import_module("mini_hard_verbs")
numbers: Any = importlib.import_module("mini_hard_numbers")
clauses: Any = importlib.import_module("mini_hard_clauses")
splitting: Any = importlib.import_module("mini_hard_splits")
mini_splits: Any = importlib.import_module("mini_splits")

DEFAULT = {"train": 5000, "valid": 200, "test": 400}


# Sentences of the default test set, checked by reading them.
CHECKED = """\
ya son las diez menos cuarto | it is already quarter to ten | time
el programa empieza a las cinco y cuarto | the program starts at quarter past five | time
los médicos estaban muy cansados | the doctors were very tired | feeling
yo estaré nerviosa | i will be nervous | feeling
el domingo pasado te dolieron las manos | last sunday your hands hurt | pain
los paraguas que cerraba eran blancos | the umbrellas that i used to close were white | description
estas mesas están limpias | these tables are clean | description
luis no limpió una silla cómoda | luis did not clean a comfortable chair | past action
elena le preparó jamón caliente a andrés | elena prepared hot ham for andres | past action
cuánto azúcar tienen | how much sugar do they have | quantity question
cuántas cortinas pintará nuestro jefe | how many curtains will our boss paint | quantity question
a quién llamaste | who did you call | open question
dónde han cenado | where have they had dinner | open question
yo seguí llenando esas cestas rotas | i kept filling those broken baskets | phase
no necesitan llegar a las nueve menos cuarto | they do not need to arrive at quarter to nine | wish
los lunes ellos le traen las recetas a mi tía | on mondays they bring the recipes to my aunt | \
present action
te estabas vistiendo mal | you were getting dressed badly | ongoing action
por favor cierra una puerta | please close a door | command
no pintas tu sofá porque tienes prisa | you do not paint your sofa because you are in a hurry | \
reason
la lámpara no era tan vieja como mi lámpara | the lamp was not as old as my lamp | comparison
pagarán cuatro euros por el cuadro | they will pay four euros for the painting | price
carlos siempre ha visitado a pilar | carlos has always visited pilar | completed action
por qué está regando clara la rosa verde | why is clara watering the green rose | reason question
tenía una vaca grande | i had a big cow | possession
dentro de siete días cristina trabajará en la cocina | in seven days cristina will work in the \
kitchen | plan
tú vas a apagar ese ordenador el jueves que viene | you are going to turn off that computer next \
thursday | plan
sergio se tiene que despertar a las once | sergio has to wake up at eleven | obligation
había tres maletas al lado del salón | there were three suitcases next to the living room | \
existence
a este médico le encantaba este coche | this doctor used to love this car | liking
no te gustaban estas canciones | you did not use to like these songs | liking
la enfermera no me puede enviar otro cepillo | the nurse cannot send me another brush | ability
el año que viene hará frío en parís | next year it will be cold in paris | weather
juan no miraba un perro | juan did not use to look at a dog | past habit
ayer fue el veinte de enero | yesterday was january twentieth | date
está abriendo lucía una caja sucia | is lucia opening a dirty box | yes no question
mi habitación es la número novecientos veintinueve | my room is number nine hundred twenty nine | \
identity
no lo empieces | do not start it | prohibition
la planta estaba lejos de la panadería oscura | the plant was far from the dark bakery | location
"""


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Any]]:
    """The default corpus's sentences."""
    return splitting.make_splits(DEFAULT, 1)


@pytest.fixture(scope="module")
def sample() -> list[Any]:
    """Many sentences."""
    chooser = mini_words.Chooser(5)
    return [splitting.sentence(chooser) for _ in range(15_000)]


def text_of(pairs: list[Any], field: str) -> Counter[str]:
    """How often each word occurs."""
    return Counter(word for pair in pairs for word in getattr(pair, field).split())


@pytest.mark.parametrize(
    ("verb", "change", "tense", "forms"),
    [
        ("comprar", "", "present", "compro compras compra compramos compran"),
        ("comprar", "", "imperfect", "compraba comprabas compraba comprábamos compraban"),
        ("beber", "", "preterite", "bebí bebiste bebió bebimos bebieron"),
        ("vivir", "", "future", "viviré vivirás vivirá viviremos vivirán"),
        ("vivir", "", "imperfect", "vivía vivías vivía vivíamos vivían"),
        ("cerrar", "ie", "present", "cierro cierras cierra cerramos cierran"),
        ("jugar", "ue", "present", "juego juegas juega jugamos juegan"),
        ("jugar", "ue", "preterite", "jugué jugaste jugó jugamos jugaron"),
        ("buscar", "", "preterite", "busqué buscaste buscó buscamos buscaron"),
        ("empezar", "ie", "preterite", "empecé empezaste empezó empezamos empezaron"),
        ("pedir", "i", "present", "pido pides pide pedimos piden"),
        ("pedir", "i", "preterite", "pedí pediste pidió pedimos pidieron"),
        ("elegir", "i", "present", "elijo eliges elige elegimos eligen"),
        ("seguir", "i", "present", "sigo sigues sigue seguimos siguen"),
        ("seguir", "i", "preterite", "seguí seguiste siguió seguimos siguieron"),
        ("dormir", "ue", "preterite", "dormí dormiste durmió dormimos durmieron"),
        ("abrir", "", "preterite", "abrí abriste abrió abrimos abrieron"),
        ("enviar", "í", "present", "envío envías envía enviamos envían"),
        ("conocer", "zc", "present", "conozco conoces conoce conocemos conocen"),
        ("leer", "", "preterite", "leí leíste leyó leímos leyeron"),
        ("construir", "", "present", "construyo construyes construye construimos construyen"),
        ("construir", "", "preterite", "construí construiste construyó construimos construyeron"),
        ("traer", "", "present", "traigo traes trae traemos traen"),
        ("traducir", "zc", "preterite", "traduje tradujiste tradujo tradujimos tradujeron"),
        ("tener", "ie", "present", "tengo tienes tiene tenemos tienen"),
        ("tener", "ie", "preterite", "tuve tuviste tuvo tuvimos tuvieron"),
        ("venir", "ie", "future", "vendré vendrás vendrá vendremos vendrán"),
        ("querer", "ie", "preterite", "quise quisiste quiso quisimos quisieron"),
        ("ir", "", "preterite", "fui fuiste fue fuimos fueron"),
        ("ser", "", "imperfect", "era eras era éramos eran"),
        ("ver", "", "imperfect", "veía veías veía veíamos veían"),
        ("dar", "", "preterite", "di diste dio dimos dieron"),
        ("hacer", "", "future", "haré harás hará haremos harán"),
    ],
)
def test_spanish_verbs_are_conjugated(verb, change, tense, forms):
    assert " ".join(getattr(verbs.conjugate(verb, change), tense)) == forms


@pytest.mark.parametrize(
    ("verb", "change", "forms"),
    [
        ("comprar", "", "comprando comprado compra compres"),
        ("pedir", "i", "pidiendo pedido pide pidas"),
        ("dormir", "ue", "durmiendo dormido duerme duermas"),
        ("leer", "", "leyendo leído lee leas"),
        ("construir", "", "construyendo construido construye construyas"),
        ("traer", "", "trayendo traído trae traigas"),
        ("abrir", "", "abriendo abierto abre abras"),
        ("escribir", "", "escribiendo escrito escribe escribas"),
        ("romper", "", "rompiendo roto rompe rompas"),
        ("apagar", "", "apagando apagado apaga apagues"),
        ("empezar", "ie", "empezando empezado empieza empieces"),
        ("seguir", "i", "siguiendo seguido sigue sigas"),
        ("venir", "ie", "viniendo venido ven vengas"),
        ("salir", "", "saliendo salido sal salgas"),
        ("ir", "", "yendo ido ve vayas"),
        ("ver", "", "viendo visto ve veas"),
    ],
)
def test_gerund_participle_command_and_prohibition(verb, change, forms):
    found = verbs.conjugate(verb, change)
    assert [found.gerund, found.participle, found.command, found.subjunctive] == forms.split()


def test_a_verb_that_no_rule_fits_is_refused():
    with pytest.raises(ValueError, match="'casa' ends neither in -ar, -er nor -ir"):
        verbs.conjugate("casa")
    with pytest.raises(ValueError, match=r"verb 'comprar': change 'xx' \(known: zc, ie, ue, i, í"):
        verbs.conjugate("comprar", "xx")


@pytest.mark.parametrize(
    ("entry", "forms"),
    [
        ("open", "open opens opened opened opening"),
        ("carry", "carry carries carried carried carrying"),
        ("play", "play plays played played playing"),
        ("wash", "wash washes washed washed washing"),
        ("dance", "dance dances danced danced dancing"),
        ("hug", "hug hugs hugged hugged hugging"),
        ("cut/cut", "cut cuts cut cut cutting"),
        ("see/saw/seen", "see sees saw seen seeing"),
        ("go/went/gone", "go goes went gone going"),
        ("have/had", "have has had had having"),
        ("forget/forgot/forgotten/forgetting", "forget forgets forgot forgotten forgetting"),
    ],
)
def test_english_verbs_have_their_forms(entry, forms):
    assert list(verbs.english(entry)[:5]) == forms.split()


def test_an_english_particle_stands_behind_a_pronoun_or_before_a_noun():
    turn, look = verbs.english("turn off*"), verbs.english("look for")
    assert turn.with_object(turn.past, "the lamp") == "turned off the lamp"
    assert turn.with_object(turn.past, "it", pronoun=True) == "turned it off"
    assert look.with_object(look.ing, "it", pronoun=True) == "looking for it"


@pytest.mark.parametrize(
    ("number", "gender", "spanish", "english"),
    [
        (1, "f", "una", "one"),
        (21, "m", "veintiún", "twenty one"),
        (31, "f", "treinta y una", "thirty one"),
        (100, "m", "cien", "one hundred"),
        (101, "m", "ciento un", "one hundred one"),
        (222, "f", "doscientas veintidós", "two hundred twenty two"),
        (540, "m", "quinientos cuarenta", "five hundred forty"),
        (700, "m", "setecientos", "seven hundred"),
        (999, "m", "novecientos noventa y nueve", "nine hundred ninety nine"),
    ],
)
def test_numbers_are_spelled(number, gender, spanish, english):
    assert numbers.number_es(number, gender) == spanish
    assert numbers.number_en(number) == english


def test_every_number_has_a_spelling_of_its_own():
    for gender in "mf":
        assert len({numbers.number_es(n, gender) for n in range(1, 1000)}) == 999
    assert len({numbers.number_en(n) for n in range(1, 1000)}) == 999
    assert [numbers.ordinal_en(n) for n in (2, 12, 20, 23, 30)] == [
        *("second", "twelfth", "twentieth", "twenty third", "thirtieth")
    ]


@pytest.mark.parametrize(
    ("tense", "no", "ask", "statement"),
    [
        ("present", False, False, "she reads the book"),
        ("present", True, False, "she does not read the book"),
        ("present", False, True, "does she read the book"),
        ("preterite", True, True, "did she not read the book"),
        ("imperfect", False, False, "she used to read the book"),
        ("imperfect", True, False, "she did not use to read the book"),
        ("future", True, False, "she will not read the book"),
        ("going", False, False, "she is going to read the book"),
        ("progressive", False, True, "is she reading the book"),
        ("was", True, False, "she was not reading the book"),
        ("perfect", False, True, "has she read the book"),
    ],
)
def test_english_clauses_take_their_helpers(tense, no, ask, statement):
    she = words.Who("ella", "she", 2, "f")
    verb = verbs.english("read/read")
    assert clauses.english(verb, she, tense, no=no, ask=ask, what="the book") == statement


def test_the_lexicon_is_whole():
    used = {use for section in ("thing",) for verb in words.VERBS_OF[section] for use in verb.uses}
    assert used <= words.NOUNS.keys()
    nouns = [noun for entries in words.NOUNS.values() for noun in entries]
    assert len({noun.es for noun in nouns}) == len(nouns) > 250
    assert {noun.gender for noun in nouns} == {"m", "f"}
    infinitives = {v.forms.infinitive for entries in words.VERBS_OF.values() for v in entries}
    assert len(infinitives) > 100
    assert len({a.es for entries in words.ADJECTIVES.values() for a in entries}) > 60
    plurals = {noun.es: (noun.es_pl, noun.en_pl) for noun in nouns}
    assert plurals["autobús"] == ("autobuses", "buses")
    assert plurals["lápiz"] == ("lápices", "pencils")
    assert plurals["sofá"] == ("sofás", "sofas")
    assert plurals["ciudad"] == ("ciudades", "cities")
    assert plurals["arroz"] == ("", "")


def test_training_text_has_at_least_2000_spanish_word_types(splits):
    counts = text_of(splits["train"], "es")
    assert len(counts) >= 2000
    assert counts.most_common(1)[0][1] > 100 * sorted(counts.values())[len(counts) // 2]  # Zipf


def test_translations_are_right(splits):
    found = {" | ".join(pair) for pair in splits["test"]}
    checked = CHECKED.splitlines()
    assert [line for line in checked if line not in found] == []
    assert {line.rpartition(" | ")[2] for line in checked} == {p.intent for p in splits["train"]}


def test_splits_are_disjoint_in_both_languages_and_have_the_sizes_asked_for(splits):
    assert {name: len(pairs) for name, pairs in splits.items()} == DEFAULT
    for field in ("es", "en"):
        texts = {name: {getattr(pair, field) for pair in pairs} for name, pairs in splits.items()}
        assert not texts["train"] & (texts["test"] | texts["valid"])
        assert not texts["valid"] & texts["test"]
    for pairs in splits.values():
        assert len({pair.es for pair in pairs}) == len(pairs)


def test_at_most_2_percent_of_the_test_words_are_not_in_training(splits):
    for field in ("es", "en"):
        known, heard = text_of(splits["train"], field), text_of(splits["test"], field)
        unknown = sum(count for word, count in heard.items() if word not in known)
        assert unknown <= 0.02 * sum(heard.values()), field


def test_the_test_set_does_not_depend_on_the_training_set(splits):
    small = splitting.make_splits({"train": 50, "valid": 200, "test": 400}, 1)
    assert (small["valid"], small["test"]) == (splits["valid"], splits["test"])
    other = splitting.make_splits({"train": 5, "valid": 5, "test": 400}, 2)
    assert other["test"] != splits["test"]


def test_text_is_plain_lower_case_words(splits):
    for pair in [pair for pairs in splits.values() for pair in pairs]:
        assert splitting.MIN_WORDS <= len(pair.es.split()) <= splitting.MAX_WORDS
        assert re.fullmatch("[a-záéíóúñ]+( [a-záéíóúñ]+)*", pair.es)
        assert re.fullmatch("[a-z]+( [a-z]+)*", pair.en)


def test_one_spanish_sentence_has_one_translation_and_one_intent(sample):
    seen: dict[str, Any] = {}
    for found in sample:
        assert seen.setdefault(found.es, found) == found
    assert len(seen) > 13_000


def test_intents_are_few_and_each_is_frequent(splits):
    counts = Counter(pair.intent for pair in splits["train"])
    assert 20 <= len(counts) <= 30
    assert min(counts.values()) >= 20
    assert all(re.fullmatch("[a-z]+( [a-z]+){0,2}", intent) for intent in counts)
    assert {pair.intent for pair in splits["test"]} <= counts.keys()


def test_words_agree_with_their_nouns(sample):
    nouns = {}
    for noun in [noun for entries in words.NOUNS.values() for noun in entries]:
        if noun.es != noun.es_pl:
            nouns[noun.es] = (noun.gender, 0)
            if noun.es_pl:
                nouns[noun.es_pl] = (noun.gender, 1)
    del nouns["agua"], nouns["cocina"]  # el agua; the other is also a verb's form
    before = {"el": ("m", 0), "la": ("f", 0), "los": ("m", 1), "las": ("f", 1)}
    before |= {"nuestro": ("m", 0), "nuestras": ("f", 1), "esos": ("m", 1), "otra": ("f", 0)}
    behind = {
        mini_words.inflect(stem, gender, number): (gender, number)
        for stem in ("roj*", "bonit*", "pequeñ*")
        for gender in "mf"
        for number in (0, 1)
    }
    met: Counter[str] = Counter()
    for found in sample:
        for left, right in pairwise(found.es.split()):
            for table, key, noun in ((before, left, right), (behind, right, left)):
                if key in table and noun in nouns:
                    assert table[key] == nouns[noun], found.es
                    met[key] += 1
    assert set(met) == {*before, *behind}


def test_sentences_beyond_the_grammar_are_refused(monkeypatch):
    few = [mini_words.Pair(f"a b {n}", f"c {n}") for n in range(3)]
    monkeypatch.setattr(splitting, "sentence", lambda c: c.one(few))
    with pytest.raises(mini_splits.SplitError, match="only 3 of 9 sentences found for train"):
        splitting.make_splits({"train": 9}, 1)


def test_the_config_is_that_of_mini_for_longer_speech_in_smaller_batches():
    mini, hard = (
        yaml.safe_load((RECIPE / "conf" / name).read_text(encoding="utf-8"))
        for name in ("train_mini.yaml", "study/mini_hard.yaml")
    )
    updates = hard["max_epoch"] * hard["num_iters_per_epoch"]
    assert updates == hard["scheduler_conf"]["warmup_steps_list"][-1] <= 3000
    assert hard["batch_bins"] < mini["batch_bins"]
    assert hard["model_conf"].pop("speech_length") == 10
    assert hard["preprocessor_conf"].pop("speech_length") == 10
    mini["model_conf"].pop("speech_length")
    mini["preprocessor_conf"].pop("speech_length")
    for config in (mini, hard):
        for name in ("scheduler_conf", "max_epoch", "num_iters_per_epoch", "batch_bins"):
            config.pop(name)
        for side in ("encoder_conf", "decoder_conf"):
            for name in ("dropout_rate", "positional_dropout_rate"):
                assert config[side].pop(name) == (0.0 if config is hard else 0.1)
    assert hard == mini
