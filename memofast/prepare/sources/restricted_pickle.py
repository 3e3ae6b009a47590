"""Pickles of others, read without running what they ask for: numpy arrays and plain Python values, nothing else.

An ordinary unpickler calls whatever a file names, and takes the memory that it names. Here the operations of the format
(parsed by `pickletools`) are carried out on plain values and on the stand-ins of `pickled_arrays`; bytes are counted
before they are taken, and those of large arrays stay in the file.
"""

import codecs
import mmap
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pickletools import code2op, read_stringnl
from typing import Any

from memofast.errors import MemofastError
from memofast.files import refuse_pointer
from memofast.prepare.sources.pickled_arrays import Blank, Dtype, Refused, make_array

_MOST_MEMORY = 1 << 30  # bytes of all values beside the arrays that stay in the file
_PER_OPERATION = 96  # bytes that a value and its place on the stack, in a list or in the memo cost
_STAYS = 1 << 16  # bytes from which they stay in the file
_LONGEST_LINE = 1 << 26
_LARGEST_INT = 16  # bytes
_MOST_KEY = (1 << 61) - 2  # an int up to here is its own hash: no key can be made to collide with thousands of others


@dataclass(frozen=True)
class _Named:
    """What stands for a class or function of the list while a pickle is read; it can do nothing."""

    what: str


_NAMES = {  # as numpy's own pickles name them, in old and new versions
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",
    **{
        (f"numpy.{core}.{module}", name): name.removeprefix("_")
        for core in ("core", "_core")
        for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
    },
    **{
        (module, name): name
        for module in ("builtins", "__builtin__")
        for name in ("bytes", "bytearray", "set", "frozenset")
    },
}
_COUNTED = {  # operations whose argument is a number of bytes, in so many bytes, and these
    "SHORT_BINUNICODE": 1, "BINUNICODE": 4, "BINUNICODE8": 8, "SHORT_BINSTRING": 1, "BINSTRING": 4,
    "SHORT_BINBYTES": 1, "BINBYTES": 4, "BINBYTES8": 8, "BYTEARRAY8": 8, "LONG1": 1, "LONG4": 4,
}  # fmt: skip
_LINES = {"UNICODE", "STRING"}  # read here, for pickletools refuses bytes in a string of Python 2
_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "FLOAT", "BINFLOAT"}
_CONSTANTS = {"NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_TUPLE": tuple}
_CONSTANTS |= {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}


def read_pickle(path: Path) -> Any:
    """The contents of a pickle of numpy arrays, numbers, strings, lists and dicts.

    Arrays are read-only; large ones lie in the file, which is mapped. Raises: `MemofastError` for a missing or damaged
    file, for one that names any other class or function, and for one whose values would take over 1 GiB.
    """
    try:
        if not path.is_file():
            raise MemofastError(f"{path} cannot be read (no such file); check the path")
        refuse_pointer(path)
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return _Machine(_Stream(data)).run()
    except OSError as error:
        raise MemofastError(f"{path} cannot be read ({error.strerror}); check the path") from None
    except Refused as error:
        raise MemofastError(f"{path} is refused: {error}") from None
    except (EOFError, ValueError, IndexError, KeyError, struct.error, OverflowError, MemoryError) as error:
        reason = ascii(str(error))[1:-1][:200]
        raise MemofastError(f"{path} is damaged or no pickle ({type(error).__name__}: {reason})") from None


class _Stream:
    """The file as `pickletools` reads it; nothing is copied beyond its end."""

    def __init__(self, data: mmap.mmap):
        self._map, self._data, self._at = data, memoryview(data), 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def view(self, count: int) -> memoryview:
        if count > self.left:
            raise EOFError(f"{count} bytes are declared, {self.left} are there")
        self._at += count
        return self._data[self._at - count : self._at]

    def read(self, count: int) -> bytes:
        return bytes(self.view(count))

    def readline(self) -> bytes:
        end = self._map.find(b"\n", self._at, self._at + _LONGEST_LINE)
        if end < 0:
            raise EOFError("a line does not end")
        return self.read(end + 1 - self._at)


