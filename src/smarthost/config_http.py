"""Reads [http]: where the HTTP door is, who the operator is, and what a request may be."""

import re

import msgspec

from smarthost.compose.limits import SubmissionLimits
from smarthost.config_attachments import read_attachments
from smarthost.config_read import Table, read_duration, read_path, read_positive_duration, read_positive_size, show
from smarthost.config_words import read_network, read_optional, read_tcp_place
from smarthost.policy.attachments import AttachmentTerms
from smarthost.policy.http_terms import HttpTerms

HTTP_ADDRESS = "127.0.0.1:9587"

_HASHED = re.compile(r"sha256:([0-9a-f]{64})")
_ALLOWED = 'must be "sha256:" and 64 hexadecimal digits, as smarthost key token prints it'


class HttpSection(msgspec.Struct, frozen=True):
    """What stands in [http]: its address, "" for none, what holds at every HTTP door, and what messages may be."""

    address: str
    terms: HttpTerms
    limits: SubmissionLimits
    attachments: AttachmentTerms


def read_http(table: Table) -> HttpSection:
    """Read [http] and the tables below it."""
    default = HttpTerms()
    address = table.take("address", read_optional(read_tcp_place), HTTP_ADDRESS)
    terms = HttpTerms(
        tokens=table.take_list("tokens", _read_token, or_one=True) + _read_file(table),
        max_request_size=table.take("max_request_size", read_positive_size, default.max_request_size),
        message_keep=table.take("message_keep", read_positive_duration, default.message_keep),
        dead_letter_keep=table.take("dead_letter_keep", read_duration, default.dead_letter_keep),
        idempotency_keep=table.take("idempotency_keep", read_positive_duration, default.idempotency_keep),
        trusted_networks=table.take_list("trusted_networks", read_network),
    )
    if terms.trusted_networks:
        said = "lets whoever asks from there act as the operator, for every tenant, without a token"
        table.warn("trusted_networks", said)
    limits, attachments = read_attachments(table)
    table.finish()
    return HttpSection(address, terms, limits, attachments)


def _read_token(value: object) -> str:
    found = _HASHED.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    if found is None:
        # What stands here may be the token itself, which no message may show.
        raise ValueError(_ALLOWED)
    return found[1]


def _read_file(table: Table) -> tuple[str, ...]:
    """Give the tokens of the file that `tokens_file` names, one a line."""
    file = table.take("tokens_file", read_path, None)
    if file is None:
        return ()
    if table.has("tokens"):
        table.refuse("tokens_file", "and tokens are both given; give one of them")
        return ()
    lines = [line for line in table.secret_file("tokens_file").splitlines() if line.strip()]
    try:
        return tuple(_read_token(line) for line in lines)
    except ValueError as error:
        table.refuse("tokens_file", f"is {show(str(file))}, of which each line {error}")
        return ()
