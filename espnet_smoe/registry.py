"""Makes ESPnet's S2T task know the names of this package.

The only file that touches ESPnet's task classes.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import wrapt
from espnet2.train import dataset, iterable_dataset

from espnet_smoe import audio_reader
from espnet_smoe.bandwidth_embedding import (
    BandwidthEmbeddingConformerEncoder,
    BandwidthEmbeddingTransformerEncoder,
)
from espnet_smoe.batching import build_plan_iter_factory
from espnet_smoe.compat import CTCPrefixScorer
from espnet_smoe.ctc_scorer import follow_prompts
from espnet_smoe.decoder import SMoETransformerDecoder
from espnet_smoe.encoder import (
    SMoEConformerEncoder,
    SMoEEBranchformerEncoder,
    SMoETransformerEncoder,
)
from espnet_smoe.learned_moe import (
    LearnedMoEConformerEncoder,
    LearnedMoETransformerDecoder,
    LearnedMoETransformerEncoder,
)
from espnet_smoe.model import SMoES2TModel
from espnet_smoe.preprocessor import SMoEPreprocessor
from espnet_smoe.random_routing import RandomS2TModel, RandomTransformerDecoder

if TYPE_CHECKING:
    from espnet2.tasks.abs_task import IteratorOptions

ENCODERS = {
    "smoe_conformer": SMoEConformerEncoder,
    "smoe_transformer": SMoETransformerEncoder,
    "smoe_e_branchformer": SMoEEBranchformerEncoder,
}
DECODERS = {"smoe_transformer": SMoETransformerDecoder}
MODELS = {"smoe": SMoES2TModel}
# What S-MoE is compared with.
BASELINE_ENCODERS = {
    "learned_moe_conformer": LearnedMoEConformerEncoder,
    "learned_moe_transformer": LearnedMoETransformerEncoder,
    "bandwidth_embedding_conformer": BandwidthEmbeddingConformerEncoder,
    "bandwidth_embedding_transformer": BandwidthEmbeddingTransformerEncoder,
}
BASELINE_DECODERS = {
    "learned_moe_transformer": LearnedMoETransformerDecoder,
    "smoe_transformer_random": RandomTransformerDecoder,
}
BASELINE_MODELS = {"smoe_random": RandomS2TModel}
PREPROCESSORS = {"smoe": SMoEPreprocessor}
DATA_NAMES = ("bandwidth",)


def register() -> None:
    """Add the classes, the data name and ``iterator_type: task`` to `S2TTask`; idempotent.

    The data type ``audio`` goes to all of ESPnet's tasks, for training and for inference.

    Also has ESPnet score CTC behind the prompt (`espnet_smoe.ctc_scorer`) for ``model: smoe``.
    """
    # Here, not above: the import itself calls this function through the package's hook.
    from espnet2.tasks import s2t

    for choices, classes in (
        (s2t.encoder_choices, ENCODERS | BASELINE_ENCODERS),
        (s2t.decoder_choices, DECODERS | BASELINE_DECODERS),
        (s2t.model_choices, MODELS | BASELINE_MODELS),
        (s2t.preprocessor_choices, PREPROCESSORS),
    ):
        choices.classes.update(classes)
    loader = {
        "func": audio_reader.AudioReader,
        "kwargs": ["float_dtype"],
        "help": audio_reader.HELP,
    }
    dataset.DATA_TYPES[audio_reader.DATA_TYPE] = loader
    iterable_dataset.DATA_TYPES[audio_reader.DATA_TYPE] = audio_reader.read_value
    task: Any = s2t.S2TTask
    if getattr(task, "knows_smoe", False):
        return
    stock_names = task.optional_data_names.__func__

    def optional_data_names(
        cls: Any, train: bool = True, inference: bool = False
    ) -> tuple[str, ...]:
        """ESPnet's optional data names and ours."""
        return (*stock_names(cls, train, inference), *DATA_NAMES)

    def build_task_iter_factory(
        cls: Any, args: argparse.Namespace, iter_options: IteratorOptions, mode: str
    ) -> Any:
        """``iterator_type: task``: follow the batch plan beside the data."""
        return build_plan_iter_factory(cls, args, iter_options, mode)

    task.optional_data_names = classmethod(optional_data_names)
    task.build_task_iter_factory = classmethod(build_task_iter_factory)
    wrapt.wrap_function_wrapper(CTCPrefixScorer, "__init__", _then_follow_prompts)
    task.knows_smoe = True


def _then_follow_prompts(build: Any, scorer: Any, args: Any, options: Any) -> None:
    """`CTCPrefixScorer.__init__`, and then what `follow_prompts` does."""
    build(*args, **options)
    follow_prompts(scorer)
