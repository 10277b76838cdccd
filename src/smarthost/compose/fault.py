"""A fault of a request: which field it is about, and what is wrong with it."""

import msgspec


class FieldFault(msgspec.Struct, frozen=True, gc=False):
    """One fault. `field` is a path as in "attachments[2].url", "" for the whole; `message` is for a person."""

    field: str
    message: str


def excerpt(text: str) -> str:
    """Give a text as a message may quote it: printable, and at most 80 characters of it."""
    shown = text if len(text) <= 80 else text[:77] + "..."
    return '"' + "".join(letter if letter.isprintable() else "?" for letter in shown) + '"'
