"""The C++ built with gcc's sanitizers, and something run under them.

    python bench/sanitized.py -m pytest python_tests/ops python_tests/store   # memory and undefined behaviour
    python bench/sanitized.py --driver thread            # races, in threads without Python
    python bench/sanitized.py --driver address,undefined # the same with leaks, which torch's and Python's would hide

What follows is given to Python, in a copy of the sources below --folder, built there for one instruction set
(--isas all: for every one).
"""

from __future__ import annotations

import argparse
import filecmp
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("csrc", "kernels", "memofast", "python_tests", "setup.py", "pyproject.toml", "README.md", "LICENSE")
OF_HOST = ("batch_memory", "gather", "huge_pages", "isa")  # that know no Python
FLAGS = "-std=c++17 -O1 -g1 -fno-math-errno -fno-trapping-math -fno-omit-frame-pointer -fno-sanitize-recover=all"


def library(name: str) -> str | None:
    """Where the compiler has a library, None where it has none."""
    found = subprocess.run([compiler(), f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
    return found if os.path.isabs(found) else None


def compiler() -> str:
    return os.environ.get("CXX") or shutil.which("g++") or "c++"


def build(folder: Path, sanitizers: str, isas: str = "portable") -> Path:
    """A copy of the sources in `folder` with an extension that is watched; what did not change is not built again."""
    ignored = shutil.ignore_patterns("_C.*.so", "__pycache__", "build")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignored, copy_function=copy_changed, dirs_exist_ok=True)
        elif source.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            copy_changed(source, folder / name)
    settings = {"MEMOFAST_SANITIZE": sanitizers, "MEMOFAST_ISAS": isas, "MEMOFAST_CUDA": "0"}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    ended = subprocess.run(command, cwd=folder, env=os.environ | settings, capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(f"sanitized: the build failed\n{ended.stdout}\n{ended.stderr}")
    return folder


def copy_changed(source: str | Path, target: str | Path) -> None:
    """A file whose contents are other ones: a fresh checkout has new dates, which alone would build all again."""
    if not os.path.isfile(target) or not filecmp.cmp(source, target, shallow=False):
        shutil.copy(source, target)


def environment(folder: Path) -> dict[str, str]:
    """In which Python loads such an extension: the sanitizer comes before everything else, and sees torch throw."""
    preloaded = [library("libasan.so"), library("libstdc++.so.6")]
    return os.environ | {
        "LD_PRELOAD": " ".join(path for path in preloaded if path),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:abort_on_error=1",  # Python and torch leak
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONPATH": str(folder),
        "PYTHONMALLOC": "malloc",  # a block of its own for each object, so that reads past it are seen
    }


def run(folder: Path, arguments: list[str], **options: object) -> subprocess.CompletedProcess:
    """Python with these arguments, where `build` built."""
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment(folder), **options)


def driver(folder: Path, sanitizers: str) -> Path:
    """Builds bench/sanitizers/threads.cpp with the kernels and a small OpenMP that the thread sanitizer sees into."""
    folder.mkdir(parents=True, exist_ok=True)
    common = [compiler(), *FLAGS.split(), f"-fsanitize={sanitizers}", "-DMEMOFAST_ONLY_PORTABLE", f"-I{ROOT / 'csrc'}"]
    kernels = {path: ["-fopenmp", "-DMEMOFAST_VARIANT=portable"] for path in sorted((ROOT / "csrc/cpu").glob("*.cpp"))}
    others = [*(ROOT / f"csrc/host/{name}.cpp" for name in OF_HOST), *sorted((ROOT / "bench/sanitizers").glob("*.cpp"))]

    def compiled(source: Path) -> str:
        target = str(folder / f"{source.parent.name}_{source.stem}.o")
        subprocess.run([*common, *kernels.get(source, []), "-c", str(source), "-o", target], check=True)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, [*kernels, *others]))
    program = folder / "threads"
    subprocess.run([*common[:1], f"-fsanitize={sanitizers}", *objects, "-lpthread", "-o", str(program)], check=True)
    return program


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--driver", metavar="SANITIZERS", help="run the threads without Python under these")
    parser.add_argument("--sanitizers", default="address,undefined")
    parser.add_argument("--isas", default="portable", choices=("portable", "all"))
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "sanitized")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of Python")
    given = parser.parse_args()
    if given.driver:
        sys.exit(subprocess.run([driver(given.folder / given.driver, given.driver)]).returncode)
    arguments = given.arguments or ["-m", "pytest", "python_tests/ops", "python_tests/store"]
    sys.exit(run(build(given.folder / "tree", given.sanitizers, given.isas), arguments).returncode)


if __name__ == "__main__":
    main()
