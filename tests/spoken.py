"""Sentences that espeak-ng speaks, for tests that need real words."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

LOCAL = Path(__file__).resolve().parents[1] / "egs2" / "smoe_asr_st" / "s2t1" / "local"
SENTENCES = [
    "buenos días señora quiero hablar con usted de la cuenta",
    "mañana por la tarde salimos de viaje a la costa",
    "el precio de la casa es muy alto para nosotros",
    "no sé si puedo llegar antes de las ocho",
    "sus zapatos están cerca de la puerta azul",
    "la semana que viene empezamos con las clases",
    "cinco personas esperan en la estación",
    "hace mucho calor en esta ciudad",
    "gracias por su paciencia y hasta luego",
    "dígame su número de teléfono por favor",
]


def sentences() -> list[np.ndarray]:
    """Each sentence, float32 (N,) at 16 kHz, without silence around it."""
    if str(LOCAL) not in sys.path:
        sys.path.append(str(LOCAL))
    speech: Any = importlib.import_module("mini_speech")
    speaker = speech.Speaker()
    native = [speaker.speak(text, "es", pitch=30 + 4 * i) for i, text in enumerate(SENTENCES)]
    return [speech.trim(speech.to_16k(x)) / np.float32(32768) for x in native]
