"""What the simulation found, each as the smallest run that shows it."""

from scenario import SITE, run, scenario, taken
from sim_plan import LIFETIME
from sim_site import Temper


def test_what_a_rate_holds_back_expires_in_time() -> None:
    """Mail that waits in memory for a rate is found when its lifetime ends, though its site was not resolved since."""
    found = run(scenario(Temper(), [(1.0, ("ann",))] * 12, message_rate=("2/h",)))
    ends = [at for at, text, values in found.world.trace if text.startswith("%s to %s:") and values[2] == "expired"]
    assert len(ends) == 10
    assert max(ends) < LIFETIME + 20.0


def test_a_used_up_quota_opens_no_sessions() -> None:
    """While a quota lets nothing through, no session is opened: it would idle until it ends."""
    plan = scenario(Temper(), [(1.0, ("ann",))] * 30, message_rate=("5/h",), idle_timeout=1.0)
    found = run(plan)
    assert len(taken(found, "messages")) == 5
    assert len(taken(found, "connections")) < 10


def test_what_one_attempt_decided_does_not_count_in_the_next() -> None:
    """A recipient that was delayed before the site went down is tried in the next attempt like the others."""
    temper = Temper()
    temper.latency, temper.down = 0.1, [(0.75, 10.0)]
    plan = scenario(
        temper,
        [(0.1, ("ann", "bob"))],
        {"ann": (10.0, b"450 4.2.1 not now")},
        max_recipients_per_transaction=1,
        max_messages_per_connection=1,
        max_connections=1,
    )
    found = run(plan)
    ends = {
        values[1]: at
        for at, text, values in found.world.trace
        if text.startswith("%s to %s:") and values[2] == "relayed"
    }
    assert set(ends) == {f"ann@{SITE}", f"bob@{SITE}"}
    assert max(ends.values()) - min(ends.values()) < 10.0


def test_a_time_that_was_named_is_kept_when_the_site_goes_down_between_two_parts() -> None:
    """What a recipient was told is not forgotten when its message's next transaction is given up with its site."""
    temper = Temper()
    temper.latency, temper.down = 0.1, [(0.75, 10.0)]
    plan = scenario(
        temper,
        [(0.1, ("ann", "bob")), (0.1, ("ann", "bob"))],
        {"ann": (10.0, b"450 4.2.1 not now, try again in 5 minutes")},
        max_recipients_per_transaction=1,
        max_messages_per_connection=1,
        max_connections=2,
    )
    found = run(plan)
    ends = [at for at, text, values in found.world.trace if text.startswith("%s to %s:") and "ann" in values[1]]
    assert len(ends) == 2 and min(ends) > 300.0


def test_a_reload_gives_a_site_no_more_connections() -> None:
    """Sessions of the configuration before count until they have ended."""
    temper = Temper()
    temper.think = 2.0
    plan = scenario(temper, [(float(n), ("ann",)) for n in range(1, 21)], max_connections=1)
    plan.reloads = [5.0, 6.0, 9.0]
    run(plan)


def test_a_row_that_is_read_while_it_is_settled_is_not_sent_again() -> None:
    """What a queue's reading finds may have been relayed before the reading ends."""
    temper = Temper()
    temper.latency = 0.001
    plan = scenario(temper, [(n * 0.002, (f"p{n}",)) for n in range(300)], max_connections=2)
    plan.bounds = {"QUEUE_BOUND": 6, "CROWDED_BOUND": 2, "TOTAL_BOUND": 60}
    run(plan)


def test_a_report_is_written_before_what_comes_behind_it() -> None:
    """A recipient that fails in the first of two transactions ends before the other, however long its report takes."""
    temper = Temper()
    temper.latency, temper.think = 0.0001, 0.0001
    mails = [(float(n), ("ann", "bob")) for n in range(30)]
    found = run(scenario(temper, mails, {"ann": (1e9, b"550 5.1.1 no such user")}, max_recipients_per_transaction=1))
    ends = [values[:2] for _, text, values in found.world.trace if text.startswith("%s to %s:")]
    for number in range(30):
        mine = [recipient for key, recipient in ends if key == f"m{number}"]
        assert mine == [f"ann@{SITE}", f"bob@{SITE}"]


def test_what_a_person_deletes_leaves_memory() -> None:
    """Contents of messages that are deleted while they wait for a slow site do not stay in memory."""
    temper = Temper()
    temper.think = 3.0
    plan = scenario(temper, [(1.0, ("ann",))] * 40, max_connections=1)
    plan.acts = [(5.0, "delete", SITE)]
    found = run(plan)
    assert len(taken(found, "messages")) < 10


def test_replies_to_content_decide_nothing() -> None:
    """A site that offers CHUNKING and knows no BDAT answers 500 to each line of the content; nobody fails by that."""
    temper = Temper()
    temper.chunking, temper.refusals = "liar", 0.3
    for seed in range(6):
        found = run(scenario(temper, [(1.0, ("ann", "bob"))] * 20, max_connections=1), seed)
        assert not [
            values for _, text, values in found.world.trace if text.startswith("%s to %s:") and values[3] == 500
        ]


def test_recipients_that_are_delayed_one_by_one_are_asked_for_once_an_attempt() -> None:
    """Where each transaction has one recipient and several are refused for now, the others have their turn at once."""
    refusal = (600.0, b"450 4.2.1 not now")
    plan = scenario(
        Temper(),
        [(1.0, ("ann", "bob", "cat", "dan"))],
        {"ann": refusal, "bob": refusal, "cat": refusal},
        max_recipients_per_transaction=1,
    )
    found = run(plan)
    ends = {values[1]: at for at, text, values in found.world.trace if text.startswith("%s to %s:")}
    assert ends[f"dan@{SITE}"] < 5.0
    assert len(taken(found, "messages")) < 30
