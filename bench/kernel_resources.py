"""What every CUDA kernel takes of a multiprocessor, as the compiler reports it, or of a built extension; needs no GPU.

python bench/kernel_resources.py [--arch sm_80 --arch sm_90a]
python bench/kernel_resources.py --extension memofast/_C*.so
"""

import argparse
import os
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

CSRC = Path(__file__).resolve().parents[1] / "csrc"
ARCHITECTURES = ("sm_80", "sm_90a")
FLAGS = "-std=c++17 -O3 --expt-relaxed-constexpr -DMEMOFAST_VARIANT=cuda -cubin -Xptxas -v"  # as setup.py compiles


class Resources(NamedTuple):
    """Of one kernel: registers of a thread, bytes of static shared memory, of stack, and spilled, written plus read.

    Spills lie on the stack. A built extension tells no more of them than that, and `spilled` is None.
    """

    source: str
    arch: str
    kernel: str
    registers: int
    shared: int
    stack: int
    spilled: int | None


def find_nvcc() -> str | None:
    homes = (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda")
    places = [shutil.which("nvcc"), *(str(Path(home, "bin", "nvcc")) for home in homes if home)]
    return next((place for place in places if place and Path(place).exists()), None)


def parse(source: str, arch: str, report: str) -> list[Resources]:
    """The kernels in what ptxas -v prints."""
    names = re.findall(r"Compiling entry function '(\S+)'", report)
    demangled = subprocess.run(["c++filt", *names], capture_output=True, text=True).stdout.splitlines() if names else []
    found = []
    for name, part in zip(demangled, report.split("Compiling entry function")[1:], strict=True):
        stack, stored, loaded = re.search(
            r"(\d+) bytes stack.*?(\d+) bytes spill st.*?(\d+) bytes spill lo", part
        ).groups()
        registers = int(re.search(r"Used (\d+) registers", part)[1])
        shared = re.search(r"(\d+) bytes smem", part)
        numbers = (registers, int(shared[1]) if shared else 0, int(stack), int(stored) + int(loaded))
        found.append(Resources(source, arch, _short(name), *numbers))
    return found


def kernels_of(source: Path, arch: str, nvcc: str) -> list[Resources]:
    """Compile one file for one architecture."""
    code = f"-gencode=arch=compute_{arch[3:]},code={arch}"
    with tempfile.TemporaryDirectory() as folder:
        command = [nvcc, *FLAGS.split(), code, f"-I{CSRC}", str(source), "-o", f"{folder}/kernels.cubin"]
        result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{result.stderr}")
    return parse(source.stem, arch, result.stderr)


def measure(arches: tuple[str, ...] = ARCHITECTURES) -> list[Resources]:
    """All kernels of all files."""
    nvcc = find_nvcc()
    if nvcc is None:
        raise RuntimeError("nvcc is neither on PATH nor in CUDA_HOME nor in /usr/local/cuda")
    jobs = [(source, arch) for source in sorted((CSRC / "cuda").glob("*.cu")) for arch in arches]
    with ThreadPoolExecutor(2) as pool:
        return [row for rows in pool.map(lambda job: kernels_of(*job, nvcc), jobs) for row in rows]


def find_cuobjdump() -> str | None:
    """CUDA's, or the one that Triton brings."""
    places = [shutil.which("cuobjdump"), *(Path(nvcc).with_name("cuobjdump") for nvcc in [find_nvcc()] if nvcc)]
    if triton := find_spec("triton"):
        places.append(Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump")
    return next((str(place) for place in places if place and Path(place).exists()), None)


def of_extension(path: Path) -> list[Resources]:
    """The kernels in a built extension; their file is part of their name, as they lie in anonymous namespaces."""
    command = [find_cuobjdump(), "-res-usage", str(path)]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found, arch = [], ""
    for line in report.splitlines():
        if named := re.match(r"arch = (\w+)", line):
            arch = named[1]
        elif named := re.match(r" Function (\S+):", line):
            mangled = named[1]
        elif numbers := re.match(r"  REG:(\d+) STACK:(\d+) SHARED:(\d+)", line):
            registers, stack, shared = map(int, numbers.groups())
            source = re.search(r"_GLOBAL__N__[0-9a-f]+_\d+_(\w+?)_cu_", mangled)
            found.append(
                (Resources(source[1] if source else "several", arch, "", registers, shared, stack, None), mangled)
            )
    demangled = subprocess.run(["c++filt", *(name for _, name in found)], capture_output=True, text=True).stdout
    return [row._replace(kernel=_short(name)) for (row, _), name in zip(found, demangled.splitlines(), strict=True)]


def _short(demangled: str) -> str:
    """Without namespaces, result and parameters."""
    return re.sub(r"memofast::|cuda::|\(anonymous namespace\)::", "", demangled.removeprefix("void ")).rsplit("(", 1)[0]


def table(rows: list[Resources]) -> str:
    lines = [
        "| file | architecture | kernel | registers | static shared | stack | spilled |",
        "|---|---|---|--:|--:|--:|--:|",
    ]
    lines += [f"| {' | '.join(str(field) for field in row)} |" for row in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", action="append", help="sm_80, sm_90a ...; default both")
    parser.add_argument("--extension", type=Path, help="read a built extension instead of compiling")
    options = parser.parse_args()
    print(
        table(of_extension(options.extension) if options.extension else measure(tuple(options.arch or ARCHITECTURES)))
    )
