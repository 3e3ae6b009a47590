"""Imports run one way: each room of the package knows only rooms before it, and no modules know each other in a
circle."""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# in the order of imports; rooms beside each other do not know each other
GROUND = (
    "errors", "version", "extension", "signals", "cache_home", "cpu", "devices", "files", "locks", "npz", "sections",
    "schemas", "downloads",
)  # fmt: skip
ROOMS = (
    GROUND,
    ("ops", "store", "metrics"),
    ("data",),
    ("model",),
    ("objectives",),
    ("prepare",),
    ("legacy",),
    ("pages",),
    ("inference",),
    ("train",),
    ("evaluate", "text_emotion", "runs"),
)
COMMANDS = len(ROOMS)  # every other file at the top level, and `command` and `__main__` of a folder
OF_OPS = "kernels"


def read_modules(package: Path) -> dict[str, ast.Module]:
    """Every module below a package's folder, by its dotted name; `kernels` beside the folder belongs to it."""
    folders = [(package, package.name), (package.parent / OF_OPS, f"{package.name}.{OF_OPS}")]
    modules = {}
    for folder, name in folders:
        for file in sorted(folder.rglob("*.py")):
            parts = file.relative_to(folder).with_suffix("").parts
            dotted = ".".join((name, *parts)).removesuffix(".__init__")
            modules[dotted] = ast.parse(file.read_text())
    return modules


def arrows(modules: dict[str, ast.Module], packages: set[str]) -> dict[str, set[str]]:
    """Module -> modules of the package that it imports, anywhere in its file.

    A name that a package's `__init__` hands on counts as an import of the module that it comes from, and importing
    `a.b` is none of `a`.
    """
    return {
        name: {found for found in _imported(name, tree, modules, packages) if found != name}
        for name, tree in modules.items()
    }


