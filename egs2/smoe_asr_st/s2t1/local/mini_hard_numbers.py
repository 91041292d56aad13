"""Numbers from 1 to 999 in words, Spanish and English, for the mini_hard corpus."""

from __future__ import annotations


def _split(text: str) -> list[str]:
    return text.split()


_UNITS_ES = _split(
    "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince "
    "dieciséis diecisiete dieciocho diecinueve veinte veintiuno veintidós veintitrés veinticuatro "
    "veinticinco veintiséis veintisiete veintiocho veintinueve"
)
_TENS_ES = _split("treinta cuarenta cincuenta sesenta setenta ochenta noventa")
_HUNDREDS_ES = _split("dos tres cuatro quin seis sete ocho nove")  # ... cientos
_UNITS_EN = _split(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
_TENS_EN = _split("twenty thirty forty fifty sixty seventy eighty ninety")
_FIRST = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth"}
_FIRST |= {"nine": "ninth", "twelve": "twelfth", "twenty": "twentieth", "thirty": "thirtieth"}


def number_es(n: int, gender: str = "m") -> str:
    """Spell 1 to 999 as they stand before a noun: ``treinta y un``, ``doscientas veintiuna``."""
    if n == 100:
        return "cien"
    hundreds, rest = divmod(n, 100)
    words = []
    if hundreds == 1:
        words.append("ciento")
    elif hundreds:
        stem = "quinient" if hundreds == 5 else _HUNDREDS_ES[hundreds - 2] + "cient"
        words.append(stem + {"m": "os", "f": "as"}[gender])
    if rest >= 30:
        tens, rest = divmod(rest, 10)
        words += [_TENS_ES[tens - 3]] + ["y"] * bool(rest)
    if rest:
        unit = _UNITS_ES[rest]
        if unit.endswith("uno"):
            short = "veintiún" if rest == 21 else "un"
            unit = short if gender == "m" else unit[:-1] + "a"
        words.append(unit)
    return " ".join(words)


def number_en(n: int) -> str:
    """Spell 1 to 999: ``two hundred thirty four``."""
    words = []
    if n >= 100:
        words, n = [_UNITS_EN[n // 100], "hundred"], n % 100
    if n >= 20:
        words.append(_TENS_EN[n // 10 - 2])
        n %= 10
    return " ".join(words + [_UNITS_EN[n]] * bool(n))


def ordinal_en(n: int) -> str:
    """Spell the ordinal of 1 to 31: ``twenty third``."""
    *head, last = number_en(n).split()
    return " ".join([*head, _FIRST.get(last, last + "th")])
