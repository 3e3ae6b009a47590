"""Which folders of `csrc` may include which: a row kernel knows no memory but its row."""

import re

import pytest

# Headers beside the folders are everybody's, and know nobody.
KNOWN = {
    "rows": {"rows"}, "cpu": {"cpu", "rows"}, "cuda": {"cuda", "rows"}, "host": {"host"}, "": set(),
    "bindings": {"bindings", "host", "rows"},  # Python may draw as a row does
}  # fmt: skip


def wrong_arrows(csrc):
    """`file -> file` of every include that leaves what its folder may know."""
    for file in sorted(path for path in csrc.rglob("*") if path.suffix in {".h", ".cuh", ".cpp", ".cu"}):
        for name in re.findall(r'^\s*#\s*include\s*"([^"]+)"', file.read_text(), re.MULTILINE):
            found = [folder / name for folder in (file.parent, csrc) if (folder / name).is_file()]
            target = found[0].resolve().relative_to(csrc.resolve())
            source = file.relative_to(csrc)
            known = KNOWN[source.parent.as_posix().strip(".")]
            if target.parent.as_posix() not in {".", *known}:
                yield f"{source.as_posix()} -> {target.as_posix()}"


def test_includes_run_one_way(csrc):
    assert list(wrong_arrows(csrc)) == []


@pytest.mark.parametrize(
    ("file", "line", "arrow"),
    [
        ("rows/a.h", '#include "cpu/b.h"', "rows/a.h -> cpu/b.h"),
        ("rows/a.h", '#include "../cuda/c.cuh"', "rows/a.h -> cuda/c.cuh"),
        ("cpu/b.h", '  # include "cuda/c.cuh"', "cpu/b.h -> cuda/c.cuh"),
        ("cuda/c.cuh", '#include "host/d.h"', "cuda/c.cuh -> host/d.h"),
        ("host/d.h", '#include "rows/a.h"', "host/d.h -> rows/a.h"),
        ("e.h", '#include "rows/a.h"', "e.h -> rows/a.h"),
        ("bindings/f.cpp", '#include "cpu/b.h"', "bindings/f.cpp -> cpu/b.h"),
    ],
)
def test_an_arrow_the_wrong_way_is_found(tmp_path, file, line, arrow):
    allowed = {"rows/a.h": "e.h", "cpu/b.h": "rows/a.h", "cuda/c.cuh": "rows/a.h", "host/d.h": "../e.h", "e.h": None}
    for name, other in {**allowed, "bindings/f.cpp": "host/d.h"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f'#include <string.h>\n#include "{other}"\n' if other else "")
    assert list(wrong_arrows(tmp_path)) == []
    with (tmp_path / file).open("a") as text:
        text.write(line + "\n")
    assert list(wrong_arrows(tmp_path)) == [arrow]
