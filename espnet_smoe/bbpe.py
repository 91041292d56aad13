"""Byte-level BPE that is one ordinary sentencepiece model.

Text becomes the *letters* of its UTF-8 bytes: a printable ASCII byte is its own letter, any
other byte ``b`` is the Braille pattern ``U+2800 + b``. That mapping is trained into the
sentencepiece model as its normalisation rules and the way back as its denormalisation rules,
so ``sp.encode`` and ``sp.decode`` do everything and stock ESPnet (``token_type: bpe``) needs no
patch. Every letter has a piece: no text that ``normalize_text`` accepts holds an ``<unk>``.
Special symbols (``<spa>``, ``<asr>``, ``<0.00>``) are user-defined symbols, which are never split.

A letter that survives decoding is a broken UTF-8 sequence, since a Braille pattern of the text
itself is spelled with three letters; ``decode`` and ``repair`` resolve such hypotheses.
"""

from __future__ import annotations

import io
import os
import random
import re
import tempfile
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from pathlib import Path

BLANK, UNK, SOS, EOS = "<blank>", "<unk>", "<sos>", "<eos>"
NA, SOP, NO_TIME = "<na>", "<sop>", "<notimestamps>"  # names that ESPnet's S2T task looks up
RESERVED = (BLANK, UNK, SOS, EOS)  # in every token list, never in the sentencepiece model
MODEL_TYPES = ("bpe", "unigram")
SYMBOL = re.compile(r"<[\w.+:|/-]+>", re.ASCII)
TIME_SYMBOL = re.compile(r"<\d+\.\d\d>", re.ASCII)

WORD_START = "\u2581"  # sentencepiece's sign for a space
LETTERS = 0x2800  # byte 0x80 is U+2880, byte 0xFF is U+28FF
LONE = 0x40000  # U+40080 (a plane without characters) stands for byte 0x80 alone, in training
STRAY = re.compile("[\u2880-\u28ff]+")
ASCII = "".join(map(chr, range(0x21, 0x7F)))  # printable ASCII without the space
MAX_LINE = 1 << 24  # bytes; sentencepiece drops longer lines without a word
MAX_PIECE = 24  # letters of the longest piece; a letter is a byte
THREADS = 4  # a constant: it is written into the model, whose bytes must not depend on the machine


class BbpeError(ValueError):
    """A text, a special symbol or a vocabulary size that the byte-level BPE cannot use."""


# ---------------------------------------------------------------------------- text


def normalize_text(text: str, *, utt: str | None = None, path: str | Path | None = None) -> str:
    """Bring a transcript into the form that every later stage works with.

    Args:
        text: Any text. Special symbols in it stay untouched.
        utt: The utterance, for the error message.
        path: The file that the text comes from, for the error message.

    Returns:
        The text in NFC, every run of white space and control characters one space, none at the
        ends. Applying it twice changes nothing, and sentencepiece gives it back exactly.

    Raises:
        BbpeError: A lone surrogate, or a code point to which this Python's Unicode version
            assigns no character.
    """
    words = unicodedata.normalize("NFC", text).split()
    if all(map(str.isprintable, words)):
        return " ".join(words)
    for char in sorted(set("".join(words))):
        if unicodedata.category(char) in ("Cn", "Cs"):
            raise BbpeError(
                f"{_where(utt, path)}U+{ord(char):04X} (character {text.find(char) + 1} of the "
                f"text) is not a character of Unicode {unicodedata.unidata_version}; accepted is "
                "every assigned character; correct the text or remove the code point"
            )
    return _fold(" ".join(words))


def reject_special_symbols(
    text: str, symbols: Iterable[str], utt: str | None = None, path: str | Path | None = None
) -> None:
    """Refuse a transcript that holds a special symbol literally: it would act as a prompt.

    Raises:
        BbpeError: Names the first special symbol found, the utterance and the file.
    """
    if "<" not in text:
        return
    found = [symbol for symbol in (*symbols, *RESERVED) if symbol in text]
    if found:
        first = min(found, key=text.find)
        raise BbpeError(
            f"{_where(utt, path)}the text {text!r} holds the special symbol {first!r}; accepted "
            "is text without special symbols; remove it or write it differently"
        )


