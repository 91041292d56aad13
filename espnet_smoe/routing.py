"""The routing table: which tag or guiding token goes to which expert.

Nothing here is learned. A tag (the utterance's bandwidth) or a guiding token (the task
token in the decoder's prompt) names an expert, and a table look-up finds it: this is
G'(x) of Eqs. 2 and 3, arXiv:2508.10009. Every routing error of the package is raised here
or as a `RoutingError`. On the encoder's side a tag may also be shares of several experts, which the
paper does not have (`espnet_smoe.blends`).

Shape letters: B utterances, T tokens.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch

from espnet_smoe.blends import BLEND, Blend, blends_of, checked_shares

SPECIAL = re.compile(r"<[^<>\s]+>")
TIMESTAMP = re.compile(r"<\d+\.\d+>")
PROMPT_END = "<notimestamps>"
SOS = "<sos>"
# In ESPnet's token list but never part of a prompt.
RESERVED = frozenset({"<blank>", "<unk>", SOS, "<eos>", "<sop>", "<na>"})
EXPERT_NAME = re.compile(r"[A-Za-z0-9_]+")


class RoutingError(ValueError):
    """A tag or guiding token has no, or no single, expert.

    Attributes:
        row: The position in the batch that the error is about, if it is about one; the model
            turns it into an utterance id.
    """

    def __init__(self, message: str, *, row: int | None = None) -> None:
        super().__init__(message)
        self.row = row


def check_expert_names(names: Iterable[str], *, option: str) -> tuple[str, ...]:
    """Check the names of a bank's experts.

    Args:
        names: One name per expert.
        option: The user's option that they come from, for the message.

    Raises:
        RoutingError: No name, a repeated one, or one that cannot be part of a parameter's name.
    """
    if isinstance(names, str):
        raise RoutingError(f"{option} is the string {names!r}; it takes a list of expert names")
    names = tuple(names)
    if not names:
        raise RoutingError(f"{option} is empty; it takes at least one expert name")
    for name in names:
        if not isinstance(name, str) or not EXPERT_NAME.fullmatch(name):
            raise RoutingError(
                f"{option}: {name!r} is no expert name; accepted: letters, digits and '_'"
            )
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise RoutingError(f"{option} names {', '.join(repeated)} more than once")
    return names


@dataclass(frozen=True)
class Route:
    """The experts of one batch, as each bank needs them.

    Attributes:
        names: The expert of each row, or ``blend``; length B.
        groups: ``(expert, rows)`` per expert that rows have to themselves; ``rows`` is an int64
            tensor, or None for all rows of the batch.
        inverse: Puts the concatenated groups, and behind them the rows that blend, back into the
            batch's order; None if they are.
        blends: The experts that the rows that blend share; empty if there are none.
    """

    names: tuple[str, ...]
    groups: tuple[tuple[str, torch.Tensor | None], ...]
    inverse: torch.Tensor | None
    blends: tuple[Blend, ...] = ()

    @classmethod
    def of(cls, tags: Sequence[str | Mapping[str, float]], device: torch.device) -> Route:
        """Group the rows of a batch by expert, once per entry to the encoder or decoder.

        Args:
            tags: Per row an expert, or the shares of several as `TagTable.route` gives them.
            device: The batch's.
        """
        rows: dict[str, list[int]] = {}
        mixed: dict[int, Mapping[str, float]] = {}
        for row, tag in enumerate(tags):
            if isinstance(tag, str):
                rows.setdefault(tag, []).append(row)
            else:
                mixed[row] = tag
        names = tuple(tag if isinstance(tag, str) else BLEND for tag in tags)
        if len(rows) == 1 and not mixed:
            return cls(names, ((next(iter(rows)), None),), None)
        order = [row for group in (*rows.values(), mixed) for row in group]
        inverse = None
        if order != sorted(order):
            inverse = torch.tensor(order).argsort().to(device)
        groups = tuple((name, torch.tensor(group, device=device)) for name, group in rows.items())
        return cls(names, groups, inverse, blends_of(mixed, device))


class TagTable:
    """Tags to experts, where the tag is the expert's own name (the encoder's side)."""

    def __init__(self, names: Sequence[str], *, option: str) -> None:
        self.names = check_expert_names(names, option=option)
        self.option = option
        if BLEND in self.names:
            raise RoutingError(
                f"{option} names an expert {BLEND!r}, which stands for several experts; choose "
                "another name"
            )

    def route(
        self, tags: Sequence[str | Mapping[str, float]] | torch.Tensor, *, origin: str
    ) -> tuple[str | dict[str, float], ...]:
        """Give the expert, or the shares of several, of each row.

        Args:
            tags: Per row an expert's name or ``{expert: share}`` with a sum of 1; or int64 (B,)
                positions in `names`.
            origin: Where the tags came from, for the message.

        Returns:
            Per row the name, or the normalised shares if more than one is above 0.

        Raises:
            RoutingError: A tag has no expert, or shares that are none or do not sum to 1.
        """
        if isinstance(tags, torch.Tensor):
            if tags.dim() != 1 or tags.is_floating_point():
                raise RoutingError(
                    f"a route is an int64 tensor of shape (B,), not {tags.dtype} of shape "
                    f"{tuple(tags.shape)} ({origin})"
                )
            values: list[object] = list(tags.tolist())
        else:
            values = [tags] if isinstance(tags, (str, Mapping)) else list(tags)
        found: list[str | dict[str, float]] = []
        for row, value in enumerate(values):
            if isinstance(value, Mapping):
                try:
                    found.append(checked_shares(value, self.names))
                except ValueError as error:
                    raise RoutingError(f"{error}; it is row {row} of {origin}", row=row) from error
                continue
            name = value
            if isinstance(value, int) and 0 <= value < len(self.names):
                name = self.names[value]
            if name not in self.names:
                raise RoutingError(
                    f"tag {value!r} has no expert (known: {', '.join(self.names)}); it is row "
                    f"{row} of {origin}",
                    row=row,
                )
            found.append(str(name))
        return tuple(found)


def guiding_tokens(token_list: Sequence[str]) -> list[str]:
    """The special tokens that can pick an expert: no timestamps, and none that ends a prompt."""
    specials = [t for t in token_list if SPECIAL.fullmatch(t) and t not in RESERVED]
    return [t for t in specials if t != PROMPT_END and not TIMESTAMP.fullmatch(t)]


def matching(patterns: Sequence[str], token_list: Sequence[str]) -> list[str]:
    """The guiding tokens of a list that one of some patterns matches, in its order."""
    guides = guiding_tokens(token_list)
    return [t for t in guides if any(fnmatchcase(t, pattern) for pattern in patterns)]


class GuideTable:
    """Guiding tokens to experts (the decoder's side).

    Args:
        experts: ``{expert: patterns}``; a pattern is a special token or a shell pattern over
            special tokens, such as ``<st_*>``. The order of the mapping carries no meaning.
        default_expert: The expert of a prompt without a guiding token, if it has an end
            (``<notimestamps>``, a timestamp or an ordinary token); None: such a prompt is an error.
        option: The user's option that the table comes from, for the messages.
    """

    def __init__(
        self,
        experts: Mapping[str, Sequence[str]],
        *,
        default_expert: str | None = None,
        option: str = "decoder_conf.experts",
    ) -> None:
        if not isinstance(experts, Mapping):
            raise RoutingError(
                f"{option} is {experts!r}; it takes a mapping such as "
                "{asr: ['<asr>'], st: ['<st_*>']}"
            )
        self.names = tuple(sorted(check_expert_names(experts, option=option)))
        self.option = option
        self.patterns: dict[str, tuple[str, ...]] = {}
        for name in self.names:
            patterns = experts[name]
            if isinstance(patterns, str) or not patterns:
                raise RoutingError(
                    f"{option}.{name} is {patterns!r}; it takes a list of token patterns"
                )
            for pattern in patterns:
                if not re.fullmatch(r"<\S+>", str(pattern)):
                    raise RoutingError(
                        f"{option}.{name}: {pattern!r} can match no special token; special "
                        "tokens look like <asr>"
                    )
            self.patterns[name] = tuple(patterns)
        if default_expert is not None and default_expert not in self.names:
            raise RoutingError(
                f"default_expert {default_expert!r} is no expert (known: {', '.join(self.names)})"
            )
        self.default_expert = default_expert
        self._bound = False

    def bind(self, token_list: Sequence[str]) -> None:
        """Find the ids of the guiding tokens.

        Raises:
            RoutingError: An expert whose patterns match no token, or a token that two experts
                claim.
        """
        specials = [t for t in token_list if SPECIAL.fullmatch(t) and t not in RESERVED]
        guides = guiding_tokens(token_list)
        self._tokens = tuple(token_list)
        self._expert_of: dict[int, str] = {}
        for token_id, token in enumerate(token_list):
            if token not in guides:
                continue
            claims = [name for name, ps in self.patterns.items() if matching(ps, [token])]
            if len(claims) > 1:
                raise RoutingError(
                    f"token {token!r} is ambiguous: {self.option} gives it to "
                    f"{' and '.join(claims)}; make their patterns disjoint"
                )
            if claims:
                self._expert_of[token_id] = claims[0]
        for name, patterns in self.patterns.items():
            if name not in self._expert_of.values():
                raise RoutingError(
                    f"{self.option}.{name}: {', '.join(map(repr, patterns))} match no token of "
                    f"the token list (its special tokens: {', '.join(guides) or 'none'})"
                )
        if SOS not in token_list:
            raise RoutingError(f"the token list has no {SOS}; a prompt starts after it")
        self._sos = list(token_list).index(SOS)
        index = {token: i for i, token in enumerate(token_list)}
        self._special_ids = frozenset(index[t] for t in specials)
        self._end_ids = frozenset(index[t] for t in specials if t not in guides)
        self._bound = True

    @property
    def guides(self) -> dict[str, str]:
        """The expert of each guiding token; `bind` comes first."""
        return {self._tokens[token_id]: name for token_id, name in self._expert_of.items()}

    def tokens_of(self, expert: str) -> tuple[str, ...]:
        """The guiding tokens that an expert serves, in the list's order; none before `bind`."""
        return tuple(token for token, name in self.guides.items() if name == expert)

    def remapped(self, experts: Mapping[str, str]) -> GuideTable:
        """A copy whose tokens go to other experts; `bind` comes first.

        Args:
            experts: ``{expert: the one that serves its tokens instead}``; the others stay.

        Raises:
            RoutingError: A name that is no expert, or `bind` was not called.
        """
        unknown = sorted({*experts, *experts.values()} - set(self.names))
        if unknown:
            raise RoutingError(
                f"{', '.join(unknown)} is no expert of {self.option} (known: "
                f"{', '.join(self.names)})"
            )
        if not self._bound:
            raise RoutingError("the table knows no tokens: call bind(token_list) first")
        other = copy.copy(self)
        other._expert_of = {token: experts.get(n, n) for token, n in self._expert_of.items()}
        if self.default_expert is not None:
            other.default_expert = experts.get(self.default_expert, self.default_expert)
        return other

    def route(
        self, tokens: torch.Tensor, *, origin: str = "text", whole_prompt: bool = True
    ) -> tuple[str, ...]:
        """Read the expert of each row from its prompt.

        The prompt is what follows the *first* ``<sos>``: special tokens up to
        ``<notimestamps>``, a timestamp or the first ordinary token. Nothing after it and nothing
        before it (``text_prev``) is ever read, so a hypothesis cannot change its expert.

        Args:
            tokens: Token ids, int64 (B, T).
            origin: Where they came from, for the message.
            whole_prompt: Check the prompt to its end for contradictions. False reads up to the
                first guiding token only: for later decoding steps, where special tokens that
                the search tries right behind an open prompt are no part of it.

        Raises:
            RoutingError: `bind` was not called, or a prompt without ``<sos>``, without a guiding
                token (and without an end, where `default_expert` would serve it), or with guiding
                tokens of two experts.
        """
        if not self._bound:
            raise RoutingError(
                "the decoder does not know the token list: call bind_tokens(token_list) first, "
                "or set 'model: smoe', which does"
            )
        return tuple(
            self._route_row(row, ids, origin, whole_prompt)
            for row, ids in enumerate(tokens.tolist())
        )

    def _route_row(self, row: int, ids: list[int], origin: str, whole_prompt: bool) -> str:
        if self._sos not in ids:
            raise RoutingError(f"row {row} of {origin} holds no {SOS}", row=row)
        expert, guide, prompt, ended = None, -1, [], False
        for position, token_id in enumerate(ids[ids.index(self._sos) + 1 :], 1):
            if token_id not in self._special_ids or token_id in self._end_ids:
                ended = True
                break
            prompt.append(self._tokens[token_id])
            claim = self._expert_of.get(token_id)
            if claim is None:
                continue
            if expert is not None and claim != expert:
                raise RoutingError(
                    f"prompt {''.join(prompt)} is contradictory: {self._tokens[guide]!r} goes to "
                    f"expert {expert}, {self._tokens[token_id]!r} (token {position}) to {claim}; "
                    f"it is row {row} of {origin}",
                    row=row,
                )
            expert, guide = claim, token_id
            if not whole_prompt:
                break
        if expert is None and self.default_expert is not None:
            if not ended:  # the search could append a guiding token, and so change the expert
                raise RoutingError(
                    f"prompt {''.join(prompt) or '(empty)'} has no guiding token and no end: "
                    f"default_expert serves prompts that end, with {PROMPT_END} say; it is row "
                    f"{row} of {origin}",
                    row=row,
                )
            expert = self.default_expert
        if expert is None:
            known = ", ".join(p for patterns in self.patterns.values() for p in patterns)
            raise RoutingError(
                f"prompt {''.join(prompt) or '(empty)'} has no guiding token that an expert serves "
                f"(known: {known}); it is row {row} of {origin}; set decoder_conf.default_expert "
                "to accept such prompts",
                row=row,
            )
        return expert
