"""An object with all that it holds as bytes, and back. It runs no code of what it reads: only classes of known modules
are made, and only their fields are set.

What comes in: plain values, arrays, and objects of those modules. What goes out: msgpack. What is not data, such as a
tokenizer or a pool of pages, is left out, and given again when the object is read.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from types import ModuleType
from typing import Any

import msgspec
import numpy as np

_PLAIN = (type(None), bool, float, str, bytes)
_MANY: dict[str, type] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "deque": deque}
_NAMES = {kind: name for name, kind in _MANY.items()}


class Graph:
    """Writes and reads objects of the classes that `modules` define. `given`: fields, (class, name), that are not
    written, with the value that they have when they are read. `changes`: what becomes of an object of a class when it
    is read."""

    def __init__(
        self,
        modules: Iterable[ModuleType],
        given: Mapping[tuple[type, str], Any],
        changes: Mapping[type, Callable[[Any], Any]] | None = None,
    ) -> None:
        self._classes = {
            f"{module.__name__.partition('.')[2]}.{name}": value
            for module in modules
            for name, value in vars(module).items()
            if isinstance(value, type) and value.__module__ == module.__name__
        }
        self._names = {kind: name for name, kind in self._classes.items()}
        self._given = given
        self._changes = changes or {}

    def write(self, root: object) -> bytes:
        """Raises TypeError for what is no data, with its class."""
        return msgspec.msgpack.encode(_Write(self._names, self._given).node(root))

    def read(self, data: bytes) -> Any:
        """Raises ValueError for bytes that `write` has not made."""
        try:
            return _Read(self._classes, self._given, self._changes).value(msgspec.msgpack.decode(data))
        except (msgspec.DecodeError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"expected an object as this version writes it, got {error}") from error


class _Write:
    """One call of `write`. What is met again is written as the number under which it was met first."""

    def __init__(self, names: Mapping[type, str], given: Mapping[tuple[type, str], Any]) -> None:
        self._names, self._given = names, given
        self._met: dict[int, int] = {}
        self._alive: list[object] = []  # so that no other object gets the identity of one that was met

    def node(self, value: Any) -> Any:
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is int:
            return value if -(1 << 63) <= value < 1 << 63 else ["int", str(value)]
        if isinstance(value, enum.Enum):
            return ["enum", self._names[kind], value.name]
        if kind is Fraction:
            return ["fraction", str(value)]
        if id(value) in self._met:
            return ["met", self._met[id(value)]]
        self._met[id(value)] = len(self._alive)
        self._alive.append(value)
        if kind in _NAMES:
            return [_NAMES[kind], [self.node(one) for one in value]]
        if kind is dict:
            return ["dict", [[self.node(key), self.node(one)] for key, one in value.items()]]
        if kind is np.ndarray and not value.dtype.hasobject:
            return ["array", value.dtype.str, list(value.shape), value.tobytes()]
        if kind not in self._names:
            raise TypeError(f"expected data, got a {kind.__module__}.{kind.__qualname__}")
        fields = {name: self.node(one) for name, one in _fields(value, kind).items() if (kind, name) not in self._given}
        return ["object", self._names[kind], fields]


class _Read:
    """One call of `read`."""

    def __init__(
        self,
        classes: Mapping[str, type],
        given: Mapping[tuple[type, str], Any],
        changes: Mapping[type, Callable[[Any], Any]],
    ) -> None:
        self._classes, self._given, self._changes = classes, given, changes
        self._met: list[Any] = []

    def value(self, node: Any) -> Any:
        if not isinstance(node, list):
            return node
        match node:
            case ["int", text]:
                return int(text)
            case ["enum", name, member]:
                kind = self._classes[name]
                if not issubclass(kind, enum.Enum):
                    raise ValueError(f"expected an enumeration, got {name}")
                return kind[member]
            case ["fraction", text]:
                return Fraction(text)
            case ["met", number]:
                return self._met[number]
            case _:
                number = len(self._met)
                self._met.append(None)
                return self._made(number, node)

    def _made(self, number: int, node: list[Any]) -> Any:
        match node:
            case ["dict", pairs]:
                made: Any = {}
                self._met[number] = made
                made.update((self.value(key), self.value(one)) for key, one in pairs)
            case ["array", dtype, shape, data]:
                made = np.frombuffer(bytearray(data), dtype).reshape(shape)
            case ["object", name, fields]:
                made = self._object(number, self._classes[name], fields)
            case [many, nodes]:
                made = _MANY[many](self.value(one) for one in nodes)
            case _:
                raise ValueError(f"expected a node, got {node!r:.80}")
        self._met[number] = made
        return made

    def _object(self, number: int, kind: type, nodes: dict[str, Any]) -> Any:
        given = {name: value for (owner, name), value in self._given.items() if owner is kind}
        if issubclass(kind, msgspec.Struct):
            made = kind(**{name: self.value(node) for name, node in nodes.items()}, **given)
            return self._changes[kind](made) if kind in self._changes else made
        made = self._met[number] = object.__new__(kind)
        made.__dict__.update(given)
        made.__dict__.update({name: self.value(node) for name, node in nodes.items()})
        return made


def _fields(value: Any, kind: type) -> dict[str, Any]:
    if issubclass(kind, msgspec.Struct):
        return {name: getattr(value, name) for name in kind.__struct_fields__}
    return value.__dict__
