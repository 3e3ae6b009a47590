"""Builds `memofast._C` with ninja: C++ once per instruction set, CUDA where nvcc 12.4 or newer is found. No torch is
needed.

MEMOFAST_CUDA=auto|0|1   whether to build the CUDA kernels (1: fail without nvcc)
MEMOFAST_ARCHS="80;90a"  GPU architectures; the first one also ships as PTX, which newer GPUs compile at load
MEMOFAST_SANITIZE=LIST   gcc's sanitizers of the C++, as address,undefined; bench/sanitized.py builds and runs so
MEMOFAST_ISAS=portable   leave the other instruction sets out (default: all)
MAX_JOBS=N               parallel compile jobs
"""

import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
VARIANTS = {"portable": ""}
ONLY_PORTABLE = os.environ.get("MEMOFAST_ISAS", "all") == "portable"
if platform.machine() in {"x86_64", "AMD64"} and not ONLY_PORTABLE:
    VARIANTS["avx2"] = "-mavx2 -mfma -mf16c"
    VARIANTS["avx512"] = "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c -mprefer-vector-width=512"
CXX_FLAGS = "-std=c++17 -O3 -fPIC -fopenmp -fvisibility=hidden -fno-math-errno -fno-trapping-math -Wall"
LINK_FLAGS = "-s"
BINDINGS = "bindings.cpp"  # all of them in one, beside the build file: pybind11 costs each file more than it holds
if ONLY_PORTABLE:
    CXX_FLAGS += " -DMEMOFAST_ONLY_PORTABLE"
if SANITIZERS := os.environ.get("MEMOFAST_SANITIZE"):
    LINK_FLAGS = f"-fsanitize={SANITIZERS}"
    CXX_FLAGS += f" {LINK_FLAGS} -O0 -g1 -fno-omit-frame-pointer -fno-sanitize-recover=all"


def source_digest() -> str:
    spec = importlib.util.spec_from_file_location("extension", ROOT / "memofast" / "extension.py")
    extension = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(extension)
    return extension.source_digest(ROOT)


