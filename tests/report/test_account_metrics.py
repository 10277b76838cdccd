"""Metrics by account, as a mail proxy's dashboards read them."""

from prometheus_client.core import Metric

from smarthost.report.account_metrics import collect_accounts, label_of


def samples(metrics: list[Metric]) -> dict[tuple[str, str], float]:
    """Give each sample by its name and account."""
    return {
        (sample.name, sample.labels.get("account_id", "")): sample.value
        for metric in metrics
        for sample in metric.samples
    }


def collect(recipients: dict[tuple[str, str], int], accounts: tuple[str, ...] = ()) -> dict[tuple[str, str], float]:
    """Give the samples of some counts."""
    return samples(list(collect_accounts(recipients, {"account:acme:a": 3}, accounts, 7.0)))


def test_every_series_is_there_from_the_start() -> None:
    """Without any mail each counter stands at 0 for mail of no account and for each account."""
    found = samples(list(collect_accounts({}, {}, ("main", "acme/a"), 0.0)))
    names = ("mail_sent_total", "mail_error_total", "mail_deferred_total", "mail_rate_limited_total")
    assert found == {(name, account): 0.0 for name in names for account in ("default", "main", "acme/a")} | {
        ("mail_pending", ""): 0.0
    }


def test_recipients_count_for_their_account() -> None:
    """Relayed, failed and delayed become sent, error and deferred; routes of no account are added up."""
    found = collect(
        {
            ("relayhost", "relayed"): 1,
            ("mx", "relayed"): 2,
            ("account:default:main", "relayed"): 5,
            ("account:acme:a", "failed"): 4,
            ("mx", "delayed"): 6,
        },
        (label_of("default", "main"),),
    )
    assert found["mail_sent_total", "default"] == 3
    assert found["mail_sent_total", "main"] == 5
    assert found["mail_error_total", "acme/a"] == 4 and found["mail_error_total", "main"] == 0
    assert found["mail_deferred_total", "default"] == 6
    assert found["mail_rate_limited_total", "acme/a"] == 3
    assert found["mail_pending", ""] == 7


def test_labels_are_bounded() -> None:
    """Beyond 200 accounts the rest is one series, and no count is lost."""
    found = collect({(f"account:acme:{number}", "relayed"): 1 for number in range(500)})
    sent = {account: value for (name, account), value in found.items() if name == "mail_sent_total"}
    assert sum(sent.values()) == 500 and "other" in sent and len(sent) <= 202
