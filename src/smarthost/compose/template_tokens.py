"""Cuts a Handlebars template into text and tags, with its rules for white space applied to the text."""

import re
from collections.abc import Iterator

import msgspec

# What opens a tag, in the order in which it has to be looked for.
_OPEN = re.compile(r"\{\{(~?)(!--|!|\{|&|#|/|\^|>|\*)?")
_ITEM = re.compile(
    r"""\s*(?:
        (?P<end>\}?~?\}\})
      | (?P<text>"(?:[^"\\]|\\.)*+"|'(?:[^'\\]|\\.)*+')
      | (?P<equals>=)
      | (?P<word>@?(?:\[[^\]\n]*+\]|[^\s!"\#%&'()*+,;<=>@\[\\\]^`{|}~])++)
    )""",
    re.VERBOSE | re.DOTALL,
)
_LINE_BEFORE = re.compile(r"(?:^|\n)[ \t]*\Z")
_FULL_LINE_BEFORE = re.compile(r"\n[ \t]*\Z")
_LINE_AFTER = re.compile(r"[ \t]*(?:\r?\n|\Z)")
_FULL_LINE_AFTER = re.compile(r"[ \t]*\r?\n")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)

VALUE, BLOCK, INVERSE, ELSE, CLOSE, COMMENT = "value", "block", "inverse", "else", "close", "comment"
_MARKS = {"#": BLOCK, "/": CLOSE, "^": INVERSE, "!": COMMENT, "!--": COMMENT}
_REFUSED = {">": "partials ({{> name}})", "*": "decorators ({{* name}})"}


class TemplateFault(msgspec.Struct, frozen=True, gc=False):
    """What is wrong with a template, or with rendering it; line and column count from 1, 0 where none is to blame."""

    message: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        """Write it with its place."""
        return f"line {self.line}, column {self.column}: {self.message}" if self.line else self.message


class SyntaxFault(Exception):
    """A template cannot be read; carries the offset of what is wrong."""

    def __init__(self, message: str, offset: int) -> None:
        """Take what is wrong, and where."""
        super().__init__(message)
        self.message, self.offset = message, offset


class Item(msgspec.Struct, frozen=True, gc=False):
    """A word of a tag: a path or a literal, with the name of its hash argument or ""."""

    word: str
    offset: int
    is_text: bool = False
    name: str = ""


class Tag(msgspec.Struct, gc=False):
    """A tag. `items` are its words; `raw` says that its value is not escaped."""

    kind: str
    offset: int
    items: list[Item]
    raw: bool = False
    strips_left: bool = False
    strips_right: bool = False


Token = str | Tag


def tokens_of(source: str) -> list[Token]:
    """Cut a template; raises SyntaxFault. Text that white-space control took away is not there any more."""
    found = list(_cut(source))
    return [token for token in _without_space(found) if token != ""]


def _cut(source: str) -> Iterator[Token]:
    """Give text and tags by turns; there is a text, maybe an empty one, before and behind each tag."""
    done = position = 0
    text: list[str] = []
    while (start := source.find("{{", position)) >= 0:
        if source[start - 1 : start] == "\\" and start > done:
            doubled = source[start - 2 : start - 1] == "\\" and start - 1 > done
            text.append(source[done : start - 1])
            done = start
            if not doubled:
                text.append("{{")
                done = position = start + 2
                continue
        text.append(source[done:start])
        yield "".join(text)
        text = []
        tag, done = _read_tag(source, start)
        position = done
        yield tag
    text.append(source[done:])
    yield "".join(text)


