"""Cuts a JSON object that comes in blocks into its members, and one long array among them into its elements."""

import re

_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_FLAT = rb'[^"{}]++|' + _STRING
_INNER = rb"\{(?:" + _FLAT + rb")*+\}"
_MIDDLE = rb"\{(?:" + _FLAT + rb"|" + _INNER + rb")*+\}"
_OBJECT = rb"(\{(?:" + _FLAT + rb"|" + _MIDDLE + rb")*+\})"
# Nearly every element: an object, not deeper than three, with what stands behind it. What this does not match is gone
# through mark by mark.
_ELEMENT = re.compile(rb"[ \t\n\r]*+" + _OBJECT + rb"[ \t\n\r]*+([,\]])", re.DOTALL)
_BLANK = re.compile(rb"[ \t\n\r]*+")
_MARK = re.compile(_STRING + rb'|[{}\[\]"]', re.DOTALL)
_TEXT = re.compile(_STRING, re.DOTALL)
_SCALAR = re.compile(rb"[^ \t\n\r,\]}\[{:\"]++")

_BEGIN, _FIRST, _NAME, _COLON, _VALUE, _BEHIND, _ELEMENT_FIRST, _ELEMENT_NEXT, _ELEMENT_BEHIND, _END = range(10)
_BRACE, _CLOSE, _BRACKET, _SHUT, _COMMA, _POINTS, _QUOTE = b'{}[],:"'

Member = tuple[bytes, bytes]
"""The name of a member as it is written, with its quotes, and its value; of the array, each element is one."""


class JsonCutter:
    """Gives the members of one object as they become whole. What they hold is for a decoder to check.

    `array` names the member whose elements are given one by one; `most` is the longest name, value or element, in
    octets. `fault` says what is wrong with the structure; nothing is given from then on.
    """

    __slots__ = ("_array", "_has_array", "_most", "_name", "_rest", "_state", "fault")

    def __init__(self, array: str, most: int) -> None:
        """Start before the first octet."""
        self._array, self._most = b'"%s"' % array.encode(), most
        self._rest, self._name = b"", b""
        self._state, self._has_array = _BEGIN, False
        self.fault = ""

    @property
    def is_whole(self) -> bool:
        """Whether the object has ended."""
        return self._state == _END and not self.fault

    def feed(self, block: bytes) -> list[Member]:
        """Take a block, and give what has become whole by it."""
        found: list[Member] = []
        if self.fault:
            return found
        octets = self._rest + block if self._rest else block
        at = 0
        while not self.fault:
            if self._state in (_ELEMENT_FIRST, _ELEMENT_NEXT):
                at = self._cut_elements(octets, at, found)
            after = self._step(octets, at, found)
            if after < 0:
                break
            at = after
        self._rest = octets[at:]
        if len(self._rest) > self._most and not self.fault:
            self.fault = f"a part of it is longer than {self._most} octets"
        return found

    def _cut_elements(self, octets: bytes, at: int, found: list[Member]) -> int:
        """Take as many usual elements as there are; gives where they end."""
        match, array = _ELEMENT.match, self._array
        while (usual := match(octets, at)) is not None:
            found.append((array, usual[1]))
            at = usual.end()
            if usual[2] == b"]":
                self._state = _BEHIND
                break
            self._state = _ELEMENT_NEXT
        return at

    def _step(self, octets: bytes, at: int, found: list[Member]) -> int:
        """Go on by one mark, name or value; gives the place behind it, -1 where more octets are needed."""
        blank = _BLANK.match(octets, at)
        at = blank.end() if blank is not None else at
        if at == len(octets):
            return -1
        state, mark = self._state, octets[at]
        if state == _END:
            return self._refuse("something stands behind its end")
        if state == _BEGIN:
            return at + 1 if self._turn(mark == _BRACE, _FIRST, "it is no object") else -1
        if mark == _CLOSE and state in (_FIRST, _BEHIND):
            self._state = _END
            return at + 1
        if state == _BEHIND:
            return at + 1 if self._turn(mark == _COMMA, _NAME, 'a "," or "}" is missing') else -1
        if state == _COLON:
            return at + 1 if self._turn(mark == _POINTS, _VALUE, 'a ":" is missing') else -1
        if state in (_FIRST, _NAME):
            return self._take_name(octets, at)
        if state == _ELEMENT_BEHIND:
            if mark == _SHUT:
                self._state = _BEHIND
                return at + 1
            return at + 1 if self._turn(mark == _COMMA, _ELEMENT_NEXT, 'a "," or "]" is missing') else -1
        if state == _ELEMENT_FIRST and mark == _SHUT:
            self._state = _BEHIND
            return at + 1
        return self._take_value(octets, at, found)

    def _take_name(self, octets: bytes, at: int) -> int:
        if octets[at] != _QUOTE:
            return self._refuse("the name of a member is missing")
        name = _TEXT.match(octets, at)
        if name is None:
            return -1
        self._name, self._state = name[0], _COLON
        return name.end()

    def _take_value(self, octets: bytes, at: int, found: list[Member]) -> int:
        """Take a value, or go into the array."""
        is_array = self._name == self._array
        if self._state == _VALUE and is_array:
            if octets[at] != _BRACKET or self._has_array:
                wrong = "is there twice" if self._has_array else "is no array"
                return self._refuse(f"{self._array.decode()} {wrong}")
            self._has_array, self._state = True, _ELEMENT_FIRST
            return at + 1
        end = _end_of(octets, at)
        if end <= at:
            return -1 if end < 0 else self._refuse("a value is missing")
        if end - at > self._most:
            return self._refuse(f"a part of it is longer than {self._most} octets")
        found.append((self._name, octets[at:end]))
        self._state = _BEHIND if self._state == _VALUE else _ELEMENT_BEHIND
        return end

    def _turn(self, fits: bool, state: int, wrong: str) -> bool:
        if fits:
            self._state = state
        else:
            self.fault = wrong
        return fits

    def _refuse(self, wrong: str) -> int:
        self.fault = wrong
        return -1


def _end_of(octets: bytes, at: int) -> int:
    """Give the place behind the value that begins at one; -1 where it has not ended, the place itself without one."""
    mark = octets[at]
    if mark == _QUOTE:
        text = _TEXT.match(octets, at)
        return text.end() if text is not None else -1
    if mark not in (_BRACE, _BRACKET):
        scalar = _SCALAR.match(octets, at)
        if scalar is None:
            return at
        # A number may go on in the next block.
        return scalar.end() if scalar.end() < len(octets) else -1
    depth = 0
    for found in _MARK.finditer(octets, at):
        first = octets[found.start()]
        if first in (_BRACE, _BRACKET):
            depth += 1
        elif first in (_CLOSE, _SHUT):
            depth -= 1
            if not depth:
                return found.end()
        elif found.end() - found.start() == 1:
            return -1  # a text that has not ended
    return -1
