"""Language codes: what corpora write (``es``, ``sv-SE``) and what the recipe writes (``spa``)."""

from __future__ import annotations

import re

from espnet_smoe.datadir import DataError

# ISO 639-1 and ISO 639-3; macrolanguages (ara, fas, zho) keep their own code, as in OWSM.
_TWO_LETTERS = """
aa aar ab abk ae ave af afr ak aka am amh an arg ar ara as asm av ava ay aym az aze ba bak be bel
bg bul bi bis bm bam bn ben bo bod br bre bs bos ca cat ce che ch cha co cos cr cre cs ces cu chu
cv chv cy cym da dan de deu dv div dz dzo ee ewe el ell en eng eo epo es spa et est eu eus fa fas
ff ful fi fin fj fij fo fao fr fra fy fry ga gle gd gla gl glg gn grn gu guj gv glv ha hau he heb
hi hin ho hmo hr hrv ht hat hu hun hy hye hz her ia ina id ind ie ile ig ibo ii iii ik ipk io ido
is isl it ita iu iku ja jpn jv jav ka kat kg kon ki kik kj kua kk kaz kl kal km khm kn kan ko kor
kr kau ks kas ku kur kv kom kw cor ky kir la lat lb ltz lg lug li lim ln lin lo lao lt lit lu lub
lv lav mg mlg mh mah mi mri mk mkd ml mal mn mon mr mar ms msa mt mlt my mya na nau nb nob nd nde
ne nep ng ndo nl nld nn nno no nor nr nbl nv nav ny nya oc oci oj oji om orm or ori os oss pa pan
pi pli pl pol ps pus pt por qu que rm roh rn run ro ron ru rus rw kin sa san sc srd sd snd se sme
sg sag si sin sk slk sl slv sm smo sn sna so som sq sqi sr srp ss ssw st sot su sun sv swe sw swa
ta tam te tel tg tgk th tha ti tir tk tuk tl tgl tn tsn to ton tr tur ts tso tt tat tw twi ty tah
ug uig uk ukr ur urd uz uzb ve ven vi vie vo vol wa wln wo wol xh xho yi yid yo yor za zha zh zho
zu zul
"""
# ISO 639-2's bibliographic codes, which ISO 639-3 does not have.
_BIBLIOGRAPHIC = """
alb sqi arm hye baq eus bur mya chi zho cze ces dut nld fre fra geo kat ger deu gre ell ice isl
mac mkd mao mri may msa per fas rum ron slo slk tib bod wel cym
"""


def _pairs(text: str) -> dict[str, str]:
    words = text.split()
    return dict(zip(words[::2], words[1::2], strict=True))


ISO_639_3, ISO_639_2B = _pairs(_TWO_LETTERS), _pairs(_BIBLIOGRAPHIC)


def language(code: str) -> str:
    """A language as ISO 639-3.

    Args:
        code: ISO 639-1 or 639-3, perhaps with a region or script behind it: ``es``, ``spa``,
            ``sv-SE``, ``zh_CN``.

    Raises:
        DataError: Neither two letters that ISO 639-1 knows nor three letters.
    """
    base = re.split("[-_]", code.strip(), maxsplit=1)[0].lower()
    if base in ISO_639_3:
        return ISO_639_3[base]
    if re.fullmatch("[a-z]{3}", base):
        return ISO_639_2B.get(base, base)
    raise DataError(f"language {code!r} is unknown; accepted is ISO 639-1 (es) or 639-3 (spa)")


def translation_task(code: str) -> str:
    """The task of translating into a language: ``st_eng``."""
    return f"st_{language(code)}"


def pair(corpus: str, prefix: str) -> tuple[str, list[str]]:
    """The languages in a corpus's name, as written: ``covost2_en_de_ja`` is en, [de, ja].

    Raises:
        DataError: Fewer than two languages, an unknown one, or one twice.
    """
    head, _, rest = corpus.partition(prefix + "_")
    codes = rest.split("_") if not head else []
    if len(codes) < 2 or not all(codes):
        raise DataError(
            f"--corpus {corpus}: expected {prefix}_<source>_<target>[_<target>...], such as "
            f"{prefix}_en_de"
        )
    names = [language(code) for code in codes]
    if len(set(names)) < len(names):
        raise DataError(f"--corpus {corpus}: a language is named twice")
    return codes[0], codes[1:]
