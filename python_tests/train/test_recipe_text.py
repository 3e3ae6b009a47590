"""Text of recipes: every value is read in one way, or refused in a line that names it."""

import math
import sys

import pytest

from memofast.errors import MemofastError
from memofast.train.recipe_text import read_toml, read_yaml, to_yaml


def refused(text, read=read_yaml):
    with pytest.raises(MemofastError) as error:
        read(text, "r.yaml")
    line = str(error.value)
    assert line.startswith("r.yaml") and "\n" not in line and len(line) < 400
    return line


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("-2.5E+3", -2500.0), (".5", 0.5), ("3.", 3.0), ("+7", 7), ("-0", 0), ("true", True),
        ("FALSE", False), ("~", None), ("", None), ("'010'", "010"), ('"off"', "off"), ("e5", "e5"), ("1.2.3", "1.2.3"),
        ("!!str 5", "5"), ("!!int '5'", 5), ("-.inf", -math.inf), ("[1, [x]]", [1, ["x"]]), ("y", "y"), ("a:b", "a:b"),
    ],
)  # fmt: skip
def test_values_are_those_of_the_core_schema(text, value):
    found = read_yaml(f"a: {text}", "r.yaml")["a"]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "write"),
    [
        ("010", "write 10 or '010' in quotes"),
        ("-007", "write -7 or "),
        ("1_000", "write 1000 or "),
        ("1_0.5e3", "write 10.5e3 or "),
        ("0x1F", "write it in decimal digits or "),
        ("0o17", "write it in decimal digits or "),
        ("1:30", "write a plain number or '1:30'"),
        ("190:20:30.15", "write a plain number or "),
        ("2024-01-02", "write '2024-01-02' in quotes"),
        ("2024-1-2 10:00:00", "write '2024-1-2 10:00:00' in quotes"),
        ("off", "write false or 'off' in quotes"),
        ("No", "write false or "),
        ("YES", "write true or "),
    ],
)
def test_what_two_readers_would_read_differently_says_what_to_write(text, write):
    line = refused(f"train:\n  samples: {text}")
    assert line.startswith(f"r.yaml, line 2: train.samples: YAML may read {text} as another value; {write}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3", "line 5: b.c: is given twice (first in line 3)"),
        ("a: *x", "line 1: not valid YAML (found undefined alias 'x')"),
        ("a: &x [*x]", "nested deeper than 32 levels"),
        ("[" * 800, "nested deeper than 32 levels"),
        ("a: " + "{b: " * 40 + "1" + "}" * 40, "nested deeper than 32 levels"),
        ("a: " + "9" * 5000, "line 1: a: a number of 5,000 digits"),
        ("a: !!python/object/apply:os.system [x]", "the tag !!python/object/apply:os.system is not read"),
        ("a: !!bool maybe", "the tag !!bool is not read"),
        ("a: !own x", "the tag !own is not read"),
        ("b: &b {c: 1}\na:\n  <<: *b", "line 3: a: keys are plain names"),
        ("? [a]\n: 1", "keys are plain names"),
        ("a: 1\nb: \0", "line 2: not valid YAML (special characters"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
        ("a: 'x", "not valid YAML"),
    ],
)
def test_what_is_no_recipe_is_one_line(text, message):
    assert message in refused(text)


def test_aliases_are_copies_and_cannot_multiply_without_end():
    found = read_yaml("a: &x {b: [1]}\nc: *x", "r.yaml")
    assert found == {"a": {"b": [1]}, "c": {"b": [1]}}
    found["c"]["b"].append(2)
    assert found["a"] == {"b": [1]}
    doubling = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 7)]
    assert "more than 20,000 values" in refused("a0: &a0 [1]\n" + "\n".join(doubling))


def test_keys_are_text_however_they_look():
    assert read_yaml("no: 1\n5: x\n1e3: y\n~: z", "r.yaml") == {"no": 1, "5": "x", "1e3": "y", "~": "z"}


def test_what_is_written_is_read_again():
    values = {
        "a": "1e-4", "b": "010", "c": 1e-06, "d": None, "e": True, "f": "yes", "g": "2024-01-02", "h": "1:30", "i": "",
        "j": "~", "k": 1e22, "l": "né", "m": [1, "2"], "n": ".inf", "o": "true", "p": 0.1, "q": {"no": "0x1"},
    }  # fmt: skip
    assert read_yaml(to_yaml(values), "r.yaml") == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1979-05-27", "a: 1979-05-27 is a date or a time"),
        ("a = 1\na = 2\n", "not valid TOML"),
        ("a = " + "9" * 5000, "not valid TOML"),
        ("a = " + "[" * 3000 + "]" * 3000, "nested deeper"),
        ("a = " + "[" * 40 + "]" * 40, "nested deeper"),
    ],
)
def test_toml_that_is_no_recipe_is_one_line(text, message):
    assert message in refused(text, read_toml)


def test_depth_is_refused_whatever_limit_python_has():
    """Compilers raise it."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        assert "nested deeper than 32 levels" in refused("[" * 800)
    finally:
        sys.setrecursionlimit(limit)


def test_toml_has_the_values_of_yaml():
    text = "[train]\nlr = 1e-4\nbetas = [0.5, 0.25]\n[[corpora]]\npath = 'x'\n"
    assert read_toml(text, "r.toml") == {"train": {"lr": 1e-4, "betas": [0.5, 0.25]}, "corpora": [{"path": "x"}]}
