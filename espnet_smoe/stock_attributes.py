"""The attributes of ESPnet's ``Speech2Text`` that programs written for it read and set."""

from __future__ import annotations

import dataclasses
from typing import Any

from espnet2.text.token_id_converter import TokenIDConverter

from espnet_smoe.inference_options import Options


def _option(name: str) -> Any:
    """A property that stands for an option; setting it checks the value."""

    def read(self: StockAttributes) -> Any:
        return getattr(self.options, name)

    def write(self: StockAttributes, value: Any) -> None:
        self.options = dataclasses.replace(self.options, **{name: value})

    return property(read, write, doc=f"The option `{name}`.")


class StockAttributes:
    """ESPnet's attributes in terms of `options`.

    Attributes:
        options: The options, used by calls from now on.
        s2t_model: The model.
    """

    options: Options
    s2t_model: Any

    maxlenratio = _option("maxlenratio")
    minlenratio = _option("minlenratio")
    nbest = _option("nbest")
    lang_sym = _option("lang_sym")
    task_sym = _option("task_sym")
    predict_time = _option("predict_time")
    beam_size = _option("beam_size")  # in ESPnet an attribute of `beam_search`

    @property
    def beam_search(self) -> StockAttributes:
        """What has ESPnet's ``beam_search.beam_size``: this object."""
        return self

    @property
    def device(self) -> str:
        """Where the model is; set once, in the constructor."""
        return self.options.device

    @property
    def dtype(self) -> str:
        """The model's precision; set once, in the constructor."""
        return self.options.dtype

    @property
    def partial_ar(self) -> bool:
        """False: this search has no partially autoregressive mode."""
        return False

    @property
    def converter(self) -> TokenIDConverter:
        """Tokens to ids and back."""
        return TokenIDConverter(token_list=list(self.s2t_model.token_list))
