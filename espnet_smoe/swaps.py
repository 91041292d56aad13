"""Force other experts of the decoder than the prompts name, for experiments with wrong routes.

The encoder needs nothing of the kind: its route is given per utterance (``bandwidth`` of
`espnet_smoe.Speech2Text`, `SMoES2TModel.route_override`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from espnet_smoe.decoder import SMoETransformerDecoder
from espnet_smoe.routing import RoutingError


def exchanged(names: Sequence[str]) -> dict[str, str]:
    """Each of two experts in the other's place.

    Raises:
        RoutingError: They are not two: which one is the other's is not known.
    """
    if len(names) != 2:
        raise RoutingError(
            f"{', '.join(names) or 'none'}: {len(names)} expert(s) cannot be exchanged; accepted: "
            "two"
        )
    first, second = names
    return {first: second, second: first}


@contextmanager
def guided_as(decoder: Any, experts: Mapping[str, str]) -> Iterator[None]:
    """Have other experts serve the decoder's prompts within the block; prompts stay as they are.

    No weight moves: the decoder reads another guiding table meanwhile, in training, in ESPnet's
    search and in this package's, and results name the experts that really ran. The table is put
    back when the block ends, also by an error.

    Args:
        decoder: One with experts.
        experts: ``{expert that the prompt names: the one that serves it}``; the others stay.

    Raises:
        RoutingError: The decoder has no experts, or a name that is none of them.
    """
    if not isinstance(decoder, SMoETransformerDecoder):
        raise RoutingError(
            f"the decoder ({type(decoder).__name__}) has no experts; accepted: smoe_transformer"
        )
    table = decoder.guide_table
    decoder.guide_table = table.remapped(experts)
    try:
        yield
    finally:
        decoder.guide_table = table
