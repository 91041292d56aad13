"""Languages, tasks and prompts of a model's token list, and tokens as text.

The token list is that of ESPnet's S2T task (OWSM): ``<blank> <unk> <na>``, languages and tasks,
``<notimestamps>``, timestamps, pieces, ``<sop> <sos> <eos>``.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from espnet_smoe import bbpe
from espnet_smoe.decoder import SMoETransformerDecoder
from espnet_smoe.routing import RESERVED, SPECIAL, TIMESTAMP

TASK = re.compile(r"<(asr|transcribe|translate|st_[^<>\s]+)>")
TRANSCRIBING = frozenset({"<asr>", "<transcribe>"})  # what CTC is trained on
DEFAULT_LANGUAGE = "<eng>"  # ESPnet's


class VocabularyError(ValueError):
    """A language, a task or a prompt that the model's token list does not have."""


def symbol_of(name: str) -> str:
    """``asr`` or ``<asr>`` as the token ``<asr>``."""
    return f"<{name.strip('<>')}>"


class Vocabulary:
    """A model's tokens.

    Args:
        token_list: The token of each id.
        tokenizer: ESPnet's, with ``tokens2text`` and ``text2tokens``; None: tokens are joined.
        preprocessor_conf: The training config's; ``notime_symbol`` counts here.
        tasks: Further tokens that are tasks, whatever their look (`served_tasks`).

    Attributes:
        languages: Such as ``<spa>``, in the token list's order.
        tasks: Such as ``<asr>`` and ``<st_eng>``.
    """

    def __init__(
        self,
        token_list: Sequence[str],
        tokenizer: Any = None,
        preprocessor_conf: Mapping[str, Any] | None = None,
        tasks: Collection[str] = (),
    ) -> None:
        self.token_list = list(token_list)
        self.tokenizer = tokenizer
        self.ids = {token: i for i, token in enumerate(self.token_list)}
        self.notime = (preprocessor_conf or {}).get("notime_symbol", bbpe.NO_TIME)
        named = [
            token
            for token in self.token_list
            if SPECIAL.fullmatch(token)
            and token not in (*RESERVED, self.notime)
            and not TIMESTAMP.fullmatch(token)
        ]
        self.tasks = tuple(token for token in named if token in tasks or TASK.fullmatch(token))
        self.languages = tuple(token for token in named if token not in self.tasks)
        self._special = frozenset(named) | RESERVED | {self.notime}
        # byte letters in the list: a hypothesis may spell broken UTF-8
        self._byte_level = chr(bbpe.LETTERS + 0x80) in self.ids

    def language(self, name: str | None) -> str:
        """The token of a language; of None the only one, or ESPnet's default ``<eng>``.

        Raises:
            VocabularyError: The model does not know it, or knows several and none was named.
        """
        if name is None:
            if len(self.languages) == 1:
                return self.languages[0]
            if DEFAULT_LANGUAGE in self.languages:
                return DEFAULT_LANGUAGE
            raise VocabularyError(
                f"no language is given, and the model knows {names_of(self.languages)}; name the "
                "one that is spoken (lang_sym)"
            )
        token = self._known(name, "language", self.languages)
        if token in self.tasks:
            raise VocabularyError(
                f"the language is {name!r}, which is a task; accepted: "
                f"{names_of(self.languages) or 'none'}"
            )
        return token

    def task(self, name: str) -> str:
        """The token of a task.

        Raises:
            VocabularyError: The model does not know it.
        """
        return self._known(name, "task", self.tasks)

    def _known(self, name: str, kind: str, known: Sequence[str]) -> str:
        token = symbol_of(name) if isinstance(name, str) else ""
        if token not in self._special or token in RESERVED or token == self.notime:
            raise VocabularyError(
                f"the model knows no {kind} {name!r}; accepted: {names_of(known) or 'none'}"
            )
        return token

    def prompt(
        self,
        language: str,
        task: str,
        *,
        predict_time: bool = False,
        text_prev: str | Sequence[int] | None = None,
    ) -> list[int]:
        """The token ids that a hypothesis starts with, as ESPnet's ``Speech2Text`` builds them.

        Args:
            language: A token of `languages`.
            task: A token of `tasks`.
            predict_time: Leave ``<notimestamps>`` out.
            text_prev: What was said before, as text or token ids; ``<na>`` in it means nothing.

        Raises:
            VocabularyError: `text_prev` is text, and the model has no tokenizer; or it holds what
                is no token id, or <sos>.
        """
        prompt = [self.ids[bbpe.SOS], self.ids[language], self.ids[task]]
        if not predict_time:
            if self.notime not in self.ids:
                raise VocabularyError(
                    f"the model's notime_symbol is {self.notime!r}, which its token list does not "
                    "have; accepted: predict_time=True"
                )
            prompt.append(self.ids[self.notime])
        if text_prev is None:
            return prompt
        before = self._said_before(text_prev)
        if self.ids.get(bbpe.NA) in before:
            return prompt
        return [self.ids[bbpe.SOP], *before, *prompt]

    def _said_before(self, text_prev: str | Sequence[int]) -> list[int]:
        """The token ids of what was said before."""
        if isinstance(text_prev, str):
            if self.tokenizer is None:
                raise VocabularyError("text_prev is text, but the model has no tokenizer; give ids")
            unknown = self.ids[bbpe.UNK]
            before = [self.ids.get(t, unknown) for t in self.tokenizer.text2tokens(text_prev)]
        else:
            try:
                before = [operator.index(token) for token in text_prev]
            except TypeError as error:
                raise VocabularyError(
                    f"text_prev is a {type(text_prev).__name__} that cannot be read ({error}); "
                    "accepted: a text, or token ids"
                ) from error
        sos = self.ids[bbpe.SOS]  # the prompt begins at the first
        for token in before:
            if not 0 <= token < len(self.token_list) or token == sos:
                raise VocabularyError(
                    f"text_prev holds token {token}; accepted: 0 to {len(self.token_list) - 1}, "
                    f"but not {sos} ({bbpe.SOS})"
                )
        return before

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """The tokens of ids, without ``<blank>``, as ESPnet's ``Speech2Text`` gives them."""
        return [self.token_list[i] for i in ids if self.token_list[i] != bbpe.BLANK]

    def text(self, tokens: Sequence[str], *, special: bool = False) -> str | None:
        """Tokens as text; None without a tokenizer, as in ESPnet.

        Args:
            tokens: As `tokens` gives them.
            special: Leave special tokens in (by ESPnet's rule: ``<...>``).
        """
        if self.tokenizer is None:
            return None
        if not special:
            tokens = [t for t in tokens if not (t[0] == "<" and t[-1] == ">")]
        return str(self.tokenizer.tokens2text(list(tokens)))

    def clean_text(self, tokens: Sequence[str]) -> str:
        """Tokens as valid text without special tokens; broken UTF-8 is repaired or dropped."""
        tokens = [t for t in tokens if t not in self._special and not TIMESTAMP.fullmatch(t)]
        if self._byte_level:
            return bbpe.decode(tokens)
        if self.tokenizer is None:
            return " ".join(tokens)
        return str(self.tokenizer.tokens2text(tokens)).strip()


def served_tasks(decoder: Any) -> tuple[str, ...]:
    """The tokens that a decoder's experts serve, if those are tasks; else none.

    They are tasks, all of them, where one looks like a task: ``<intent>`` beside ``<asr>``.
    """
    if not isinstance(decoder, SMoETransformerDecoder):
        return ()
    table = decoder.guide_table
    served = tuple(token for name in table.names for token in table.tokens_of(name))
    return served if any(TASK.fullmatch(token) for token in served) else ()


def names_of(symbols: Sequence[str]) -> str:
    """Tokens as a user writes them: ``asr, st_eng``."""
    return ", ".join(symbol.strip("<>") for symbol in symbols)