def _imported(name: str, tree: ast.Module, modules: dict[str, ast.Module], packages: set[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            source = _source(name, node, packages)
            if source in modules:
                yield from (_home(source, alias.name, modules, packages) for alias in node.names)


def _source(name: str, node: ast.ImportFrom, packages: set[str]) -> str:
    """The module that `from ... import` names; dots stand for packages above `name`."""
    if not node.level:
        return node.module or ""
    above = name.split(".")[: -(node.level - (name in packages)) or None]
    return ".".join([*above, *([node.module] if node.module else [])])


def _home(source: str, name: str, modules: dict[str, ast.Module], packages: set[str]) -> str:
    """The module that `from source import name` reaches."""
    if f"{source}.{name}" in modules:
        return f"{source}.{name}"
    if source in packages:
        for node in ast.walk(modules[source]):
            if isinstance(node, ast.ImportFrom) and name in [alias.asname or alias.name for alias in node.names]:
                real = next(alias.name for alias in node.names if name == (alias.asname or alias.name))
                further = _source(source, node, packages)
                if further in modules and further != source:
                    return _home(further, real, modules, packages)
    return source


def room(module: str) -> tuple[int, str]:
    """How far up the room of a module is, and its name."""
    first, *rest = module.split(".")[1:]
    if rest and rest[-1] in ("command", "__main__"):
        return COMMANDS, "commands"
    if first == OF_OPS:
        first = "ops"
    for level, names in enumerate(ROOMS):
        if first in names:
            return level, "ground" if names is GROUND else first
    if rest:
        raise AssertionError(f"{module}: no room {first!r}; give it a place in the order of imports")
    return COMMANDS, "commands"


def back_arrows(graph: dict[str, set[str]], top: str) -> list[str]:
    """Imports of a room that does not stand before one's own. `top` itself may import anything, and `_C` beside the
    ground belongs to it."""
    found = []
    for module, imported in graph.items():
        for other in imported if module != top else ():
            if other == top:
                continue  # the package itself: `from memofast import _C`
            (level, name), (below, other_name) = room(module), room(other)
            if name != other_name and below >= level:
                found.append(f"{module} -> {other}")
    return sorted(found)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Modules that reach each other, as sorted groups of at least two."""
    reached = {module: _reach(module, graph) for module in graph}
    groups = {
        tuple(sorted({module, *(other for other in reached[module] if module in reached.get(other, ()))}))
        for module in graph
        if module in reached[module]
    }
    return sorted(map(list, groups))


def _reach(module: str, graph: dict[str, set[str]]) -> set[str]:
    found, left = set(), [*graph[module]]
    while left:
        if (other := left.pop()) not in found:
            found.add(other)
            left += graph.get(other, ())
    return found


def graph_of(package: Path) -> dict[str, set[str]]:
    modules = read_modules(package)
    return arrows(modules, _packages(modules))


def _packages(modules: Iterable[str]) -> set[str]:
    return {above for name in modules for above in _above(name)}


def _above(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    if not (ROOT / "memofast").is_dir():
        pytest.skip("needs the source folder that these tests come from")
    return {name: found - {"memofast"} for name, found in graph_of(ROOT / "memofast").items() if name != "memofast"}


def test_each_room_imports_only_rooms_before_it(graph):
    assert back_arrows(graph, "memofast") == []


def test_no_modules_import_each_other_in_a_circle(graph):
    assert circles(graph) == []


def test_the_whole_package_was_read(graph):
    assert "memofast.store.reader" in graph["memofast.data.corpus"]  # by the name that memofast.store hands on
    assert "memofast.kernels.embed" in graph["memofast.ops.embed"]  # inside a function
    assert graph["memofast.prepare.__main__"] == {"memofast.cli", "memofast.prepare.command"}
    assert len(graph) > 200 and {room(module)[0] for module in graph} == set(range(COMMANDS + 1))


@pytest.fixture
def made(tmp_path):
    """Writes a small package of these files and returns what imports what in it."""

    def write(files: dict[str, str]) -> dict[str, set[str]]:
        folder = tmp_path / "memofast"
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
            for parent in (folder / name).relative_to(folder).parents:
                (folder / parent / "__init__.py").touch()
        return graph_of(folder)

    return write


GOOD = {
    "errors.py": "import json",
    "store/__init__.py": "from memofast.store.reader import Reader as Store",
    "store/reader.py": "from memofast import _C\nfrom memofast.errors import MemofastError",
    "data/corpus.py": "from memofast.store import Store",
    "prepare/run.py": "from memofast.data import corpus",
    "prepare/command.py": "from memofast.prepare.run import prepare",
    "prepare/__main__.py": "from memofast.cli import run\nfrom memofast.prepare.command import main",
    "evaluate/report.py": "",
    "text_emotion/training.py": "",
    "cli.py": "from .errors import MemofastError",
    "info.py": "from memofast.cli import run",
}


def test_a_package_in_order_is_let_pass(made):
    graph = made(GOOD)
    assert graph["memofast.data.corpus"] == {"memofast.store.reader"}
    assert graph["memofast.prepare.run"] == {"memofast.data.corpus"}
    assert graph["memofast.cli"] == {"memofast.errors"}
    assert back_arrows(graph, "memofast") == [] and circles(graph) == []


@pytest.mark.parametrize(
    ("file", "line", "imported"),
    [
        ("store/reader.py", "from memofast.data import corpus", "data.corpus"),
        ("store/reader.py", "import memofast.data.corpus", "data.corpus"),
        ("store/reader.py", "from ..data import corpus", "data.corpus"),
        ("store/__init__.py", "from ..data import corpus", "data.corpus"),
        ("data/corpus.py", "def f():\n    from memofast.prepare.run import x", "prepare.run"),
        ("data/corpus.py", "if TYPE_CHECKING:\n    import memofast.prepare.run", "prepare.run"),
        ("errors.py", "from memofast.store import Store", "store.reader"),
        ("prepare/run.py", "from memofast.cli import run", "cli"),
        ("prepare/run.py", "from memofast.prepare.command import main", "prepare.command"),
        ("metrics/scores.py", "from memofast.store import Store", "store.reader"),
        ("evaluate/report.py", "from memofast.text_emotion import training", "text_emotion.training"),
        ("text_emotion/training.py", "import memofast.evaluate.report", "evaluate.report"),
    ],
)
def test_an_arrow_that_runs_back_up_is_found(made, file, line, imported):
    graph = made(GOOD | {file: f"{GOOD.get(file, '')}\n{line}"})
    module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    assert back_arrows(graph, "memofast") == [f"memofast.{module} -> memofast.{imported}"]


def test_circles_are_found_however_long(made):
    far = {"a": "b", "b": "c", "c": "a", "d": "a", "e": "f", "f": "e"}
    files = {f"data/{name}.py": f"def f():\n    from memofast.data.{other} import x" for name, other in far.items()}
    graph = made(files | {"data/g.py": "from memofast.data import d"})
    assert circles(graph) == [
        ["memofast.data.a", "memofast.data.b", "memofast.data.c"],
        ["memofast.data.e", "memofast.data.f"],
    ]


def test_a_circle_through_a_name_that_a_package_hands_on_is_found(made):
    """`from memofast.data import Corpus` is an arrow to the module of Corpus, not to its neighbours."""
    files = {
        "data/__init__.py": "from memofast.data.corpus import Corpus\nfrom memofast.data.loading import Loader",
        "data/corpus.py": "from memofast.data.packing import pack",
        "data/packing.py": "",
        "data/loading.py": "from memofast.data import Corpus",
    }
    assert circles(made(files)) == []
    again = files | {"data/packing.py": "from memofast.data import Corpus"}
    assert circles(made(again)) == [["memofast.data.corpus", "memofast.data.packing"]]


def test_a_folder_without_a_place_is_refused(made):
    with pytest.raises(AssertionError, match="no room 'utils'"):
        back_arrows(made(GOOD | {"utils/tools.py": "import memofast.errors"}), "memofast")
