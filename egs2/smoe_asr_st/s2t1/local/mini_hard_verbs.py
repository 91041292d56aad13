"""Spanish and English verb forms for the mini_hard corpus: rules, and the verbs that break them.

Persons are columns: 0 yo, 1 tú, 2 él/ella, 3 nosotros, 4 ellos. Only what the corpus's verbs need
is here; `conjugate` does not know every Spanish verb.
"""

from __future__ import annotations

import re
from typing import NamedTuple

BOOT = (0, 1, 2, 4)  # persons whose present stem is stressed, and so changes
PRESENT = {"a": "o as a amos an", "e": "o es e emos en", "i": "o es e imos en"}
PRETERITE = {"a": "é aste ó amos aron", "e": "í iste ió imos ieron", "i": "í iste ió imos ieron"}
STRONG = "e iste o imos ieron"
IMPERFECT = {"a": "aba abas aba ábamos aban", "e": "ía ías ía íamos ían"}
FUTURE = "é ás á emos án"
CHANGED = {"ie": ("e", "ie"), "ue": ("o", "ue"), "i": ("e", "i"), "í": ("i", "í")}
HARD = {"c": "qu", "g": "gu", "z": "c"}  # how -car, -gar, -zar are spelled before e


class Irregular(NamedTuple):
    """What no rule gives: whole tenses (five forms), single forms, or the stem of a tense."""

    present: str = ""
    preterite: str = ""
    imperfect: str = ""
    yo: str = ""
    strong: str = ""  # stem of the preterite with unstressed endings
    future: str = ""  # stem
    gerund: str = ""
    participle: str = ""
    command: str = ""  # of tú
    subjunctive: str = ""  # of tú, for "no ..."


_WENT = "fui fuiste fue fuimos fueron"
IRREGULAR = {
    "ser": Irregular("soy eres es somos son", _WENT, "era eras era éramos eran"),
    "ir": Irregular(
        "voy vas va vamos van", _WENT, "iba ibas iba íbamos iban",
        gerund="yendo", command="ve", subjunctive="vayas",
    ),
    "estar": Irregular("estoy estás está estamos están", strong="estuv"),
    "haber": Irregular("he has ha hemos han", strong="hub", future="habr"),
    "tener": Irregular(yo="tengo", strong="tuv", future="tendr", command="ten"),
    "hacer": Irregular(
        yo="hago", preterite="hice hiciste hizo hicimos hicieron",
        future="har", participle="hecho", command="haz",
    ),
    "poder": Irregular(strong="pud", future="podr", gerund="pudiendo"),
    "querer": Irregular(strong="quis", future="querr"),
    "saber": Irregular(yo="sé", strong="sup", future="sabr", subjunctive="sepas"),
    "venir": Irregular(yo="vengo", strong="vin", future="vendr", gerund="viniendo", command="ven"),
    "salir": Irregular(yo="salgo", future="saldr", command="sal"),
    "traer": Irregular(yo="traigo", strong="traj"),
    "conducir": Irregular(strong="conduj"),
    "traducir": Irregular(strong="traduj"),
    "dar": Irregular("doy das da damos dan", "di diste dio dimos dieron", subjunctive="des"),
    "ver": Irregular(
        yo="veo", preterite="vi viste vio vimos vieron",
        imperfect="veía veías veía veíamos veían", participle="visto",
    ),
    "romper": Irregular(participle="roto"),
    "abrir": Irregular(participle="abierto"),
    "cubrir": Irregular(participle="cubierto"),
    "escribir": Irregular(participle="escrito"),
    "volver": Irregular(participle="vuelto"),
    "devolver": Irregular(participle="devuelto"),
    "envolver": Irregular(participle="envuelto"),
}  # fmt: skip


class Forms(NamedTuple):
    """A Spanish verb's forms; tenses hold five."""

    infinitive: str
    present: tuple[str, ...]
    preterite: tuple[str, ...]
    imperfect: tuple[str, ...]
    future: tuple[str, ...]
    gerund: str
    participle: str
    command: str
    subjunctive: str


class English(NamedTuple):
    """An English verb: forms of its first word, and what follows it (``for``, ``care of``).

    ``split``: an object pronoun stands before what follows (``turn it on``).
    """

    base: str
    third: str
    past: str
    participle: str
    ing: str
    rest: str = ""
    split: bool = False

    def with_object(self, form: str, what: str, *, pronoun: bool = False) -> str:
        """Return a form with an object: ``look for it``, ``turn it on``, ``turn on the lamp``."""
        parts = [form, what, self.rest] if pronoun and self.split else [form, self.rest, what]
        return " ".join(part for part in parts if part)


def _change(stem: str, change: str) -> str:
    """Change the last vowel of a stem that the change applies to: ``encontr`` -> ``encuentr``."""
    if change not in CHANGED:
        return stem
    old, new = CHANGED[change]
    if change == "ue" and "o" not in stem:  # jugar
        old = "u"
    head, _, tail = stem.rpartition(old)
    return head + new + tail


def _tense(stems: tuple[str, ...] | str, endings: str) -> tuple[str, ...]:
    """Put endings behind one stem or five."""
    each = (stems,) * 5 if isinstance(stems, str) else stems
    return tuple(stem + ending for stem, ending in zip(each, endings.split(), strict=True))