def repair(text: str) -> str:
    """Turn a decoded hypothesis into valid text.

    Byte letters left in the text (a hypothesis cut in the middle of a character) are decoded
    where they spell characters and dropped where they do not. The result passes
    ``normalize_text`` unchanged; nothing is ever raised. A Braille pattern that the hypothesis
    really means cannot be told from a stray letter here: ``decode``, which reads the tokens, can.
    """
    text = STRAY.sub(lambda match: _from_letters(match[0]), text)
    text = "".join(char for char in text if unicodedata.category(char) not in ("Cn", "Cs"))
    return _fold(unicodedata.normalize("NFC", text))


def decode(tokens: Iterable[str], *, special: Collection[str] = ()) -> str:
    """Turn the tokens of a hypothesis into valid text, whatever they spell.

    Args:
        tokens: Pieces of the model.
        special: Tokens to leave out (prompt, timestamps).

    Returns:
        What ``sp.DecodePieces`` gives for a well-formed hypothesis; broken UTF-8 is dropped.
    """
    letters = "".join(token for token in tokens if token not in special)
    text = _from_letters(letters.replace(WORD_START, " "))
    # A Braille pattern of the text itself is spelled out again, so that repair keeps it.
    return repair(STRAY.sub(lambda match: _to_letters(match[0]), text))


def _fold(text: str) -> str:
    """White space and control characters as single spaces."""
    return " ".join("".join(" " if _is_space(char) else char for char in text).split())


def _is_space(char: str) -> bool:
    return char.isspace() or unicodedata.category(char) == "Cc"


def _from_letters(letters: str) -> str:
    """Byte letters (and ordinary characters) as text; broken sequences are dropped."""
    parts = (
        bytes([ord(char) - LETTERS]) if STRAY.match(char) else char.encode("utf-8", "ignore")
        for char in letters
    )
    return b"".join(parts).decode("utf-8", "ignore")


def _to_letters(text: str) -> str:
    return "".join(chr(b) if b < 0x80 else chr(LETTERS + b) for b in text.encode("utf-8"))


def _where(utt: str | None, path: str | Path | None) -> str:
    where = f"{path}: " if path is not None else ""
    return where + (f"utterance {utt!r}: " if utt is not None else "")


# ---------------------------------------------------------------------------- symbols


def special_symbols(
    languages: Iterable[str],
    tasks: Iterable[str],
    *,
    extra: Iterable[str] = (),
    last_time: float = 30.0,
    resolution: float = 0.02,
    time_symbols: bool = True,
) -> list[str]:
    """The special symbols of an S2T model, in the order of their token ids.

    Args:
        languages: Source languages, ``spa`` or ``<spa>``.
        tasks: Tasks, ``asr``, ``st_eng`` or ``<asr>``, ``<st_eng>``.
        extra: Further symbols, such as another guiding token.
        last_time: Latest timestamp, in seconds (ESPnet's ``last_time_symbol``).
        resolution: Step of the timestamps, in seconds (ESPnet's ``speech_resolution``).
        time_symbols: False keeps only the first and the last timestamp, which ESPnet's
            preprocessor looks up; enough for data without timestamps.

    Returns:
        ``<na>``, languages, tasks, extra, ``<notimestamps>``, timestamps (contiguous), ``<sop>``.

    Raises:
        BbpeError: A symbol occurs twice, is reserved or is malformed, or the last timestamp is
            not a multiple of the resolution.
    """
    steps = round(last_time / resolution) if resolution >= 0.01 else 0
    if steps < 1 or abs(steps * resolution - last_time) > 1e-6:
        raise BbpeError(
            f"last_time {last_time} with resolution {resolution}: accepted is a resolution of "
            "at least 0.01 s and a last time that is a multiple of it"
        )
    times = [f"<{step * resolution:.2f}>" for step in range(steps + 1)]
    names = [*languages, *tasks, *extra]
    named = [name if name.startswith("<") else f"<{name}>" for name in names]
    symbols = [NA, *named, NO_TIME, *(times if time_symbols else [times[0], times[-1]]), SOP]
    _check_symbols(symbols)
    return symbols


