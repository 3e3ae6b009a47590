"""Text of a recipe, in YAML or TOML, as plain values: mappings, lists, text, numbers, true, false and null.

Each is read in one way or refused: what YAML 1.1 and 1.2 read as different values (010, 1_000, 1:30, yes, dates) has
to be written otherwise.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

import yaml

from memofast.errors import MemofastError

_DEEPEST = 32  # mappings and lists within each other
_MOST = 20_000  # values, as aliases multiply them
_DIGITS = 100
_TAG = "tag:yaml.org,2002:"
_STR, _NULL, _BOOL, _INT, _FLOAT, _UNCLEAR = (f"{_TAG}{name}" for name in ("str", "null", "bool", "int", "float", "?"))
_PLAIN = {  # the first that fits; the core schema of YAML 1.2, so that 1e-4 is a number
    _NULL: r"~|null|Null|NULL|",
    _BOOL: r"true|True|TRUE|false|False|FALSE",
    _UNCLEAR: r"""[-+]?0[0-9_]+ | [-+]?[0-9][0-9_]*_[0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)? | [-+]?0[xobXOB][0-9a-fA-F_]+
        | [-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)? | [0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt\ ].*)?
        | yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF""",
    _INT: r"[-+]?[0-9]+",
    _FLOAT: r"""[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)? | [-+]?\.(inf|Inf|INF) | \.(nan|NaN|NAN)""",
}


_RESOLVERS = {None: [(tag, re.compile(f"^(?:{of})$", re.VERBOSE | re.DOTALL)) for tag, of in _PLAIN.items()]}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = _RESOLVERS
    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        """Raises: `RecursionError` for a node nested too deep, whatever limit Python has at the moment."""
        self._depth += 1
        if self._depth > 2 * _DEEPEST:
            raise RecursionError
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Dumper(yaml.SafeDumper):  # which quotes text that would be read as something else
    yaml_implicit_resolvers = _RESOLVERS


def to_yaml(values: dict[str, Any]) -> str:
    """Plain values as `read_yaml` reads them again."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False)


def read_yaml(text: str, where: str, path: str = "", lines: bool = True) -> Any:
    """The plain values of a YAML document, None of an empty one.

    Args: where: what to call it in messages, with the line; path: the dotted key that its value is of.
    Raises: `MemofastError` for what is no YAML, a key that is given twice, a value that YAML may read in two ways,
        tags, merge keys, and too much or too deeply nested.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark, position = getattr(error, "problem_mark", None), getattr(error, "position", None)
        at = mark.line if mark else text.count("\n", 0, position) if position is not None else None
        reason = " ".join(str(getattr(error, "problem", None) or getattr(error, "reason", error)).split())
        line = f", line {at + 1}" if lines and at is not None else ""
        raise MemofastError(f"{where}{line}: not valid YAML ({reason[:200]}); correct it or quote it") from None
    except RecursionError:
        raise MemofastError(f"{where}: {_too_deep()}") from None
    return None if node is None else _Tree(where, lines).value(node, path, 0)


def read_toml(text: str, where: str) -> dict[str, Any]:
    """The plain values of a TOML document. Raises: `MemofastError` for what is no TOML, or too deeply nested."""
    try:
        return _plain(tomllib.loads(text), where, "", 0)
    except ValueError as error:  # of numbers with thousands of digits too
        raise MemofastError(f"{where}: not valid TOML ({str(error).splitlines()[0]}); correct it") from None
    except RecursionError:
        raise MemofastError(f"{where}: {_too_deep()}") from None


def _too_deep() -> str:
    return f"nested deeper than {_DEEPEST} levels; no recipe needs that"


class _Tree:
    """Plain values of YAML's nodes. where: what to call the document; lines: whether it has more than one."""

    def __init__(self, where: str, lines: bool):
        self._where, self._lines, self._count = where, lines, 0

    def value(self, node: yaml.Node, path: str, depth: int) -> Any:
        self._count += 1
        if depth > _DEEPEST:
            raise self._wrong(node, "", _too_deep())
        if self._count > _MOST:
            raise self._wrong(node, path, f"more than {_MOST:,} values, counting what aliases repeat; write fewer")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        kind = "map" if isinstance(node, yaml.MappingNode) else "seq"
        if node.tag != f"{_TAG}{kind}":
            raise self._wrong(node, path, _no_tag(node))
        if kind == "seq":
            return [self.value(entry, f"{path}.{number}", depth + 1) for number, entry in enumerate(node.value)]
        return self._mapping(node, path, depth)

    def _mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Any]:
        """Keys are text, however they look."""
        found, lines = {}, {}
        for key, entry in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
                raise self._wrong(key, path, "keys are plain names; write the entries out")
            name, line = key.value, key.start_mark.line + 1
            place = f"{path}.{name}" if path else name
            if name in found:
                first = f" (first in line {lines[name]})" if self._lines else ""
                raise self._wrong(key, place, f"is given twice{first}; leave one out")
            found[name], lines[name] = self.value(entry, place, depth + 1), line
        return found

    def _scalar(self, node: yaml.ScalarNode, path: str) -> Any:
        text, tag = node.value, node.tag
        if tag == _UNCLEAR:
            raise self._wrong(node, path, _unclear(text))
        if tag == _INT and len(text) > _DIGITS:
            raise self._wrong(node, path, f"a number of {len(text):,} digits; write a smaller one")
        if tag not in _READERS or not re.fullmatch(_PLAIN.get(tag, ".*"), text, re.VERBOSE | re.DOTALL):
            raise self._wrong(node, path, _no_tag(node))
        return _READERS[tag](text)

    def _wrong(self, node: yaml.Node, path: str, reason: str) -> MemofastError:
        line = f", line {node.start_mark.line + 1}" if self._lines else ""
        return MemofastError(f"{self._where}{line}: {f'{path[:80]}: ' if path else ''}{reason}")


_READERS = {
    _STR: str,
    _NULL: lambda text: None,
    _BOOL: lambda text: text.lower() == "true",
    _INT: int,
    _FLOAT: lambda text: float(text.replace(".", "", 1) if text[-1] in "fFnN" else text),  # .inf and .nan
}


def _no_tag(node: yaml.Node) -> str:
    return f"the tag {node.tag.replace(_TAG, '!!')[:80]} is not read; write plain values"


def _unclear(text: str) -> str:
    """What to write in place of a value that is another one to some readers of YAML."""
    word = text.lower()
    if word in ("yes", "on", "no", "off"):
        meant = "true or " if word in ("yes", "on") else "false or "
    elif re.match("[0-9]{4}-", text):
        meant = ""
    elif ":" in text:
        meant = "a plain number or "
    elif re.match("[-+]?0[xob]", word):
        meant = "it in decimal digits or "
    else:
        meant = re.sub("^([-+]?)0+(?=[0-9])", r"\1", text.replace("_", "")) + " or "
    return f"YAML may read {text[:40]} as another value; write {meant}'{text[:40]}' in quotes for the text"


def _plain(value: Any, where: str, path: str, depth: int) -> Any:
    """TOML's values. Raises: `MemofastError` for dates and times, which no recipe has."""
    if depth > _DEEPEST:
        raise MemofastError(f"{where}: {_too_deep()}")
    if isinstance(value, dict):
        return {key: _plain(of, where, f"{path}.{key}" if path else key, depth + 1) for key, of in value.items()}
    if isinstance(value, list):
        return [_plain(of, where, f"{path}.{number}", depth + 1) for number, of in enumerate(value)]
    if not isinstance(value, (str, int, float)):
        raise MemofastError(f"{where}: {path}: {value} is a date or a time; put it in quotes for the text")
    return value
