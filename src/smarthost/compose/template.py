"""Handlebars templates: read once into a tree of functions, and rendered within bounds."""

from collections.abc import Callable
from typing import Any

import msgspec

from smarthost.compose.template_tokens import (
    BLOCK,
    CLOSE,
    COMMENT,
    ELSE,
    INVERSE,
    Item,
    SyntaxFault,
    Tag,
    TemplateFault,
    tokens_of,
)
from smarthost.compose.template_values import (
    Lookup,
    Loop,
    Scope,
    escaped,
    is_empty,
    is_true,
    make_lookup,
    make_path,
    member,
    to_text,
)


class TemplateLimits(msgspec.Struct, frozen=True):
    """What a template is held to, so that none can hang the relay or take its memory.

    `source` and `output` are characters; `steps` are tags and texts that are gone through, loops counted each time;
    `depth` is how deep blocks may stand within blocks.
    """

    source: int = 512 * 1024
    output: int = 2 * 1024 * 1024
    steps: int = 50_000
    depth: int = 50


class _Exceeded(Exception):
    """Rendering goes beyond a limit."""


class _Output:
    """What has been rendered, and what may still be."""

    __slots__ = ("parts", "room", "steps")

    def __init__(self, limits: TemplateLimits) -> None:
        self.parts: list[str] = []
        self.room, self.steps = limits.output, limits.steps

    def add(self, text: str) -> None:
        self.room -= len(text)
        if self.room < 0:
            raise _Exceeded("the rendered text is too long")
        self.parts.append(text)


_Step = Callable[[Scope, _Output], None]


class Template:
    """A template that was read. Rendering changes nothing in it, so that one serves any number of recipients."""

    __slots__ = ("_body", "_limits")

    def __init__(self, body: tuple[_Step, ...], limits: TemplateLimits) -> None:
        """Take the steps; `compile_template` makes them."""
        self._body, self._limits = body, limits

    def render(self, variables: dict[str, Any]) -> str | TemplateFault:
        """Fill in variables, which are what JSON gives; a fault says which limit was exceeded."""
        output = _Output(self._limits)
        try:
            _run(self._body, Scope(variables, None, None, variables), output)
        except _Exceeded as stop:
            return TemplateFault(str(stop))
        return "".join(output.parts)


def compile_template(source: str, escape: bool, limits: TemplateLimits) -> Template | TemplateFault:
    """Read a template. `escape` is for HTML: values are escaped unless {{{ }}} or {{& }} says otherwise."""
    if len(source) > limits.source:
        return TemplateFault(f"the template has {len(source)} characters; {limits.source} are allowed")
    try:
        return Template(_Reader(escape, limits.depth).read(source), limits)
    except SyntaxFault as fault:
        line = source.count("\n", 0, fault.offset) + 1
        return TemplateFault(fault.message, line, fault.offset - source.rfind("\n", 0, fault.offset))


class _Block:
    """A block while it is read: its tag, what stands in it, and what stands behind its else."""

    __slots__ = ("body", "chained", "has_else", "inverse", "tag")

    def __init__(self, tag: Tag, chained: bool) -> None:
        self.tag, self.chained, self.has_else = tag, chained, False
        self.body: list[_Step] = []
        self.inverse: list[_Step] = []

    @property
    def open(self) -> list[_Step]:
        return self.inverse if self.has_else else self.body


class _Reader:
    """Reads tokens into steps."""

    def __init__(self, escape: bool, depth: int) -> None:
        self._escape, self._depth = escape, depth
        self._blocks: list[_Block] = []
        self._root: list[_Step] = []

    def read(self, source: str) -> tuple[_Step, ...]:
        """Read a whole template; raises SyntaxFault."""
        for token in tokens_of(source):
            if isinstance(token, str):
                self._here.append(_text(token))
            elif token.kind in (BLOCK, INVERSE):
                self._enter(token, chained=False)
            elif token.kind == ELSE:
                self._turn(token)
            elif token.kind == CLOSE:
                self._leave(token)
            elif token.kind != COMMENT:
                self._here.append(_value(token, self._escape and not token.raw))
        if self._blocks:
            tag = self._blocks[-1].tag
            raise SyntaxFault(f'the block "{_name(tag)}" is not closed', tag.offset)
        return tuple(self._root)

    @property
    def _here(self) -> list[_Step]:
        return self._blocks[-1].open if self._blocks else self._root

    def _enter(self, tag: Tag, chained: bool) -> None:
        if len(self._blocks) == self._depth:
            raise SyntaxFault(f"blocks stand deeper than {self._depth} within each other", tag.offset)
        self._blocks.append(_Block(tag, chained))

    def _turn(self, tag: Tag) -> None:
        """Begin the other side of a block; words behind "else" make it a block of its own that ends with this one."""
        if not self._blocks:
            raise SyntaxFault('"else" stands in no block', tag.offset)
        block = self._blocks[-1]
        if block.has_else:
            raise SyntaxFault('the block has an "else" already', tag.offset)
        block.has_else = True
        if tag.items:
            tag.kind = BLOCK
            self._enter(tag, chained=True)

    def _leave(self, tag: Tag) -> None:
        """Close a block and all that were chained to it."""
        while True:
            if not self._blocks:
                raise SyntaxFault(f'"{_name(tag)}" is closed and was not open', tag.offset)
            block = self._blocks.pop()
            if not block.chained and _name(block.tag) != _name(tag):
                raise SyntaxFault(f'"{_name(tag)}" is closed where "{_name(block.tag)}" is open', tag.offset)
            self._here.append(_block(block))
            if not block.chained:
                return


