"""Decides what an address becomes on its way in: the first rule that matches and names the field wins."""

import re
from collections.abc import Iterable

import msgspec

from smarthost.policy.glob import compile_globs


class Rewrite(msgspec.Struct, frozen=True):
    """One rule: what an address that matches the glob becomes in each field; "" leaves the field to other rules."""

    match: str
    reverse_path: str = ""
    header_from: str = ""
    recipient: str = ""


_Table = tuple[tuple[re.Pattern[str], str], ...]


class Rewriter:
    """Rewrites addresses by rules in their order; an address that no rule matches stays as it is.

    `has_rules` says whether there is anything to be asked at all.
    """

    def __init__(self, rules: Iterable[Rewrite]) -> None:
        """Compile the rules, a table for each field."""
        rules = tuple(rules)
        self.has_rules = bool(rules)
        self._reverse_path = _table((rule.match, rule.reverse_path) for rule in rules)
        self._header_from = _table((rule.match, rule.header_from) for rule in rules)
        self._recipient = _table((rule.match, rule.recipient) for rule in rules)

    def reverse_path(self, address: str) -> str:
        """Rewrite a reverse-path; the null reverse-path ("") is never rewritten."""
        return _rewrite(self._reverse_path, address)

    def header_from(self, address: str) -> str:
        """Rewrite the address of the header From."""
        return _rewrite(self._header_from, address)

    def recipient(self, address: str) -> str:
        """Rewrite a recipient's address."""
        return _rewrite(self._recipient, address)


def _table(pairs: Iterable[tuple[str, str]]) -> _Table:
    return tuple((compile_globs((glob,)), address) for glob, address in pairs if address)


def _rewrite(table: _Table, address: str) -> str:
    if address:
        for pattern, replacement in table:
            if pattern.fullmatch(address):
                return replacement
    return address