class _Machine:
    """The stack machine of the pickle format, without its operations that make objects of classes."""

    def __init__(self, stream: _Stream):
        self._stream, self._left = stream, _MOST_MEMORY
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # stacks before each mark
        self._memo: dict[int, Any] = {}

    def spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise Refused(
                f"its values take over {_MOST_MEMORY >> 30} GiB beside arrays that stay in the file; write it with "
                "protocol 4 and as arrays of numbers"
            )

    def run(self) -> Any:
        while True:
            code = self._stream.read(1).decode("latin1")
            operation = code2op.get(code)
            if operation is None:
                raise ValueError(f"no operation {code!r}")
            self.spend(_PER_OPERATION)
            name = operation.name
            if name == "STOP":
                return self._result()
            if name in _COUNTED:
                self._stack.append(self._counted(name))
            elif name in _NUMBERS:
                self._stack.append(_number(operation.arg.reader(self._stream)))
            elif name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name]())
            elif name in _OPERATIONS:
                known = operation.arg and name not in _LINES
                _OPERATIONS[name](self, operation.arg.reader(self._stream) if known else None)
            else:
                raise Refused(f"it asks for {name}, and only numpy arrays and plain values are read")

    def _result(self) -> Any:
        if len(self._stack) != 1 or self._below:
            raise ValueError("it ends with another number of values than one")
        if self._stream.left:
            raise Refused(f"{self._stream.left} bytes follow the end of its contents; it must hold one pickle alone")
        return self._stack[0]

    def _counted(self, name: str) -> Any:
        data = self._stream.view(int.from_bytes(self._stream.view(_COUNTED[name]), "little"))
        if name.startswith("LONG"):
            if len(data) > _LARGEST_INT:
                raise Refused(f"it holds a number of {len(data)} bytes")
            return int.from_bytes(data, "little", signed=True)
        if "UNICODE" in name:
            self.spend(len(data) * _width(data))
            return str(data, "utf-8", "surrogatepass")
        if len(data) >= _STAYS:
            return data
        self.spend(len(data))
        return _old_text(bytes(data)) if "STRING" in name else bytes(data)

    def _text(self, _argument: Any) -> None:
        line = self._stream.readline()[:-1]
        self.spend(4 * len(line))
        self._stack.append(str(line, "raw-unicode-escape"))

    def _quoted(self, _argument: Any) -> None:
        self._stack.append(_old_text(codecs.escape_decode(read_stringnl(self._stream, decode=False))[0]))

    # the stack

    def _mark(self, _argument: Any) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _pop(self, _argument: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._since_mark()

    def _duplicate(self, _argument: Any) -> None:
        self._stack.append(self._stack[-1])

    def _keep(self, number: int | None) -> None:
        number = len(self._memo) if number is None else number
        self._memo[number] = self._stack[-1]
        if isinstance(self._stack[-1], Blank):
            self._stack[-1].memo.append(number)

    def _take(self, number: int) -> None:
        self._stack.append(self._memo[number])

    # containers

    def _tuple(self, count: int) -> None:
        if len(self._stack) < count:
            raise IndexError("values are missing")
        self._stack[-count:] = [tuple(self._stack[-count:])]

    def _marked(self, make: Callable[[list[Any]], Any]) -> None:
        items = self._since_mark()
        self._stack.append(make(items))

    def _add(self, items: list[Any], kind: type) -> None:
        """items: values after each other for a list, keys for a set, keys and values in turn for a dict."""
        target = self._stack[-1]
        if type(target) is not kind:
            raise ValueError(f"items are added to something that is no {kind.__name__}")
        if kind is list:
            target.extend(items)
        elif kind is set:
            target.update(map(_key, items))
        else:
            target.update(_pairs(items))

    # what has a name

    def _global(self, argument: str) -> None:
        self._find(*argument.split(" ", 1))

    def _stack_global(self, _argument: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._find(module, name)

    def _find(self, module: Any, name: Any) -> None:
        what = _NAMES.get((module, name)) if isinstance(module, str) and isinstance(name, str) else None
        if what is None:
            named = isinstance(module, str) and isinstance(name, str)
            asked = ascii(f"{module}.{name}")[1:-1][:120] if named else "something without a name"
            raise Refused(f"it asks for {asked}, and only numpy arrays and plain values are read")
        self._stack.append(_Named(what))

    def _reduce(self, _argument: Any) -> None:
        given, named = self._stack.pop(), self._stack.pop()
        if not isinstance(named, _Named) or not isinstance(given, tuple) or named.what not in _CALLS:
            raise Refused("it calls what is no function of the list")
        try:
            self._stack.append(_CALLS[named.what](self, *given))
        except TypeError:  # of the call itself: another number of arguments
            raise Refused(f"it calls {named.what} with other arguments than numpy gives it") from None

    def _build(self, _argument: Any) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, Dtype):
            target.build(state)
        elif isinstance(target, Blank):
            self._stack[-1] = array = target.build(state, self.spend)
            self._memo.update(dict.fromkeys(target.memo, array))
        else:
            raise Refused("it sets the state of something that is no array")

    def _reconstruct(self, kind: Any, _shape: Any, _typecode: Any) -> Blank:
        if not isinstance(kind, _Named) or kind.what != "ndarray":
            raise Refused("it asks for a kind of array that is not numpy.ndarray")
        return Blank()

    def _scalar(self, dtype: Any, data: Any = None) -> Any:
        if isinstance(dtype, Dtype) and dtype.kind == "O":
            return data
        return make_array(data, dtype, (), "C", self.spend).item()

    def _from_buffer(self, data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> Any:
        if order in ("C", "F") and axes is None:
            return make_array(data, dtype, shape, order, self.spend)
        whole = isinstance(axes, tuple) and all(type(axis) is int for axis in axes)
        if order != "K" or not whole or sorted(axes) != list(range(len(axes))):
            raise Refused("it holds an array in an order that does not exist")
        array = make_array(data, dtype, shape, "C", self.spend)
        if array.ndim != len(axes):
            raise Refused("it holds an array in an order that does not exist")
        return array.transpose(axes)

    def _encode(self, text: Any, encoding: Any = None) -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise Refused("it makes bytes of something that is no text in latin1")
        self.spend(len(text))
        return text.encode("latin1")

    def _bytes(self, *given: Any) -> Any:
        if not given:
            return b""
        if len(given) == 1 and isinstance(given[0], bytes | memoryview):
            return given[0]
        return self._encode(*given)

    def _set(self, items: Any = ()) -> set:
        if not isinstance(items, list | tuple):
            raise Refused("it makes a set of something that is no list")
        self.spend(64 * len(items))
        return set(map(_key, items))


_CALLS: dict[str, Callable[..., Any]] = {
    "dtype": lambda _machine, *given: Dtype.named(*given),
    "reconstruct": _Machine._reconstruct,
    "scalar": _Machine._scalar,
    "frombuffer": _Machine._from_buffer,
    "encode": _Machine._encode,
    "bytes": _Machine._bytes,
    "bytearray": _Machine._bytes,
    "set": _Machine._set,
    "frozenset": lambda machine, *given: frozenset(machine._set(*given)),
}
_OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda _machine, _version: None,
    "FRAME": lambda _machine, _length: None,
    "UNICODE": _Machine._text,
    "STRING": _Machine._quoted,
    "MARK": _Machine._mark,
    "POP": _Machine._pop,
    "POP_MARK": lambda machine, _: machine._since_mark(),
    "DUP": _Machine._duplicate,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine._keep),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine._take),
    **{f"TUPLE{count}": lambda machine, _, count=count: machine._tuple(count) for count in (1, 2, 3)},
    "TUPLE": lambda machine, _: machine._marked(tuple),
    "LIST": lambda machine, _: machine._marked(list),
    "DICT": lambda machine, _: machine._marked(lambda items: dict(_pairs(items))),
    "FROZENSET": lambda machine, _: machine._marked(lambda items: frozenset(map(_key, items))),
    "APPEND": lambda machine, _: machine._add([machine._stack.pop()], list),
    "APPENDS": lambda machine, _: machine._add(machine._since_mark(), list),
    "ADDITEMS": lambda machine, _: machine._add(machine._since_mark(), set),
    "SETITEM": lambda machine, _: machine._add([machine._stack.pop(), machine._stack.pop()][::-1], dict),
    "SETITEMS": lambda machine, _: machine._add(machine._since_mark(), dict),
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "REDUCE": _Machine._reduce,
    "BUILD": _Machine._build,
}


def _number(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > 8 * _LARGEST_INT:
        raise Refused(f"it holds a number of {value.bit_length()} bits")
    return value


def _width(utf8: memoryview) -> int:
    """Bytes that Python takes for a character of this text, at most."""
    return 4 if re.search(rb"[\xf0-\xff]", utf8) else 2 if re.search(rb"[\xc4-\xff]", utf8) else 1


def _old_text(data: bytes) -> str | bytes:
    """A string of Python 2, which is text or bytes: bytes where it is not ASCII."""
    return data.decode("ascii") if data.isascii() else data


def _key(value: Any) -> Any:
    """A key that a dict finds at once: a tuple may take a lifetime to hash, and numbers can be chosen to collide."""
    if isinstance(value, str | bytes | float | bool | None) or (type(value) is int and abs(value) <= _MOST_KEY):
        return value
    raise Refused("it holds a dict or set with keys that are no text and no number")


def _pairs(items: list[Any]) -> Any:
    if len(items) % 2:
        raise ValueError("a key without its value")
    return zip(map(_key, items[::2]), items[1::2], strict=True)
