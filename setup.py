"""Package metadata of espnet-smoe."""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = re.search(r'__version__ = "(.+)"', (here / "espnet_smoe/__init__.py").read_text())

DASK = ["dask", "distributed", "dask-jobqueue"]  # stages 2, 3 and 7 on several machines
ONNX = ["onnx", "onnxscript"]  # writes models as ONNX

setup(
    name="espnet-smoe",
    version=version.group(1),
    description="Supervised Mixture of Experts for multi-task speech-to-text in ESPnet",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.13",
    packages=find_packages(include=["espnet_smoe", "espnet_smoe.*"]),
    package_data={"espnet_smoe": ["py.typed"]},
    install_requires=[
        "espnet==202511",
        "torch>=2.9",
        "torchaudio>=2.9",  # ESPnet imports it and does not declare it
        "numpy",
        "scipy",  # its FFT is several times as fast as NumPy's in single precision
        "pyyaml",
        "sentencepiece",
        "kaldiio",
        "soundfile",
        "soxr",  # resampling
        "silero-vad>=6.2",  # voice activity, its network in the wheel: where recordings are cut
        "onnxruntime",  # runs it: without PyTorch, 7 times as fast as its TorchScript
        "jiwer",  # WER, CER
        "safetensors",  # weights that hold nothing else
        "sacrebleu",  # BLEU, chrF
        "wrapt>=1.14",  # the post-import hook
        "rich",  # tables in the terminal
        "tqdm",  # progress
        "typeguard",  # checks ESPnet's arguments; its error is caught
        "matplotlib",  # training curves, score matrix
    ],
    extras_require={
        "mini": ["espeakng-loader"],  # speaks the built-in corpus; bundles libespeak-ng
        "dask": DASK,
        "onnx": ONNX,
        "test": [
            *DASK,
            *ONNX,
            "espeakng-loader",
            "pytest",
            "pytest-xdist",
            "hypothesis",
            "ruff",
            "mypy",
            "types-PyYAML",
            "types-tqdm",
        ],
    },
    entry_points={"console_scripts": ["espnet-smoe=espnet_smoe.cli:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Topic :: Multimedia :: Sound/Audio :: Speech",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
