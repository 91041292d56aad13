"""Where ESPnet's classes are: after 202511, `espnet.nets` moved to `espnet2.legacy.nets`."""

from __future__ import annotations

from importlib import import_module

try:
    import_module("espnet2.legacy.nets")
except ModuleNotFoundError:
    NETS = "espnet.nets"
else:
    NETS = "espnet2.legacy.nets"

CTCPrefixScorer = import_module(f"{NETS}.scorers.ctc").CTCPrefixScorer
CTCPrefixScore = import_module(f"{NETS}.ctc_prefix_score").CTCPrefixScore
CTCPrefixScoreTH = import_module(f"{NETS}.ctc_prefix_score").CTCPrefixScoreTH

_transformer = f"{NETS}.pytorch_backend.transformer"
MultiHeadedAttention = import_module(f"{_transformer}.attention").MultiHeadedAttention
DecoderLayer = import_module(f"{_transformer}.decoder_layer").DecoderLayer
PositionwiseFeedForward = import_module(
    f"{_transformer}.positionwise_feed_forward"
).PositionwiseFeedForward
PositionalEncoding = import_module(f"{_transformer}.embedding").PositionalEncoding
ScaledPositionalEncoding = import_module(f"{_transformer}.embedding").ScaledPositionalEncoding
SearchHypothesis = import_module(f"{NETS}.beam_search").Hypothesis
TooShortUttError = import_module(f"{_transformer}.subsampling").TooShortUttError
check_short_utt = import_module(f"{_transformer}.subsampling").check_short_utt
