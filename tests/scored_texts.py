"""Sentences to score, and the recipe's programs loaded as modules."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

LOCAL = Path(__file__).parents[1] / "egs2" / "smoe_asr_st" / "s2t1" / "local"
SENTENCE = "el perro come una manzana roja y la casa es grande no sé qué hora"
WORDS = SENTENCE.split()


def load_stage(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"stage_{name}", LOCAL / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


stage13 = load_stage("score")


def sentences(n: int, seed: int, *, low: int = 1, high: int = 9) -> dict[str, str]:
    rng = random.Random(seed)
    return {f"u{i:03}": " ".join(rng.choices(WORDS, k=rng.randint(low, high))) for i in range(n)}


def corrupted(texts: dict[str, str], seed: int, share: float = 0.2) -> dict[str, str]:
    rng = random.Random(seed)
    noisy = {}
    for utt, text in texts.items():
        words = [rng.choice(WORDS) if rng.random() < share else w for w in text.split()]
        noisy[utt] = " ".join(words[: rng.randint(0, len(words))] if rng.random() < 0.1 else words)
    return noisy


REF = sentences(80, 0)
REF2 = corrupted(REF, 5, share=0.3)
REF2 = {utt: text or REF[utt] for utt, text in REF2.items()}
HYP = corrupted(REF, 1)
