"""Building and installing: sdist, wheel, editable, and a source folder that shadows an installed package."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from memofast import extension

ROOT = Path(__file__).resolve().parents[1]
IN_SOURCE_TREE = (ROOT / "setup.py").exists()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not IN_SOURCE_TREE, reason="needs the source folder that these tests come from"),
]
SOURCES = ("csrc", "kernels", "memofast", "python_tests", "bench")
FILES = (
    "setup.py",
    "pyproject.toml",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
    "NOTICE",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "constraints.txt",
)


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=os.environ | {"MEMOFAST_CUDA": "0", "PIP_NO_INDEX": "1"} | environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A clean copy of the source folder, with nothing built in it."""
    folder = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    return folder


# Preprocesses in either build, as there paths and flags may be wrong; compiles what it has not yet seen in this form.
COMPILER = """#!/bin/sh
case " $* " in *" -c "*) ;; *) exec {compiler} "$@" -O0 ;; esac
for object; do :; done
{compiler} "$@" -O0 -E -P || exit
kept="{folder}/${{object##*/}}"
if cmp -s "$object" "$kept.ii"; then exec cp "$kept" "$object"; fi
mv "$object" "$kept.new" && {compiler} "$@" -O0 && cp "$object" "$kept" && mv "$kept.new" "$kept.ii"
"""


@pytest.fixture(scope="module")
def compiler(tmp_path_factory) -> str:
    """The C++ compiler without optimisation: what is compiled here is imported, not computed with, and is ready in half
    the time."""
    folder = tmp_path_factory.mktemp("compiler")
    script = folder / "a c++"
    script.write_text(COMPILER.format(compiler=shutil.which("c++") or "g++", folder=folder))
    script.chmod(0o755)
    return str(script)


@pytest.fixture(scope="module")
def sdist(source) -> Path:
    run(sys.executable, "setup.py", "-q", "sdist", cwd=source)
    return next((source / "dist").glob("memofast-*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(sdist, compiler, tmp_path_factory) -> Path:
    """The wheel built from the sdist, so that a file missing there fails here."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, sdist]
    run(*pip, cwd=folder, CXX=compiler, MEMOFAST_ISAS="portable")
    return next(folder.glob("memofast-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A site folder that holds nothing but the installed wheel."""
    site = tmp_path_factory.mktemp("site")
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, wheel, cwd=site)
    return site


def test_wheel_holds_every_module_recipe_and_template(wheel, source):
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = [path for path in (source / "memofast").rglob("*") if path.suffix in {".py", ".yaml", ".html", ".css"}]
    expected = {path.relative_to(source).as_posix() for path in modules}
    expected |= {f"memofast/kernels/{path.name}" for path in (source / "kernels").glob("*.py")}
    assert expected <= names
    assert any(name.startswith("memofast/_C.") for name in names)


def test_no_torch_symbol_is_linked(installed):
    library = next((installed / "memofast").glob("_C*.so"))
    if shutil.which("ldd") is None:
        pytest.skip("no ldd on this machine")
    lines = run("ldd", library, cwd=installed).splitlines()
    linked = [line.split("(0x")[0] for line in lines if line.strip()]  # an address may well contain "c10"
    assert linked and not [name for name in linked if "torch" in name or "c10" in name]


@pytest.mark.parametrize("module", ["info", "pretrain"])
@pytest.mark.parametrize("place", ["elsewhere", "source"])
def test_commands_run_from_any_folder(installed, source, tmp_path, place, module):
    folder = source if place == "source" else tmp_path
    printed = run(sys.executable, "-m", f"memofast.{module}", "--help", cwd=folder, PYTHONPATH=str(installed))
    assert "Usage" in printed


@pytest.mark.parametrize("place", ["elsewhere", "source"])
def test_kernels_are_a_package_of_memofast(installed, source, tmp_path, place):
    folder = source if place == "source" else tmp_path
    code = (
        "import memofast, memofast.kernels as k; "
        "print(memofast.__file__); print(k.__file__); print(memofast._C.__file__)"
    )
    package, kernels, library = run(sys.executable, "-c", code, cwd=folder, PYTHONPATH=str(installed)).split()
    assert Path(package).is_relative_to(folder if place == "source" else installed)
    assert Path(kernels).is_relative_to(folder if place == "source" else installed)
    assert Path(library).is_relative_to(installed)


def test_an_extension_older_than_its_sources_says_reinstall(installed, source, tmp_path):
    changed = tmp_path / "changed"
    shutil.copytree(source, changed, ignore=shutil.ignore_patterns("build", "dist"))
    with (changed / "csrc" / "variant.h").open("a") as header:
        header.write("// changed\n")
    result = subprocess.run(
        [sys.executable, "-c", "from memofast import _C"],
        cwd=changed,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert result.returncode != 0
    assert extension.REINSTALL in result.stderr


def test_editable_install_in_a_folder_of_any_name(source, compiler, tmp_path):
    folder = tmp_path / "für $HOME: Bob's #1"
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("build", "dist", "*.egg-info"))
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    outer = tmp_path / "outer"  # the packages of this environment, but for an installed memofast
    outer.mkdir()
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        if not package.name.startswith(("memofast", "__editable__")):
            (outer / package.name).symlink_to(package)
    (site / "outer.pth").write_text(f"{outer}\n")
    pip = [python, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "-e", folder]
    run(*pip, cwd=tmp_path, CXX=compiler, MEMOFAST_ISAS="portable")
    code = "import memofast, memofast.kernels; print(memofast.__file__); print(memofast.kernels.__file__)"
    for place in (tmp_path, folder):
        package, kernels = run(python, "-c", code, cwd=place, PYTHONPATH="").splitlines()
        assert Path(package).is_relative_to(folder) and Path(kernels).is_relative_to(folder)


LACKING = {
    "no-such-c++ is no C++ compiler that runs": ({"CXX": "no-such-c++"}, ""),
    "false is no C++ compiler that runs": ({"CXX": "false"}, ""),
    "g++ is no C++ compiler that runs; install one": ({"CXX": "", "PATH": "/nowhere"}, ""),
    "no Python.h in /nowhere": ({}, "import sysconfig; sysconfig.get_path = lambda name: '/nowhere'"),
    "no pybind11 to build with": ({}, "import sys; sys.modules['pybind11'] = None"),
    "no ninja to build with": (
        {"CXX": shutil.which("c++") or "", "PATH": "/nowhere"},
        "import sys; sys.modules['ninja'] = None; sys.executable = '/nowhere/python'",
    ),
}


@pytest.mark.parametrize("line", LACKING)
def test_what_a_build_lacks_is_one_line(line, tmp_path):
    environment, before = LACKING[line]
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "NOTICE", "memofast", "kernels", "csrc"):
        (tmp_path / name).symlink_to(ROOT / name)
    code = f"{before}\nimport runpy, sys; sys.argv = ['setup.py', '-q', 'build_ext']; runpy.run_path('setup.py')"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"MEMOFAST_CUDA": "0"} | environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1 and result.stderr.startswith("memofast: ") and line in result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