def _name(tag: Tag) -> str:
    return tag.items[0].word


def _run(body: tuple[_Step, ...], scope: Scope, output: _Output) -> None:
    output.steps -= len(body) + 1
    if output.steps < 0:
        raise _Exceeded("the template takes too many steps: its loops go round too often")
    for step in body:
        step(scope, output)


def _text(text: str) -> _Step:
    return lambda scope, output: output.add(text)


def _value(tag: Tag, escape: bool) -> _Step:
    """Make the step that writes a value."""
    items = tag.items
    if len(items) > 1:
        if items[0].word != "lookup" or len(items) != 3:
            raise SyntaxFault(f'there is no function "{items[0].word}" that takes arguments', items[0].offset)
        look_up = _lookup_of(items)
    else:
        look_up = make_path(items[0])

    if escape:
        return lambda scope, output: output.add(escaped(to_text(look_up(scope))))
    return lambda scope, output: output.add(to_text(look_up(scope)))


def _lookup_of(items: list[Item]) -> Lookup:
    """Make {{lookup object name}}: a member whose name is itself a value."""
    whole, part = make_lookup(items[1]), make_lookup(items[2])
    return lambda scope: member(whole(scope), to_text(part(scope)))


def _block(block: _Block) -> _Step:
    """Make the step of a whole block."""
    tag = block.tag
    body, inverse = tuple(block.body), tuple(block.inverse)
    if tag.kind == INVERSE:
        body, inverse = inverse, body
    word, arguments = tag.items[0].word, tag.items[1:]
    if word in ("if", "unless"):
        return _condition(tag, (inverse, body) if word == "unless" else (body, inverse))
    if word in ("each", "with"):
        if len(arguments) != 1:
            raise SyntaxFault(f'"{word}" takes one argument', tag.offset)
        return (_each if word == "each" else _with)(make_lookup(arguments[0]), body, inverse)
    if arguments:
        raise SyntaxFault(f'there is no block "{word}" that takes arguments; if, unless, each and with do', tag.offset)
    return _section(make_path(tag.items[0]), body, inverse)


def _condition(tag: Tag, sides: tuple[tuple[_Step, ...], tuple[_Step, ...]]) -> _Step:
    """Make `if`, and `unless` with its sides exchanged."""
    arguments = [item for item in tag.items[1:] if not item.name]
    named = [item for item in tag.items[1:] if item.name]
    if len(arguments) != 1 or any(item.name != "includeZero" for item in named):
        raise SyntaxFault(f'"{_name(tag)}" takes one argument', tag.offset)
    look_up, yes, no = make_lookup(arguments[0]), *sides
    zero_counts = make_lookup(named[0]) if named else None

    def choose(scope: Scope, output: _Output) -> None:
        value = look_up(scope)
        if zero_counts is not None and is_true(zero_counts(scope)):
            truth = not is_empty(value)
        else:
            truth = is_true(value)
        _run(yes if truth else no, scope, output)

    return choose


def _with(look_up: Lookup, body: tuple[_Step, ...], inverse: tuple[_Step, ...]) -> _Step:
    def enter(scope: Scope, output: _Output) -> None:
        value = look_up(scope)
        if is_empty(value):
            _run(inverse, scope, output)
        else:
            _run(body, _within(scope, value), output)

    return enter


def _each(look_up: Lookup, body: tuple[_Step, ...], inverse: tuple[_Step, ...]) -> _Step:
    def go_round(scope: Scope, output: _Output) -> None:
        value = look_up(scope)
        if isinstance(value, list | dict) and value:
            _rounds(value, body, scope, output)
        else:
            _run(inverse, scope, output)

    return go_round


def _section(look_up: Lookup, body: tuple[_Step, ...], inverse: tuple[_Step, ...]) -> _Step:
    """Make {{#name}}: a loop for a list, a condition for true and false, else the value as context."""

    def enter(scope: Scope, output: _Output) -> None:
        value = look_up(scope)
        if value is None or value is False or value == []:
            _run(inverse, scope, output)
        elif isinstance(value, list):
            _rounds(value, body, scope, output)
        else:
            _run(body, scope if value is True else _within(scope, value), output)

    return enter


def _rounds(value: list[Any] | dict[str, Any], body: tuple[_Step, ...], scope: Scope, output: _Output) -> None:
    """Go through a list or the members of an object."""
    loop = Loop(scope.loop)
    inner = Scope(None, scope, loop, scope.root)
    last = len(value) - 1
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for index, (key, each) in enumerate(pairs):
        loop.index, loop.key, loop.first, loop.last = index, key, index == 0, index == last
        inner.context = each
        _run(body, inner, output)


def _within(scope: Scope, value: object) -> Scope:
    """Enter a context; one that is the same already does not count for "../"."""
    return scope if value is scope.context else Scope(value, scope, scope.loop, scope.root)
