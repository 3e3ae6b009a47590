"""CUDA kernels without a GPU: the same sources, compiled for the host with `cuda_on_host` in the place of CUDA's
headers."""

import fcntl
import hashlib
import os
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pybind11
import pytest
import torch
from torch.utils._pytree import tree_leaves

from memofast.extension import source_digest
from memofast.ops import library

FOLDER = Path(__file__).resolve().parent
SOURCES = FOLDER.parents[1]
sys.path.append(str(FOLDER.parent / "ops"))  # the operators' own batches and rules of comparison

# The namespace is renamed, as pybind11 would take the types for those of the extension proper.
FLAGS = [
    "-std=c++17",
    "-O1",
    "-fPIC",
    "-fvisibility=hidden",
    "-Wno-unknown-pragmas",
    "-Dmemofast=memofast_on_host",
    "-DMEMOFAST_WITH_CUDA",
    "-DMEMOFAST_CUDA_DEVICE=1",  # the host's
    '-DMEMOFAST_SOURCE_DIGEST=""',
    '-DMEMOFAST_COMPILER=""',
    '-DMEMOFAST_CUDA_VERSION=""',
    '-DMEMOFAST_CUDA_ARCHS=""',
]
CUDA_FLAGS = [
    "-D__CUDACC__",
    "-D__CUDA_ARCH__=800",
    "-DMEMOFAST_VARIANT=cuda",
    "-include",
    "cuda_runtime.h",
    "-x",
    "c++",
]


@pytest.fixture(scope="session")
def csrc() -> Path:
    """The C++ and CUDA sources, where the tests lie beside them."""
    if not (SOURCES / "csrc").is_dir():
        pytest.skip("needs the source folder that these tests come from")
    return SOURCES / "csrc"


def compile_extension(csrc: Path, target: Path) -> None:
    """Without CPU kernels: they stay unresolved, and nobody calls them."""
    includes = [f"-I{FOLDER / 'cuda_on_host'}", f"-I{csrc}"]
    python = [f"-I{sysconfig.get_path('include')}", f"-I{pybind11.get_include()}", "-O0"]
    sources = {path: python for path in sorted((csrc / "bindings").glob("*.cpp"))}
    sources |= {path: [] for path in sorted((csrc / "host").glob("*.cpp"))}
    sources |= {path: CUDA_FLAGS for path in sorted((csrc / "cuda").glob("*.cu"))}

    with tempfile.TemporaryDirectory(dir=target.parent) as folder:

        def compiled(source: Path) -> str:
            output = str(Path(folder, f"{source.parent.name}_{source.stem}.o"))
            run(["g++", *FLAGS, *includes, *sources[source], "-c", str(source), "-o", output])
            return output

        def run(command: list[str]) -> None:
            result = subprocess.run(command, capture_output=True, text=True)
            assert result.returncode == 0, " ".join(command) + "\n" + result.stderr

        with ThreadPoolExecutor(2) as pool:
            objects = list(pool.map(compiled, sources))
        library_file = str(Path(folder, target.name))
        run(["g++", "-shared", "-Wl,-z,lazy", *objects, "-o", library_file])
        os.replace(library_file, target)


@pytest.fixture(scope="session")
def extension_on_host(csrc):
    """`memofast._C` with its CUDA kernels run by the host; compiled once for each state of the sources and Python."""
    digest = hashlib.sha256(source_digest(SOURCES).encode())
    for path in (Path(__file__), *sorted((FOLDER / "cuda_on_host").rglob("*.*h"))):
        digest.update(path.read_bytes())
    folder = Path(tempfile.gettempdir(), f"memofast-cuda-on-host-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    target = folder / f"{digest.hexdigest()[:16]}{sysconfig.get_config_var('EXT_SUFFIX')}"
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several test processes one compiles
        if not target.exists():
            compile_extension(csrc, target)
    before = sys.getdlopenflags()
    try:
        sys.setdlopenflags(os.RTLD_LAZY)
        loader = ExtensionFileLoader("_C", str(target))
        module = module_from_spec(spec_from_file_location("_C", target, loader=loader))
        loader.exec_module(module)
    finally:
        sys.setdlopenflags(before)
    return module


@pytest.fixture
def cuda_on_host(extension_on_host, monkeypatch):
    """Backend "cuda" takes CPU tensors. Returns a function that calls another with the threads of a block in either
    order, asserts that both results are the same bits, and returns one."""
    for name in (
        "attention",
        "bias_gelu",
        "dropout_add_norm",
        "embed",
        "faults",
        "separable_attention",
        "span_mask",
        "token_mask",
    ):
        monkeypatch.setattr(sys.modules[f"memofast.ops.{name}"], "_C", extension_on_host)
    monkeypatch.setattr(library, "require_device", lambda *_: None)
    monkeypatch.setattr(library, "row_types", lambda *_: (torch.float32, torch.bfloat16, torch.float16))

    def in_either_order(function, *arguments, **options):
        results = []
        for order in ("forward", "reverse"):
            monkeypatch.setenv("MEMOFAST_THREAD_ORDER", order)
            results.append(function(*arguments, **options))
        leaves, again = (tree_leaves(result) for result in results)
        assert all(torch.equal(a, b) for a, b in zip(leaves, again, strict=True))
        return results[0]

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small tensors: more threads only wait for one another
    yield in_either_order
    torch.set_num_threads(threads)
