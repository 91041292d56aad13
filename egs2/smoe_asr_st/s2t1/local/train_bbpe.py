#!/usr/bin/env python3
"""Stage 5: train the byte-level BPE model and write ESPnet's token list.

Reads `text` (prompt and target) and `text.ctc` (source transcript) of the training examples,
takes the languages and tasks from the prompts, and writes `<out>/bpe.model` and
`<out>/tokens.txt`. The directory appears whole or not at all.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from espnet_smoe import bbpe
from espnet_smoe.datadir import DataError, publish_dir, read_table, write_text

PROMPT = re.compile(r"((?:<[^<>\s]+>)+)(.*)", re.DOTALL)
TOKEN = re.compile(r"<[^<>\s]+>")
REPORTED = 20_000  # utterances that the report encodes


@dataclass
class Found:
    """What the training examples hold."""

    languages: set[str] = field(default_factory=set)
    tasks: set[str] = field(default_factory=set)
    extra: set[str] = field(default_factory=set)  # further prompt tokens
    timestamps: bool = False
    targets: dict[str, str] = field(default_factory=dict)  # target text without its prompt


def read_prompts(table: Mapping[str, str], path: Path) -> Found:
    """Split every `<language><task><notimestamps> target` into prompt and target.

    Raises:
        DataError: A line without such a prompt; names the utterance, the file and the line.
    """
    found = Found()
    for utt, line in table.items():
        match = PROMPT.fullmatch(line)
        prompt = TOKEN.findall(match[1]) if match else []
        times = [token for token in prompt if bbpe.TIME_SYMBOL.fullmatch(token)]
        if match is None or len(prompt) < 3 or not (times or bbpe.NO_TIME in prompt):
            raise DataError(
                f"{path}: utterance {utt!r}: {line!r} has no prompt; accepted is "
                f"'<language><task>{bbpe.NO_TIME} target' or '<language><task><0.00> target'"
            )
        found.languages.add(prompt[0])
        found.tasks.add(prompt[1])
        found.extra.update(set(prompt[2:]) - {bbpe.NO_TIME, *times})
        found.timestamps |= bool(bbpe.TIME_SYMBOL.search(line))
        found.targets[utt] = bbpe.TIME_SYMBOL.sub(" ", match[2])
    return found


def training_lines(found: Found, transcripts: Mapping[str, str]) -> list[str]:
    """Every target, and each source transcript that is no example's target, once."""
    targets = list(found.targets.values())
    known = {bbpe.NA, *map(str.strip, targets)}
    return targets + sorted({text.strip() for text in transcripts.values()} - known)


def report(model: Path, lines: Sequence[str], found: Found) -> str:
    """Coverage and lengths, measured with ESPnet's own call (`EncodeAsPieces`).

    Raises:
        BbpeError: The model cannot spell a character of the training text.
    """
    import sentencepiece

    unknown = bbpe.unknown_characters(model, lines)
    if unknown:
        named = ", ".join(f"U+{ord(char):04X}" for char in unknown[:5])
        raise bbpe.BbpeError(f"{model}: no pieces for {len(unknown)} character(s): {named}")
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    step = -(-len(found.targets) // REPORTED)
    targets = [bbpe.normalize_text(text) for text in list(found.targets.values())[::step]]
    pieces = [processor.EncodeAsPieces(text) for text in targets]
    tokens, used = sum(map(len, pieces)), set().union(*pieces)
    words = sum(len(text.split()) for text in targets)
    characters = len(set().union(*lines))
    return (
        f"{len(bbpe.token_list(model))} tokens; languages {' '.join(sorted(found.languages))}; "
        f"tasks {' '.join(sorted(found.tasks))}\n"
        f"coverage 100 % ({characters} different characters, no <unk>); "
        f"{tokens / max(len(targets), 1):.1f} tokens per utterance, "
        f"{tokens / max(words, 1):.2f} per word; "
        f"{len(used)} pieces in use ({len(targets)} utterances encoded)"
    )


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--train_dir", type=Path, required=True, help="dump/s2t/<train set>")
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    parser.add_argument("--vocab_size", type=int, required=True, help="lines of tokens.txt")
    parser.add_argument("--model_type", choices=bbpe.MODEL_TYPES, default="bpe")
    parser.add_argument("--special", nargs="*", default=[], help="further special symbols")
    parser.add_argument(
        "--timestamps",
        choices=("auto", "true", "false"),
        default="auto",
        help="a token for every timestamp; auto: if the training text has any",
    )
    parser.add_argument("--last_time", type=float, default=30.0, help="latest timestamp [s]")
    parser.add_argument("--resolution", type=float, default=0.02, help="timestamp step [s]")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    path = args.train_dir / "text"
    found = read_prompts(read_table(path), path)
    transcripts = args.train_dir / "text.ctc"
    lines = training_lines(found, read_table(transcripts) if transcripts.exists() else {})
    known = found.languages | found.tasks
    added = {name if name.startswith("<") else f"<{name}>" for name in args.special}
    symbols = bbpe.special_symbols(
        sorted(found.languages),
        sorted(found.tasks),
        extra=sorted((found.extra | added) - known),
        last_time=args.last_time,
        resolution=args.resolution,
        time_symbols=found.timestamps if args.timestamps == "auto" else args.timestamps == "true",
    )
    print(f"training a {args.model_type} model of {args.vocab_size} tokens on {len(lines)} lines")
    with publish_dir(args.out) as folder:
        model = bbpe.train(
            lines,
            model_prefix=folder / "bpe",
            vocab_size=args.vocab_size,
            special_symbols=symbols,
            model_type=args.model_type,
        )
        write_text(folder / "tokens.txt", "\n".join(bbpe.token_list(model)) + "\n")
        print(report(model, lines, found))
    print(f"wrote {args.out / 'bpe.model'} and {args.out / 'tokens.txt'}")


def main(argv: Sequence[str] | None = None) -> int:
    try:
        run(parse_args(argv))
    except ValueError as error:  # DataError and BbpeError speak to the user
        print(f"train_bbpe.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