def _present(stem: str, vowel: str, change: str, own: Irregular) -> tuple[str, ...]:
    if own.present:
        return tuple(own.present.split())
    changed = _change(stem, change)
    stems = [changed if person in BOOT else stem for person in range(5)]
    if vowel == "i" and stem.endswith("u") and not stem.endswith(("gu", "qu")):  # construir
        stems = [stem + "y" if person in BOOT else stem for person in range(5)]
    forms = _tense(tuple(stems), PRESENT[vowel])
    first = stems[0]
    if own.yo:
        first = own.yo[:-1]
    elif change == "zc":
        first = first[:-1] + "zc"
    elif vowel != "a" and first.endswith("gu"):  # seguir
        first = first[:-1]
    elif vowel != "a" and first.endswith("g"):  # elegir
        first = first[:-1] + "j"
    return (own.yo or first + "o", *forms[1:])


def _preterite(stem: str, vowel: str, change: str, own: Irregular) -> tuple[str, ...]:
    if own.preterite:
        return tuple(own.preterite.split())
    if own.strong:
        ending = STRONG.replace("ieron", "eron") if own.strong.endswith("j") else STRONG
        return _tense(own.strong, ending)
    forms = list(_tense(stem, PRETERITE[vowel]))
    if vowel == "a":
        forms[0] = _before_e(stem) + "é"
    elif stem[-1] in "aeu" and not stem.endswith(("gu", "qu")):  # leer, construir
        forms[2], forms[4] = stem + "yó", stem + "yeron"
        if stem[-1] != "u":
            forms[1], forms[3] = stem + "íste", stem + "ímos"
    elif vowel == "i" and change in ("i", "ie", "ue"):
        forms[2], forms[4] = (_weak(stem, change) + ending for ending in ("ió", "ieron"))
    return tuple(forms)


def _before_e(stem: str) -> str:
    """Spell the stem of an -ar verb before e: ``busc`` -> ``busqu``."""
    return stem[:-1] + HARD[stem[-1]] if stem[-1] in HARD else stem


def _weak(stem: str, change: str) -> str:
    """Return the stem of an -ir verb before a stressed i-diphthong: ``pid``, ``durm``, ``mint``."""
    return _change(stem, "i") if change in ("i", "ie") else re.sub("o(?=[^o]*$)", "u", stem)


def _gerund(stem: str, vowel: str, change: str) -> str:
    if vowel == "a":
        return stem + "ando"
    if vowel == "i" and change in ("i", "ie", "ue"):
        stem = _weak(stem, change)
    vocalic = stem[-1] in "aeu" and not stem.endswith(("gu", "qu"))
    return stem + ("yendo" if vocalic else "iendo")


def _subjunctive(first: str, vowel: str) -> str:
    """Return the form of tú, from the present of yo."""
    stem = first[:-1]
    return _before_e(stem) + "es" if vowel == "a" else stem + "as"


def conjugate(infinitive: str, change: str = "") -> Forms:
    """Return the forms that the corpus uses.

    Args:
        infinitive: Without ``se``.
        change: Of the stressed stem: ``ie``, ``ue``, ``i``, ``í`` (an accent), or ``zc`` for yo.

    Raises:
        ValueError: Neither -ar, -er nor -ir, or a change that is unknown.
    """
    stem, vowel = infinitive[:-2], infinitive[-2:-1]
    if infinitive[-1:] != "r" or vowel not in PRESENT:
        raise ValueError(f"verb {infinitive!r} ends neither in -ar, -er nor -ir")
    if change not in ("", "zc", *CHANGED):
        raise ValueError(
            f"verb {infinitive!r}: change {change!r} (known: zc, {', '.join(CHANGED)})"
        )
    own = IRREGULAR.get(infinitive, Irregular())
    present = _present(stem, vowel, change, own)
    imperfect = IMPERFECT["a" if vowel == "a" else "e"]
    vocalic = vowel != "a" and stem[-1:] in ("a", "e")
    return Forms(
        infinitive,
        present,
        _preterite(stem, vowel, change, own),
        tuple(own.imperfect.split()) if own.imperfect else _tense(stem, imperfect),
        _tense(own.future or infinitive, FUTURE),
        own.gerund or _gerund(stem, vowel, change),
        own.participle or stem + ("ado" if vowel == "a" else "ído" if vocalic else "ido"),
        own.command or present[2],
        own.subjunctive or _subjunctive(present[0], vowel),
    )


def _third(base: str) -> str:
    if base == "have":
        return "has"
    if base.endswith(("s", "x", "ch", "sh", "o", "z")):
        return base + "es"
    return base[:-1] + "ies" if re.search("[^aeiou]y$", base) else base + "s"


def _doubled(base: str) -> str:
    """Double the last letter of a short word: ``hug`` -> ``hugg``."""
    return base + base[-1] if re.fullmatch("[^aeiou]*[aeiou][bdglmnprt]", base) else base


def _past(base: str) -> str:
    if base.endswith("e"):
        return base + "d"
    return base[:-1] + "ied" if re.search("[^aeiou]y$", base) else _doubled(base) + "ed"


def _ing(base: str) -> str:
    cut = base[:-1] if base.endswith("e") and not base.endswith(("ee", "ye")) else _doubled(base)
    return cut + "ing"


def english(entry: str) -> English:
    """Return the forms of an entry of the lexicon.

    Args:
        entry: ``open``, ``eat/ate/eaten``, ``look for``, ``turn off*``,
            ``forget/forgot/forgotten/forgetting``; an empty part is regular.
    """
    head, _, rest = entry.rstrip("*").partition(" ")
    base, past, participle, ing = (head.split("/") + ["", "", ""])[:4]
    past = past or _past(base)
    return English(
        base, _third(base), past, participle or past, ing or _ing(base), rest, entry.endswith("*")
    )
