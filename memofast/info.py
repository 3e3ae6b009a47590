"""`python -m memofast.info`: what was built, what is available here, and how to get what is missing."""

import importlib.metadata
import json
import platform
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from memofast.cli import run
from memofast.cpu import bf16_units
from memofast.version import __version__

# distribution that shows the extra is there -> what it gives
_EXTRAS = {
    "face": ("opencv-python-headless", "face detection and alignment while preparing video"),
    "speech": ("silero-vad", "voice activity by a trained network while preparing"),
    "asr": ("faster-whisper", "sentences of media without text, by speech recognition"),
    "parquet": ("pyarrow", "features of models as Parquet files"),
    "onnx": ("onnxscript", "emotion models as ONNX files"),
    "ray": ("ray", "preparation on several machines"),
    "opensmile": ("opensmile", "ComParE speech features (licence: non-commercial research)"),
    "legacy": ("lz4", "reading the databases of the original system"),
    "lora": ("peft", "low-rank adapters in fine-tuning"),
    "test": ("pytest", "the test suite"),
}


@dataclass
class Fact:
    """One line of the report. `remedy` is set where something is missing, and says in one line how to get it."""

    section: str
    name: str
    value: str
    remedy: str = ""


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _built() -> list[Fact]:
    from memofast import _C

    cuda = f"{_C.cuda_version} for {_C.cuda_archs}" if _C.cuda_version else "no"
    remedy = "" if _C.cuda_version else "put nvcc 12.4 or newer on PATH and run `MEMOFAST_CUDA=1 pip install .`"
    return [
        Fact("built", "memofast", __version__),
        Fact("built", "compiler", _C.compiler),
        Fact("built", "sources", _C.source_digest),
        Fact("built", "CUDA kernels", cuda, remedy),
    ]


def _available() -> list[Fact]:
    import torch

    from memofast import _C

    facts = [
        Fact("available", "Python", platform.python_version()),
        Fact("available", "torch", torch.__version__),
        Fact("available", "CPU kernels", f"{_C.isa}, {torch.get_num_threads()} threads"),
        Fact("available", "CPU bf16 instructions", bf16_units() or "no"),
    ]
    if torch.cuda.is_available():
        capability = "{}.{}".format(*torch.cuda.get_device_capability())
        facts.append(Fact("available", "GPU", f"{torch.cuda.get_device_name()} (compute {capability})"))
    else:
        why = (
            "install the NVIDIA driver" if torch.version.cuda else "install a CUDA build of torch (https://pytorch.org)"
        )
        facts.append(Fact("available", "GPU", "no", f"{why}; everything also runs on the CPU"))
    triton = _version("triton")
    facts.append(Fact("available", "Triton", triton or "no", "" if triton else "pip install triton"))
    return facts


def _extras() -> list[Fact]:
    facts = []
    for extra, (distribution, gives) in _EXTRAS.items():
        version = _version(distribution)
        value = f"{distribution} {version}: {gives}" if version else f"no: {gives}"
        facts.append(Fact("extras", extra, value, "" if version else f'pip install "memofast[{extra}]"'))
    return facts


def report() -> list[Fact]:
    """Everything the command prints, in order."""
    return _built() + _available() + _extras()


def main(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list instead of a table.")] = False,
) -> None:
    """Say what was built, what is available on this machine, and the one-line fix for what is missing.

    Example: python -m memofast.info --json
    """
    facts = report()
    if as_json:
        print(json.dumps([asdict(fact) for fact in facts], indent=1))
        return
    section = ""
    for fact in facts:
        if fact.section != section:
            section = fact.section
            print(section)
        print(f"  {fact.name:<27} {fact.value}")
        if fact.remedy:
            print(f"  {'':<27} to get it: {fact.remedy}")


if __name__ == "__main__":
    run(main, "memofast info")
