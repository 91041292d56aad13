"""Texts in the wrong place, found by what the corpus itself looks like."""

from __future__ import annotations

import random

import pytest

from espnet_smoe.slots import UNKNOWN, Slots, are_alike, choose, script_of, scripts_of, trigrams
from espnet_smoe.soundness import SpeakingRates

SOURCE = "la casa blanca un perro grande come en jardín por mañana hija del vecino quiere agua"
TARGET = "the white house with big dogs eating their food every morning what she wanted"


def lines(words: str, count: int, *, seed: int) -> list[tuple[str, str]]:
    rng = random.Random(seed)
    return [
        (f"u{i:04}", " ".join(rng.choices(words.split(), k=rng.randint(4, 9))))
        for i in range(count)
    ]


def test_swapped_lines_are_found_and_no_other() -> None:
    source, target = lines(SOURCE, 300, seed=1), lines(TARGET, 300, seed=2)
    for place in (5, 60, 299):
        source[place], target[place] = (
            (source[place][0], target[place][1]),
            (target[place][0], source[place][1]),
        )
    slots = Slots.learn({"<spa><asr>": choose(source), "<spa><st_eng>": choose(target)})
    found = {utt: looks for utt, _, looks in slots.strangers("<spa><asr>", source)}
    assert found == dict.fromkeys(["u0005", "u0060", "u0299"], "<spa><st_eng>")
    found = {utt: looks for utt, _, looks in slots.strangers("<spa><st_eng>", target)}
    assert found == dict.fromkeys(["u0005", "u0060", "u0299"], "<spa><asr>")


def test_another_script_is_found_and_short_lines_are_let_be() -> None:
    source = lines(SOURCE, 100, seed=1)
    slots = Slots.learn({"a": choose(source), "b": choose(lines(TARGET, 100, seed=2))})
    asked = [
        ("v1", "белая собака ест"),
        ("v2", "да"),
        ("v3", "ok"),
        ("v4", "the dog"),
        ("v5", "12"),
    ]
    assert [(u, looks) for u, _, looks in slots.strangers("a", asked)] == [
        ("v1", "the script CYRILLIC")
    ]


def test_a_third_language_stands_out_of_its_set_but_another_domain_does_not() -> None:
    source = lines(SOURCE, 400, seed=1)
    slots = Slots.learn({"a": choose(source), "b": choose(lines(TARGET, 400, seed=2))})
    foreign = ("v1", "ich möchte jeden tag zwölf kühle gläser frisches wasser trinken")
    assert list(slots.strangers("a", [*source, foreign])) == [(*foreign, UNKNOWN)]
    other_domain = lines("zumo fresco tarde lluvia viento monte rápido coche nube", 100, seed=4)
    assert list(slots.strangers("a", other_domain)) == []


def test_a_slot_of_few_lines_is_not_judged() -> None:
    slots = Slots.learn({"a": lines(SOURCE, 49, seed=1), "b": lines(TARGET, 60, seed=2)})
    assert slots.names == ["b"]
    assert list(slots.strangers("a", lines(TARGET, 10, seed=3))) == []


def test_names_are_alike_but_for_accents() -> None:
    assert are_alike("Alembe, Ongoli et Mboo", "Alembέ Ongolí dzaa Mboo".replace("έ", "é"))
    assert not are_alike("the white house", "la casa blanca")


def test_trigrams_do_not_reach_from_text_to_text() -> None:
    both, sizes = trigrams(["Casa, blanca!", "", "un perro"])
    alone = [trigrams([text])[0].tolist() for text in ("casa blanca", "", "UN PERRO")]
    assert both.tolist() == sum(alone, [])
    assert sizes.tolist() == [len(each) for each in alone]


@pytest.mark.parametrize(
    ("char", "script"),
    [("a", "LATIN"), ("ñ", "LATIN"), ("я", "CYRILLIC"), ("あ", "CJK"), ("漢", "CJK"), ("5", "")],
)
def test_scripts(char: str, script: str) -> None:
    assert script_of(char) == script
    assert sum(scripts_of(f"{char}.").values()) == bool(script)


def test_a_choice_of_lines_is_repeatable_and_from_the_whole() -> None:
    every = lines(SOURCE, 1000, seed=1)
    chosen = choose(every, size=50)
    assert len(chosen) == 50
    assert chosen == choose(iter(every), size=50)
    places = [int(utt[1:]) for utt, _ in chosen]
    assert min(places) < 200 and max(places) > 800
    assert sorted(choose(every, size=2000)) == every


def test_rates_of_speaking() -> None:
    rates = SpeakingRates()
    assert "nobody speaks more than 40" in (rates.add("u", "a" * 41, 1.0) or "")
    assert "nobody speaks more than 20" in (rates.add("u", "漢" * 21, 1.0) or "")
    assert rates.add("u", "12", 0.1) is None
    rng = random.Random(1)
    for number in range(100):
        seconds = rng.uniform(1, 7)
        assert rates.add(f"u{number}", "a" * int(seconds * rng.uniform(10, 16)), seconds) is None
    assert list(rates.outliers()) == []
    rates.add("slow", "aa", 20.0)
    rates.add("short pause", "aa", 1.0)
    assert [utt for utt, _ in rates.outliers()] == ["slow"]