def _check_symbols(symbols: Sequence[str]) -> None:
    seen: set[str] = set()
    for symbol in symbols:
        if not SYMBOL.fullmatch(symbol):
            raise BbpeError(
                f"special symbol {symbol!r} is malformed: accepted is '<name>' with a name of "
                "ASCII letters, digits and _ . + : | / -"
            )
        if symbol in RESERVED:
            raise BbpeError(
                f"special symbol {symbol!r} is reserved: the token list always holds "
                f"{', '.join(RESERVED)}; leave it out"
            )
        if symbol in seen:
            raise BbpeError(f"special symbol {symbol!r} is given twice; give each once")
        seen.add(symbol)


# ---------------------------------------------------------------------------- model


@lru_cache(maxsize=1)
def _rules() -> tuple[str, str, str]:
    """Rules character to letters, rules letters to character (TSV), and every letter alone.

    Covers every assigned code point (private use included) of the running Python's Unicode.
    NUL, which a rule cannot hold, is folded by ``normalize_text``. The third value spells each
    letter that occurs once, alone, so that each has a piece and no merge comes from it.
    """
    to_letters, to_char = [], []
    used: set[int] = set()
    for point in (*range(1, 0x20), *range(0x7F, 0x110000)):
        char = chr(point)
        if unicodedata.category(char) in ("Cn", "Cs"):
            continue
        if _is_space(char):
            to_letters.append(f"{point:X}\t20")
            continue
        utf8 = char.encode("utf-8")
        letters = " ".join(f"{LETTERS + byte:X}" for byte in utf8)
        to_letters.append(f"{point:X}\t{letters}")
        to_char.append(f"{letters}\t{point:X}")
        used.update(utf8)
    to_letters += [f"{LONE + byte:X}\t{LETTERS + byte:X}" for byte in sorted(used)]
    alone = ASCII + "".join(chr(LONE + byte) for byte in sorted(used))
    return "\n".join(to_letters) + "\n", "\n".join(to_char) + "\n", alone


def minimum_size(special_symbols: Sequence[str]) -> int:
    """The smallest vocabulary: reserved and special symbols, every letter, the word start."""
    return len(RESERVED) + len(special_symbols) + len(_rules()[2]) + 1


def train(
    texts: Iterable[str],
    *,
    model_prefix: str | Path,
    vocab_size: int,
    special_symbols: Sequence[str],
    model_type: str = "bpe",
    max_lines: int = 5_000_000,
) -> Path:
    """Train a model; the same texts give the same bytes.

    Args:
        texts: Lines of training text, without prompts; normalised here.
        model_prefix: ``<model_prefix>.model`` is written, whole or not at all.
        vocab_size: Length of ESPnet's token list, that is of ``token_list(model)``.
        special_symbols: Symbols that are never split, in the order of their ids.
        model_type: ``bpe`` or ``unigram``.
        max_lines: Of more lines, a seeded sample of this size is used.

    Returns:
        The path of the model.

    Raises:
        BbpeError: No text, an unassigned code point, a malformed special symbol, or a vocabulary
            size too small or too large (the message gives the size that is possible).
    """
    if model_type not in MODEL_TYPES:
        raise BbpeError(f"model_type {model_type!r}: accepted is {' or '.join(MODEL_TYPES)}")
    _check_symbols(special_symbols)
    smallest = minimum_size(special_symbols)
    if vocab_size < smallest:
        raise BbpeError(
            f"vocab_size {vocab_size} is too small: {len(RESERVED)} reserved and "
            f"{len(special_symbols)} special symbols and {smallest - len(special_symbols) - 4} "
            f"byte letters need at least {smallest}"
        )
    lines = _sample(texts, max_lines)
    if not lines:
        raise BbpeError("no training text: every line is empty")
    path = Path(f"{model_prefix}.model")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(_train_sentencepiece(lines, vocab_size, special_symbols, model_type))
    os.replace(partial, path)
    return path


