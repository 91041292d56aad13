"""New special tokens in a trained model's token list, each initialised from an old token.

Every old token keeps its order, and its id unless it ends the list: new tokens stand before the
closing ``<sop> <sos> <eos>``, where the recipe's stage 5 puts a piece that is added behind the
others. ESPnet's S2T task looks all of those up by name, and the timestamps, of which it takes the
ids to be contiguous, lie before. A prompt is looked up in the token list when a model decodes, but
goes through the BPE model when it trains: that has to know a new token too, or would split it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from espnet_smoe import bbpe
from espnet_smoe.checkpoints import ModelError
from espnet_smoe.routing import TIMESTAMP

CLOSING = frozenset({bbpe.SOP, bbpe.SOS, bbpe.EOS})
# The tensors with a row for each token, of ESPnet's S2T model with a transformer decoder.
VOCABULARY_TENSORS = (
    "decoder.embed.0.weight",
    "decoder.output_layer.weight",
    "decoder.output_layer.bias",
    "ctc.ctc_lo.weight",
    "ctc.ctc_lo.bias",
)


@dataclass(frozen=True)
class TokenPlan:
    """A token list with new tokens in it.

    Attributes:
        token_list: Old and new tokens, by new id.
        source_row_of_each: Per new id, the old id whose row of every vocabulary tensor it takes.
        new: The new tokens, in their order.
    """

    token_list: tuple[str, ...]
    source_row_of_each: tuple[int, ...]
    new: tuple[str, ...]

    @property
    def old_size(self) -> int:
        """Number of tokens of the old list."""
        return len(self.token_list) - len(self.new)

    @property
    def new_ids(self) -> tuple[int, ...]:
        """The ids of the new tokens."""
        first = self.token_list.index(self.new[0]) if self.new else 0
        return tuple(range(first, first + len(self.new)))


def parse_new_tokens(options: Iterable[str]) -> dict[str, str]:
    """``['<st_deu>=<st_eng>']`` as ``{new token: the token that it is initialised from}``.

    Raises:
        ModelError: An option has no ``=``, or names a token twice.
    """
    new: dict[str, str] = {}
    for option in options:
        token, equals, source = option.partition("=")
        if not (token and equals and source):
            raise ModelError(
                f"new token {option!r}: accepted is '<new>=<old>', such as '<st_deu>=<st_eng>'"
            )
        if token in new:
            raise ModelError(f"new token {token!r} is given twice; give each once")
        new[token] = source
    return new


def extend_tokens(token_list: Sequence[str], new: Mapping[str, str]) -> TokenPlan:
    """Put new special tokens into a token list.

    Args:
        token_list: The model's.
        new: ``{new token: the old token that it is initialised from}``, in the order of their ids.

    Raises:
        ModelError: A new token exists already, is no special token (``<...>``), or is a timestamp;
            or its source is no token of the list.
    """
    known = set(token_list)
    for token, source in new.items():
        if not bbpe.SYMBOL.fullmatch(token):
            raise ModelError(
                f"new token {token!r} is no special token: accepted is '<name>' with a name of "
                "ASCII letters, digits and _ . + : | / -"
            )
        if TIMESTAMP.fullmatch(token):
            raise ModelError(
                f"new token {token!r} is a timestamp: the model's are contiguous, and cannot grow"
            )
        if token in known:
            raise ModelError(f"new token {token!r} is in the token list already")
        if source not in known:
            raise ModelError(
                f"new token {token!r} is to be initialised from {source!r}, which is no token of "
                "the model"
            )
    place = len(token_list)
    while place and token_list[place - 1] in CLOSING:
        place -= 1
    ids = {token: i for i, token in enumerate(token_list)}
    rows = [*range(place), *(ids[source] for source in new.values())]
    rows += range(place, len(token_list))
    tokens = (*token_list[:place], *new, *token_list[place:])
    return TokenPlan(tokens, tuple(rows), tuple(new))


def vocabulary_tensors(names: Iterable[str]) -> tuple[str, ...]:
    """Those of a model's tensors that have a row for each token: without CTC, not all of them."""
    names = set(names)
    return tuple(name for name in VOCABULARY_TENSORS if name in names)


def extend_rows(
    weights: Mapping[str, torch.Tensor], names_of_vocab_tensors: Iterable[str], plan: TokenPlan
) -> dict[str, torch.Tensor]:
    """Give the vocabulary tensors a row for each token of a plan.

    A new token's row is its source's, in embedding, output layer and CTC, so that it scores and is
    heard as its source is until it is trained; the logits of old tokens stay as they are.

    Args:
        weights: By name; are not changed.
        names_of_vocab_tensors: Names of tensors (V, ...) with V old tokens (`vocabulary_tensors`).
        plan: The new list.

    Returns:
        All of `weights`; those tensors new, the others the same objects.

    Raises:
        ModelError: A tensor is missing, or has another number of rows than there were tokens.
    """
    extended = dict(weights)
    rows = torch.tensor(plan.source_row_of_each)
    for name in names_of_vocab_tensors:
        if name not in extended:
            raise ModelError(f"the weights have no {name}, which should have a row for each token")
        old = extended[name]
        if old.dim() == 0 or old.shape[0] != plan.old_size:
            raise ModelError(
                f"{name} is of shape {tuple(old.shape)}; expected is a row for each of "
                f"{plan.old_size} tokens"
            )
        extended[name] = old.index_select(0, rows.to(old.device))
    return extended


def extend_bpe(source: str | Path, new: Sequence[str], target: str | Path) -> None:
    """Write a sentencepiece model that never splits some new tokens; else it is the old one.

    The pieces are added behind the old ones, whose ids stay.

    Args:
        source: The model's file.
        new: Special tokens.
        target: The file to write.

    Raises:
        ModelError: The model cannot be read or written, or has such a piece that is an ordinary
            one.
    """
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    try:
        model = sentencepiece_model_pb2.ModelProto.FromString(Path(source).read_bytes())
    except (OSError, DecodeError) as error:
        raise ModelError(f"BPE model {str(source)!r} cannot be read: {error}") from error
    kinds = {piece.piece: piece.type for piece in model.pieces}
    user_defined = model.SentencePiece.Type.USER_DEFINED
    for token in new:
        kind = kinds.get(token)
        if kind == user_defined:
            continue
        if kind is not None:
            raise ModelError(
                f"BPE model {str(source)!r} has a piece {token!r} that it makes of ordinary text; "
                "choose another name for the new token"
            )
        model.pieces.add(piece=token, score=0.0, type=user_defined)
        model.trainer_spec.user_defined_symbols.append(token)
    model.trainer_spec.vocab_size = len(model.pieces)
    try:
        Path(target).write_bytes(model.SerializeToString(deterministic=True))
    except OSError as error:
        raise ModelError(f"BPE model {str(target)!r} cannot be written: {error}") from error
