"""Reads what a message in JSON may be, where its attachments may come from, and what becomes of large ones."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from smarthost.compose.limits import SubmissionLimits
from smarthost.config_read import (
    Table,
    read_bool,
    read_choice,
    read_count,
    read_name,
    read_positive_duration,
    read_positive_size,
    read_size,
    read_text,
    show,
)
from smarthost.config_words import read_optional
from smarthost.policy.attachments import (
    AttachmentSettings,
    AttachmentTerms,
    CacheSettings,
    LargeAction,
    LargeSettings,
    S3Settings,
    UrlSettings,
)

MOST_RECIPIENTS = 1000  # of one request; more are a batch
LONGEST_SUBJECT = 998  # characters, as many as a line may have (RFC 5322 2.1.1)
MOST_ATTACHMENTS = 1000
MOST_RETRIES = 10
SHORTEST_SECRET = 32  # characters
_MIB = 1024 * 1024
_AWS = ".amazonaws.com"


def read_attachments(http: Table) -> tuple[SubmissionLimits, AttachmentTerms]:
    """Read what one message in JSON may be, of which a part stands in [http] itself, and all about attachments."""
    table = http.table("attachments")
    limits = _read_limits(http, table)
    url, cache = UrlSettings(), CacheSettings()
    retries = table.take("retries", _read_from_zero(MOST_RETRIES), url.attempts - 1)
    terms = AttachmentTerms(
        AttachmentSettings(
            UrlSettings(table.take("timeout", read_positive_duration, url.timeout), retries + 1),
            _read_s3(table.table("s3")) if table.has("s3") else None,
            table.take_list("storage_roots", _read_folder),
            limits.attachment,
            limits.attachments,
        ),
        table.take("allow_private_urls", read_bool, False),
        CacheSettings(
            table.take("cache_size", read_size, cache.octets),
            table.take("cache_age", read_positive_duration, cache.age),
            table.take("cache_directory", read_optional(_read_whole_path), ""),
        ),
        _read_large(http.table("large_attachments")),
    )
    table.finish()
    return limits, terms


def _read_limits(http: Table, table: Table) -> SubmissionLimits:
    default = SubmissionLimits()
    limits = SubmissionLimits(
        recipients=http.take("max_recipients", _read_up_to(MOST_RECIPIENTS), default.recipients),
        subject=http.take("max_subject", _read_up_to(LONGEST_SUBJECT), default.subject),
        metadata=http.take("max_metadata", read_size, default.metadata),
        attachment=table.take("max_size", read_positive_size, default.attachment),
        attachments=table.take("max_total_size", read_positive_size, default.attachments),
        attachment_count=table.take("max_count", _read_up_to(MOST_ATTACHMENTS), default.attachment_count),
    )
    if limits.attachment > limits.attachments:
        table.refuse("max_total_size", f"is less than max_size, which is {limits.attachment} octets")
    return limits


def _read_s3(table: Table) -> S3Settings:
    region = table.take("region", read_name, S3Settings().region)
    endpoint = table.take("endpoint", read_optional(_read_url), "").rstrip("/") or f"https://s3.{region}{_AWS}"
    is_amazons = (urlsplit(endpoint).hostname or "").endswith(_AWS)
    settings = S3Settings(
        endpoint=endpoint,
        region=region,
        access_key=table.secret("access_key"),
        secret_key=table.secret("secret_key"),
        session_token=table.secret("session_token"),
        path_style=table.take("path_style", read_bool, not is_amazons),
        buckets=table.take_list("buckets", read_name),
    )
    for key in ("access_key", "secret_key"):
        if not table.has(key) and not table.has(f"{key}_file"):
            table.refuse(key, f"is missing; give {key} or {key}_file")
    if urlsplit(endpoint).path:
        table.refuse("endpoint", f"is {show(endpoint)}, but must be an address without a path")
    table.finish()
    return settings


def _read_large(table: Table) -> LargeSettings:
    default = LargeSettings()
    settings = LargeSettings(
        above=table.take("max_size_mb", _read_mebibytes, default.above),
        action=table.take("action", read_choice(LargeAction), default.action),
        lifetime=table.take("lifetime", read_positive_duration, default.lifetime),
        public_url=table.take("public_url", read_optional(_read_url), ""),
        secret=table.secret("secret"),
        folder=table.take("directory", read_optional(_read_whole_path), ""),
    )
    if settings.action is LargeAction.REWRITE and not table.values.get("public_url"):
        table.refuse("public_url", 'is missing, and action is "rewrite": say where recipients reach this relay')
    if settings.secret and len(settings.secret) < SHORTEST_SECRET:
        key = "secret" if table.has("secret") else "secret_file"
        table.refuse(key, f"has fewer than {SHORTEST_SECRET} characters")
        settings = msgspec.structs.replace(settings, secret="")
    table.finish()
    return settings


def _read_up_to(most: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        count = read_count(value)
        if count > most:
            raise ValueError(f"is {count}; allowed are 1 to {most}")
        return count

    return read


def _read_from_zero(most: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        text = str(value)
        if isinstance(value, bool) or not (text.isascii() and text.isdigit()) or int(text) > most:
            raise ValueError(f"is {show(value)}, but must be a whole number from 0 to {most}")
        return int(text)

    return read


def _read_mebibytes(value: object) -> int:
    """Read a number of MiB as octets; 0 switches it off."""
    try:
        number = float(str(value))
    except ValueError:
        number = -1.0
    if isinstance(value, bool) or not 0.0 <= number <= 1024.0:
        raise ValueError(f"is {show(value)}, but must be a number of MiB from 0, which is off, to 1024")
    return int(number * _MIB)


def _read_url(value: object) -> str:
    text = read_text(value)
    try:
        parts = urlsplit(text)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(f'is {show(value)}, but must be an address as "https://mail.example.org", without a login')
    return text


def _read_whole_path(value: object) -> str:
    path = Path(read_name(value)).expanduser()
    if not path.is_absolute():
        raise ValueError(f"is {show(value)}, but must be the whole path of a folder, from /")
    return str(path)


def _read_folder(value: object) -> str:
    path = _read_whole_path(value)
    if not Path(path).is_dir():
        raise ValueError(f"is {show(value)}, but there is no such folder")
    return path
