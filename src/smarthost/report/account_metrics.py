"""Metrics by account: what a mail proxy's dashboards ask for, by the names that they have there."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from smarthost.policy.account import account_of
from smarthost.report.bounded import first_values, fold

DEFAULT = "default"  # of mail that goes by no account
_TENANT = "default"  # whose accounts are named by their id alone
_HELP = {
    "sent": "Recipients that an upstream took, by account. Alert when the rate falls to 0 in hours that have mail.",
    "error": "Recipients that failed for good, by account. Alert when more than 5 % of sent over 15 min.",
    "deferred": "Recipients put off by an attempt, by account. Alert when more than sent over 15 min.",
    "rate_limited": "Times that mail had to wait for a limit, or was refused for one, by account. No alert: it works.",
}
_ACTIONS = {"sent": "relayed", "error": "failed", "deferred": "delayed"}


def label_of(tenant: str, account: str) -> str:
    """Name an account in a label: by its id, behind its tenant's where that is another one than the default."""
    return account if tenant == _TENANT else f"{tenant}/{account}"


def collect_accounts(
    recipients: Mapping[tuple[str, str], int],
    rate_limited: Mapping[str, int],
    accounts: Iterable[str],
    pending: float,
) -> Iterator[Metric]:
    """Give the metrics; `recipients` count by route and action, `rate_limited` by route, and `accounts` are labels that
    are shown from the start. Beyond 200 accounts the rest is "other".
    """
    sums: dict[str, defaultdict[str, float]] = {name: defaultdict(float, {DEFAULT: 0.0}) for name in _HELP}
    kept = first_values((DEFAULT, *accounts, *(_label(route) for route, _ in recipients)))
    for name in accounts:
        for values in sums.values():
            values[fold(name, kept)] += 0.0
    for name, action in _ACTIONS.items():
        for (route, done), count in recipients.items():
            if done == action:
                sums[name][fold(_label(route), kept)] += count
    for route, count in rate_limited.items():
        sums["rate_limited"][fold(_label(route), kept)] += count
    for name, values in sums.items():
        family = CounterMetricFamily(f"mail_{name}", _HELP[name], labels=("account_id",))
        for account, value in values.items():
            family.add_metric((account,), value)
        yield family
    yield GaugeMetricFamily("mail_pending", "Entries in the queue, held ones too. Alert when it keeps rising.", pending)


def _label(route: str) -> str:
    found = account_of(route)
    return DEFAULT if found is None else label_of(*found)
