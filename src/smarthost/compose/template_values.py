"""Looks up paths in a template's variables, and says what is true, and what a value looks like as text."""

import re
from collections.abc import Callable
from typing import Any

from smarthost.compose.template_tokens import Item, SyntaxFault

_SEGMENT = re.compile(r"\[([^\]]*+)\]|([^./\[\]]++)")
_NUMBER = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?")
_ESCAPED = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;", "`": "&#x60;", "=": "&#x3D;"}
)
_LITERALS = {"true": True, "false": False, "null": None, "undefined": None}
_DATA = frozenset({"index", "key", "first", "last", "root"})
_DEEPEST_LIST = 10


class Loop:
    """Where an `each` stands: the values of @index, @key, @first and @last."""

    __slots__ = ("first", "index", "key", "last", "up")

    def __init__(self, up: "Loop | None") -> None:
        """Start before the first round; `up` is the loop around it."""
        self.up = up
        self.index: Any = None
        self.key: Any = None
        self.first: Any = None
        self.last: Any = None


class Scope:
    """What names mean at one place: the context, those around it, and the loop."""

    __slots__ = ("context", "loop", "root", "up")

    def __init__(self, context: object, up: "Scope | None", loop: Loop | None, root: object) -> None:
        """Enter a context; `up` is the one that "../" names."""
        self.context, self.up, self.loop, self.root = context, up, loop, root


Lookup = Callable[[Scope], Any]


def make_lookup(item: Item) -> Lookup:
    """Make the function that gives what a path, or a literal, stands for; raises SyntaxFault."""
    if item.is_text:
        return lambda scope: item.word
    if item.word in _LITERALS:
        literal = _LITERALS[item.word]
        return lambda scope: literal
    if _NUMBER.fullmatch(item.word):
        number = float(item.word) if "." in item.word else int(item.word)
        return lambda scope: number
    return make_path(item)


def make_path(item: Item) -> Lookup:
    """Make the function that looks a path up; what is not there is None. Raises SyntaxFault."""
    word = item.word
    is_data = word.startswith("@")
    rest = word[1:] if is_data else word
    ups = 0
    while rest == ".." or rest.startswith("../"):
        ups, rest = ups + 1, rest[3:]
    if is_data:
        return _data_path(rest, ups, item)
    if rest in (".", "this"):
        rest = ""
    elif rest.startswith(("./", "this.", "this/")):
        rest = rest.partition("/")[2] if rest.startswith("./") else rest[5:]
    names = _segments(rest, item)
    if not ups and len(names) == 1:
        return _name_in_context(names[0])

    def look_up(scope: Scope) -> Any:
        inner: Scope | None = scope
        for _ in range(ups):
            inner = inner.up if inner is not None else None
        value = inner.context if inner is not None else None
        for name in names:
            value = member(value, name)
        return value

    return look_up


def _name_in_context(name: str) -> Lookup:
    """Look up one name, as nearly every tag does."""

    def look_up(scope: Scope) -> Any:
        context = scope.context
        return context.get(name) if type(context) is dict else member(context, name)

    return look_up


def _data_path(rest: str, ups: int, item: Item) -> Lookup:
    """Look up @index and its like, or @root and what is below it."""
    names = _segments(rest, item)
    if not names or names[0] not in _DATA:
        raise SyntaxFault(f'"{item.word}" is not known; @index, @key, @first, @last and @root are', item.offset)
    first, *others = names

    def look_up(scope: Scope) -> Any:
        if first == "root":
            value = scope.root
        else:
            loop = scope.loop
            for _ in range(ups):
                loop = loop.up if loop is not None else None
            value = getattr(loop, first) if loop is not None else None
        for name in others:
            value = member(value, name)
        return value

    return look_up


def _segments(path: str, item: Item) -> list[str]:
    """Cut a path at its dots and slashes; a segment in brackets may hold anything."""
    names = []
    position = 0
    while position < len(path):
        found = _SEGMENT.match(path, position)
        if found is None or (found[2] == "this"):
            raise SyntaxFault(
                f'"{item.word}" is not a path: ".", ".." and "this" are allowed at its start', item.offset
            )
        names.append(found[1] if found[1] is not None else found[2])
        position = found.end()
        if position < len(path):
            if path[position] not in "./" or position + 1 == len(path):
                raise SyntaxFault(f'"{item.word}" is not a path', item.offset)
            position += 1
    return names


def member(value: object, name: str) -> Any:
    """Give what an object, a list or a text has under a name, None if nothing; attributes of Python are never asked."""
    if type(value) is dict:
        return value.get(name)
    if isinstance(value, list | str):
        if name == "length":
            return len(value)
        if name.isascii() and name.isdigit() and len(name) < 10 and int(name) < len(value):
            return value[int(name)]
    return None


def is_true(value: object) -> bool:
    """Whether `if` takes a value for true: not false, null, "", 0 or an empty list; an empty object is true."""
    return bool(value) or type(value) is dict


def is_empty(value: object) -> bool:
    """Whether a section is left out: for false, null, "" and an empty list, but not for 0."""
    return not value and type(value) is not dict and (type(value) is bool or not isinstance(value, int | float))


def to_text(value: object, deep: int = 0) -> str:
    """Give a value as Handlebars writes it: null as nothing, 1.0 as 1, the members of a list with commas between."""
    if type(value) is str:
        return value
    if value is None:
        return ""
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)
    if isinstance(value, list):
        return ",".join([to_text(each, deep + 1) for each in value]) if deep < _DEEPEST_LIST else ""
    return "[object Object]" if isinstance(value, dict) else str(value)


def escaped(text: str) -> str:
    """Give a text as it stands in HTML, in an element or a quoted attribute."""
    return text.translate(_ESCAPED)