def _read_tag(source: str, start: int) -> tuple[Tag, int]:
    """Read the tag at an offset; gives it and the offset behind it."""
    if source.startswith("{{{{", start):
        raise SyntaxFault("raw blocks ({{{{name}}}}) are not supported", start)
    opening = _OPEN.match(source, start)
    assert opening is not None
    mark = opening[2] or ""
    if mark in _REFUSED:
        raise SyntaxFault(f"{_REFUSED[mark]} are not supported", start)
    tag = Tag(_MARKS.get(mark, VALUE), start, [], mark in ("{", "&"), bool(opening[1]))
    if tag.kind == COMMENT:
        return _read_comment(source, opening.end(), tag, "--" if mark == "!--" else "")
    end = _read_items(source, opening.end(), tag)
    closing = end.group("end")
    if closing.startswith("}~") or closing == "}}}":
        if mark != "{":
            raise SyntaxFault('"}}}" closes what "{{{" opens', end.start("end"))
    elif mark == "{":
        raise SyntaxFault('"{{{" has to be closed by "}}}"', start)
    tag.strips_right = "~" in closing
    if tag.kind == INVERSE and not tag.items:
        tag.kind = ELSE
    elif tag.kind == VALUE and not tag.raw and tag.items and tag.items[0].word == "else" and not tag.items[0].is_text:
        tag.kind = ELSE
        del tag.items[0]
    elif not tag.items:
        raise SyntaxFault("the tag is empty", start)
    return tag, end.end()


def _read_comment(source: str, position: int, tag: Tag, dashes: str) -> tuple[Tag, int]:
    """Pass over a comment; one with dashes may hold braces."""
    end = source.find(f"{dashes}}}}}", position)
    stripping = source.find(f"{dashes}~}}}}", position)
    if stripping >= 0 and (end < 0 or stripping < end):
        end, tag.strips_right = stripping, True
    if end < 0:
        raise SyntaxFault("the comment is not closed", tag.offset)
    return tag, end + len(dashes) + (3 if tag.strips_right else 2)


def _read_items(source: str, position: int, tag: Tag) -> re.Match[str]:
    """Read the words of a tag into it; gives the match of what closes it."""
    name = ""
    while (found := _ITEM.match(source, position)) is not None:
        if found.lastgroup == "end":
            if name:
                raise SyntaxFault(f'"{name}=" has no value', found.start("end"))
            return found
        position = found.end()
        if found.lastgroup == "equals":
            if name or not tag.items or tag.items[-1].is_text or tag.items[-1].name:
                raise SyntaxFault('"=" has no name before it', found.start("equals"))
            name = tag.items.pop().word
        else:
            kind = found.lastgroup or ""
            word = _ESCAPE.sub(r"\1", found[kind][1:-1]) if kind == "text" else found[kind]
            tag.items.append(Item(word, found.start(kind), kind == "text", name))
            name = ""
    offset = position + len(source[position:]) - len(source[position:].lstrip())
    if offset >= len(source):
        raise SyntaxFault("the tag is not closed", tag.offset)
    if source[offset] in "()":
        raise SyntaxFault("subexpressions are not supported", offset)
    if source[offset] == "|":
        raise SyntaxFault("block parameters (as |name|) are not supported", offset)
    raise SyntaxFault(f'"{source[offset]}" is not expected here', offset)


def _without_space(tokens: list[Token]) -> list[Token]:
    """Strip the text beside "~", and the lines that hold nothing but one block tag or comment.

    Both are decided by the text as it was written, so that one tag never changes what holds for the next.
    """
    stripped = list(tokens)
    for place, tag in enumerate(tokens):
        if isinstance(tag, str):
            continue
        before, after = tokens[place - 1], tokens[place + 1]
        left, right = stripped[place - 1], stripped[place + 1]
        assert isinstance(before, str) and isinstance(after, str) and isinstance(left, str) and isinstance(right, str)
        is_first, is_last = place == 1, place == len(tokens) - 2
        if (
            tag.kind != VALUE
            and (_LINE_BEFORE if is_first else _FULL_LINE_BEFORE).search(before)
            and (_LINE_AFTER if is_last else _FULL_LINE_AFTER).match(after)
        ):
            left = left.rstrip(" \t")
            right = _LINE_AFTER.sub("", right, count=1)
        stripped[place - 1] = left.rstrip() if tag.strips_left else left
        stripped[place + 1] = right.lstrip() if tag.strips_right else right
    return stripped