def find_nvcc() -> tuple[str, Path, str] | None:
    """The compiler, its toolkit folder and its version; nvcc on PATH may be a wrapper, so it is asked for its own
    folder."""
    candidates = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    candidates = [shutil.which("nvcc"), *(str(Path(home, "bin", "nvcc")) for home in candidates if home)]
    for nvcc in filter(None, candidates):
        try:
            version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
            dry = subprocess.run([nvcc, "--dryrun", "-c", "-x", "cu", os.devnull], capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        release = re.search(r"release (\d+)\.(\d+)", version)
        top = re.search(r"^#\$ TOP=(.+)$", dry.stderr, re.MULTILINE)
        if release and top and (int(release[1]), int(release[2])) >= (12, 4):
            return nvcc, Path(top[1]).resolve(), f"{release[1]}.{release[2]}"
    return None


def cudart_folder(toolkit: Path) -> Path:
    for folder in ("lib64", "lib", f"targets/{platform.machine()}-linux/lib"):
        if (toolkit / folder / "libcudart_static.a").exists():
            return toolkit / folder
    raise SystemExit(
        f"memofast: libcudart_static.a is not below {toolkit}; install the CUDA runtime or set MEMOFAST_CUDA=0"
    )


def cuda_settings() -> dict | None:
    choice = os.environ.get("MEMOFAST_CUDA", "auto")
    if choice not in {"auto", "0", "1"}:
        raise SystemExit(f"memofast: MEMOFAST_CUDA is auto, 0 or 1, not {choice!r}")
    found = None if choice == "0" else find_nvcc()
    if found is None:
        if choice == "1":
            raise SystemExit(
                "memofast: MEMOFAST_CUDA=1, but no nvcc 12.4 or newer is on PATH, in CUDA_HOME or in /usr/local/cuda"
            )
        return None
    archs = os.environ.get("MEMOFAST_ARCHS", "80;90a").split(";")
    code = [f"-gencode arch=compute_{arch},code=sm_{arch}" for arch in archs]
    code.append(f"-gencode arch=compute_{archs[0]},code=compute_{archs[0]}")
    nvcc, toolkit, version = found
    return {
        "nvcc": nvcc,
        "flags": " ".join(code),
        "lib": cudart_folder(toolkit),
        "archs": ";".join(archs),
        "version": version,
    }


def find_compiler() -> tuple[list[str], str]:
    """The words of the C++ compiler's command, which is one file or as a shell reads it, and the line it says of
    itself."""
    given = os.environ.get("CXX")
    words = [given] if given and shutil.which(given) else shlex.split(given or "") or [shutil.which("c++") or "g++"]
    try:
        said = subprocess.run([*words, "--version"], capture_output=True, text=True, errors="replace")
    except OSError:
        said = None
    if said is None or said.returncode or not said.stdout.strip():
        raise SystemExit(
            f"memofast: {' '.join(words)} is no C++ compiler that runs; install one (Debian, Ubuntu: apt install g++; "
            "Fedora: dnf install gcc-c++) or name it by CXX"
        )
    return words, said.stdout.splitlines()[0]


def header_folders() -> list[str]:
    """Where the headers of Python and of pybind11 lie."""
    python = sysconfig.get_path("include")
    if not Path(python, "Python.h").is_file():
        raise SystemExit(
            f"memofast: no Python.h in {python}; install the headers of this Python (Debian, Ubuntu: apt install "
            "python3-dev; Fedora: dnf install python3-devel)"
        )
    try:
        import pybind11
    except ImportError:
        raise SystemExit("memofast: no pybind11 to build with; pip install pybind11, or build with isolation") from None
    return [python, pybind11.get_include()]


def find_ninja() -> str:
    try:
        import ninja

        found = shutil.which("ninja", path=ninja.BIN_DIR)
    except ImportError:
        found = None
    beside = shutil.which("ninja", path=str(Path(sys.executable).parent))
    if chosen := found or shutil.which("ninja") or beside:
        return chosen
    raise SystemExit("memofast: no ninja to build with; pip install ninja, or build with isolation")


def as_path(path: Path) -> str:
    """A path as a line `build` of a ninja file names it."""
    return re.sub(r"[$ :]", lambda found: "$" + found[0], str(path))


def in_command(*words: str) -> str:
    """Words as a command of a ninja file hands them to the shell."""
    return shlex.join(words).replace("$", "$$")


class NinjaBuild(build_ext):
    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        folder = (ROOT / self.build_temp / "ninja").resolve()
        folder.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        written = self.ninja_file(target, cuda_settings())
        (folder / "build.ninja").write_text(written, "utf-8", "surrogateescape")
        names = sorted(path.name for path in (ROOT / "csrc" / "bindings").glob("*.cpp"))
        together = "".join(f'#include "bindings/{name}"\n' for name in names)
        if not (folder / BINDINGS).is_file() or (folder / BINDINGS).read_text() != together:
            (folder / BINDINGS).write_text(together)
        jobs = ["-j", os.environ["MAX_JOBS"]] if "MAX_JOBS" in os.environ else []
        if subprocess.run([find_ninja(), "-C", str(folder), *jobs]).returncode:
            raise SystemExit("memofast: the compiler failed; the first error above says why")

    def ninja_file(self, target: Path, cuda: dict | None) -> str:
        words, compiler = find_compiler()
        cxx = in_command(*words)
        includes = in_command(f"-I{ROOT}/csrc")
        python = in_command(*(f"-I{folder}" for folder in header_folders()))
        facts = {
            "SOURCE_DIGEST": source_digest(),
            "COMPILER": compiler,
            "CUDA_VERSION": cuda["version"] if cuda else "",
            "CUDA_ARCHS": cuda["archs"] if cuda else "",
        }
        defines = in_command(*(f'-DMEMOFAST_{name}="{value}"' for name, value in facts.items()))
        if cuda:
            defines += " -DMEMOFAST_WITH_CUDA"
        lines = [
            f"rule cxx\n  command = {cxx} {CXX_FLAGS} $flags {includes} -MD -MF $out.d -c $in -o $out\n  depfile = "
            "$out.d\n  deps = gcc",
            f"rule link\n  command = {cxx} -shared -fopenmp $in -o $out $libs",
        ]
        objects = []

        def build(rule: str, source: Path, name: str, flags: str) -> None:
            objects.append(f"{name}.o")
            lines.append(f"build {name}.o: {rule} {as_path(source)}\n  flags = {flags}")

        build("cxx", Path(BINDINGS), "bindings", f"{python} {defines}")
        for source in sorted((ROOT / "csrc" / "host").glob("*.cpp")):
            build("cxx", source, f"host_{source.stem}", "")
        for source in sorted((ROOT / "csrc" / "cpu").glob("*.cpp")):
            for variant, flags in VARIANTS.items():
                build("cxx", source, f"{variant}_{source.stem}", f"-DMEMOFAST_VARIANT={variant} {flags}")
        libs = LINK_FLAGS
        if cuda:
            lines.append(
                f"rule cuda\n  command = {in_command(cuda['nvcc'])} -std=c++17 -O3 --expt-relaxed-constexpr -Xcompiler "
                "-fPIC,-fvisibility=hidden "
                f"{cuda['flags']} -DMEMOFAST_VARIANT=cuda {includes} -MD -MF $out.d -c $in -o $out\n  depfile = "
                "$out.d\n  deps = gcc"
            )
            for source in sorted((ROOT / "csrc" / "cuda").glob("*.cu")):
                build("cuda", source, f"cuda_{source.stem}", "")
            libs += f" {in_command('-L' + str(cuda['lib']))} -lcudart_static -lrt -lpthread -ldl"
        built = as_path(target)
        lines.append(f"build {built}: link {' '.join(objects)}\n  libs = {libs}\ndefault {built}\n")
        return "\n".join(lines)


setup(ext_modules=[Extension("memofast._C", sources=[])], cmdclass={"build_ext": NinjaBuild})