def _sample(texts: Iterable[str], max_lines: int) -> list[str]:
    """Normalised lines; of more than ``max_lines``, a reservoir sample with a fixed seed."""
    generator = random.Random(1)
    lines: list[str] = []
    for count, line in enumerate(filter(None, map(normalize_text, texts))):
        if len(lines) < max_lines:
            lines.append(line)
        elif (place := generator.randrange(count + 1)) < max_lines:
            lines[place] = line
    return lines


def _train_sentencepiece(
    lines: list[str], vocab_size: int, symbols: Sequence[str], model_type: str
) -> bytes:
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    to_letters, to_char, alone = _rules()
    own_pieces = vocab_size - len(RESERVED) + 1  # sentencepiece has <unk> of the reserved ones
    seam = symbols[0] if symbols else " "  # no merge reaches over a special symbol
    buffer = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder, "to_letters.tsv"), Path(folder, "to_char.tsv")
        rules[0].write_text(to_letters, encoding="ascii")
        rules[1].write_text(to_char, encoding="ascii")
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter([*lines, seam + seam.join(alone)]),
                model_writer=buffer,
                model_type=model_type,
                vocab_size=own_pieces,
                character_coverage=1.0,
                normalization_rule_tsv=str(rules[0]),
                denormalization_rule_tsv=str(rules[1]),
                user_defined_symbols=list(symbols),
                split_by_unicode_script=False,  # letters belong to another script than ASCII
                max_sentencepiece_length=MAX_PIECE,
                max_sentence_length=MAX_LINE,
                unk_id=0,
                bos_id=-1,  # ESPnet adds its own <sos> and <eos>
                eos_id=-1,
                num_threads=THREADS,
                minloglevel=2,
            )
        except RuntimeError as error:
            largest = re.search(r"too high .*<= (\d+)", str(error))
            if not largest:
                raise
            size = int(largest[1]) + vocab_size - own_pieces
            raise BbpeError(
                f"vocab_size {vocab_size} is too large for {len(lines)} lines of text: accepted "
                f"is at most {size}; lower it or add text"
            ) from error
    model = sentencepiece_model_pb2.ModelProto.FromString(buffer.getvalue())
    model.normalizer_spec.ClearField("normalization_rule_tsv")  # a temporary file's name
    model.denormalizer_spec.ClearField("normalization_rule_tsv")
    return bytes(model.SerializeToString(deterministic=True))


def token_list(model_path: str | Path) -> list[str]:
    """ESPnet's token list of a model: ``<blank>``, ``<unk>``, pieces by id, ``<sos>``, ``<eos>``.

    Raises:
        BbpeError: The file is missing or is not a sentencepiece model.
    """
    model = _load(model_path)
    ids = range(model.get_piece_size())
    pieces = [model.id_to_piece(i) for i in ids if not (model.is_unknown(i) or model.is_control(i))]
    return [BLANK, UNK, *pieces, SOS, EOS]


def unknown_characters(model_path: str | Path, texts: Iterable[str]) -> list[str]:
    """The characters of ``texts`` that a model cannot spell, sorted.

    Empty for text that ``normalize_text`` accepts, unless the model was trained under an older
    Unicode version (an older Python) or is not one of ours.
    """
    model = _load(model_path)
    unknown = model.unk_id()
    characters = sorted(set().union(*texts) - {"\0"})
    return [char for char in characters if unknown in model.encode(char)]


def _load(model_path: str | Path):  # type: ignore[no-untyped-def]  # sentencepiece has no types
    import sentencepiece

    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(model_path))
    except (OSError, RuntimeError) as error:
        raise BbpeError(f"{model_path}: not a readable sentencepiece model ({error})") from error
