"""Reads [outreach]: what applications are told of their mail, and where."""

import re

from smarthost.config_read import Table, read_bool, read_count, read_positive_duration, read_text, show
from smarthost.config_words import read_optional
from smarthost.crypto.webhook import secret_fault
from smarthost.policy.client_sync import BATCH, INTERVAL, OutreachTerms, SyncTarget
from smarthost.policy.webhook import url_fault

MOST_BATCH = 5000
_TOPIC = re.compile(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:\d{12}:[A-Za-z0-9_-]{1,256}(\.fifo)?")


def read_outreach(table: Table) -> OutreachTerms:
    """Read [outreach] and [[outreach.tenant]]."""
    allow = table.take("allow_private_urls", read_bool, False)
    topics = table.take_list("sns_topics", _read_topic)
    sync = _read_target(table)
    tenants: dict[str, SyncTarget] = {}
    for each in table.tables("tenant"):
        name = each.take("name", read_text, "")
        if not name:
            each.refuse("name", "is missing; give the tenant's name")
        elif name in tenants:
            each.refuse("name", "the same tenant is given twice")
        target = _read_target(each)
        if target is None and not each.has("client_sync_url"):
            each.refuse("client_sync_url", "is missing")
        each.finish()
        if target is not None:
            tenants[name] = target
    table.finish()
    return OutreachTerms(allow, topics, sync, tenants)


def _read_target(table: Table) -> SyncTarget | None:
    url = table.take("client_sync_url", read_optional(_read_url), "")
    target = SyncTarget(
        url=url,
        token=table.secret("client_sync_token"),
        user=table.take("client_sync_user", read_text, ""),
        password=table.secret("client_sync_password"),
        secret=table.secret("client_sync_secret"),
        interval=table.take("client_sync_interval", read_positive_duration, INTERVAL),
        batch=table.take("client_sync_batch", read_count, BATCH),
    )
    if target.secret and (wrong := secret_fault(target.secret)):
        table.refuse("client_sync_secret", wrong)
    if target.batch > MOST_BATCH:
        table.refuse("client_sync_batch", f"is {target.batch}; allowed are 1 to {MOST_BATCH} reports")
    given = [key for key in ("token", "user", "secret") if getattr(target, key)]
    if len(given) > 1:
        names = " and ".join(f"client_sync_{key}" for key in given)
        table.refuse(f"client_sync_{given[-1]}", f"{names} are both given; give one way to log in")
    if target.password and not target.user:
        table.refuse("client_sync_password", "is given without client_sync_user")
    return target if url else None


def _read_topic(value: object) -> str:
    if not isinstance(value, str) or _TOPIC.fullmatch(value) is None:
        raise ValueError(f'is {show(value)}, but must be a topic as "arn:aws:sns:eu-west-1:123456789012:bounces"')
    return value


def _read_url(value: object) -> str:
    if not isinstance(value, str) or (wrong := url_fault(value)):
        raise ValueError(f"is {show(value)}, but {wrong if isinstance(value, str) else 'must be a text'}")
    return value
