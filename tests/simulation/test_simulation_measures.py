"""Rules on replies, suspensions and TLS policies in the simulation, each as the smallest run that shows a defect."""

from dataclasses import replace

from scenario import SITE, run, scenario
from sim_plan import HOME, Mail, Plan, _add_site
from sim_run import Run
from sim_site import Temper

from smarthost.mail.envelope import Priority
from smarthost.mail.route import TlsLevel
from smarthost.policy.automation import AutomationRule, Remedy, ReplyMatch
from smarthost.policy.conversion import Conversion, Conversions
from smarthost.policy.limits import Limit, LimitMatch
from smarthost.policy.rate import Rate
from smarthost.policy.suppression import SuppressionPoint, SuppressionRules

ASIDE = "aside.example"


def world(temper: Temper, mails: list[Mail], hosts: int = 1) -> Plan:
    """Plan mail for a site of some hosts, with one address each."""
    plan = Plan()
    _add_site(plan, HOME, [HOME], [1], Temper())
    _add_site(plan, SITE, [SITE], [1] * hosts, temper)
    plan.mails = mails
    return plan


def mail(number: int, at: float, name: str = "ann", identity: str = "app1") -> Mail:
    """Make one message for somebody at the site."""
    return Mail(number, at, f"ann@{HOME}", (f"{name}@{SITE}",), 0, 100, identity, Priority.MEDIUM)


def said(found: Run, text: str) -> list[float]:
    """Give when a line with a text was written to the story, in seconds since the beginning."""
    return [at for at, line, values in found.world.trace if text in (line % values if values else line)]


def ends(found: Run) -> dict[str, str]:
    """Give how each message ended."""
    return {values[0]: values[2] for _, text, values in found.world.trace if text.startswith("%s to %s:")}


def test_what_a_rule_fails_does_not_go_on_at_another_host() -> None:
    """A 4yz to a whole transaction that a rule makes final is not tried at the site's other host after its report."""
    temper = Temper()
    temper.refusals = 0.6
    plan = world(temper, [mail(n, 1.0 + n) for n in range(40)], hosts=2)
    plan.rules = [AutomationRule("give up", ReplyMatch(r"45\d 4\.[37]\.[01]"), Remedy.FAIL)]
    found = run(plan)
    assert "failed" in ends(found).values() and "relayed" in ends(found).values()


def test_mail_that_a_detour_leaves_behind_finds_its_own_way() -> None:
    """What waits on a detour when that ends goes by its own route again, and does not go round in circles."""
    plan = world(Temper(), [mail(0, 1.0, "bob"), *(mail(n, 5.0 + n / 4) for n in range(1, 60))])
    plan.refusals = {f"bob@{SITE}": (10.0, b"450 4.7.1 not from you")}
    _add_site(plan, "r0.example", [], [1], Temper())
    _add_site(plan, ASIDE, [], [1], Temper())
    plan.relayhosts, plan.pool, plan.aside, plan.ttl = ["r0.example"], [(1, 1, ())], ASIDE, 5.0
    plan.limits = [Limit(LimitMatch(destination=SITE), message_rate=("20/min",), number=1)]
    plan.rules = [AutomationRule("aside", ReplyMatch(r"4\.7\.1"), Remedy.SWITCH_ROUTE, 30.0, route="aside")]
    found = run(plan)
    assert set(ends(found).values()) == {"relayed"}
    assert said(found, f"{ASIDE} accepts") and said(found, "r0.example accepts")


def test_all_mail_of_a_domain_waits_for_its_policy() -> None:
    """Mail that comes while an MTA-STS policy is being fetched waits for it like the mail that it is fetched for."""
    temper = Temper()
    temper.tls = "trusted"
    plan = world(temper, [mail(0, 1.0), mail(1, 1.0, identity="app2"), mail(2, 1.1, identity="app3")], hosts=3)
    plan.tls, plan.sts = TlsLevel.MAY, {SITE: ("enforce", f"mx0.{SITE}")}
    # Users with limits have queues of their own, each of which looks the site up.
    plan.limits = [Limit(LimitMatch(user="*"), message_rate=("30/min",), number=1)]
    for seed in range(8):
        assert set(ends(Run(seed, plan).go()).values()) == {"relayed"}
        assert not Run(seed, plan).go().faults


def test_mail_in_memory_is_suspended_with_its_user() -> None:
    """What waits for a slow site when its user is suspended waits until that is over; another user's mail goes."""
    temper = Temper()
    temper.think = 2.0
    mails = [mail(n, 1.0, f"p{n}", "app1" if n % 2 else "app2") for n in range(40)]
    plan = world(temper, mails)
    plan.limits = [Limit(LimitMatch(site=f"mx0.{SITE}"), max_connections=1)]
    plan.acts = [(20.0, "suspend", "app2")]
    found = run(plan)
    assert set(ends(found).values()) == {"relayed"}
    held = [at for number in range(0, 40, 2) for at in said(found, f"accepts m{number} ")]
    # 20 s into the run, for 200 s; what was in delivery went.
    assert sum(at > 220.0 for at in held) > 10 and not [at for at in held if 35.0 < at < 220.0]
    assert max(at for number in range(1, 40, 2) for at in said(found, f"accepts m{number} ")) < 200.0


def test_a_threshold_counts_before_a_site_is_suspended() -> None:
    """A rule acts behind as many replies as its threshold says, for its time, and then mail goes again."""
    temper = Temper()
    plan = world(temper, [mail(n, 1.0 + 20 * n, f"p{n}") for n in range(30)])
    plan.refusals = {f"p{n}@{SITE}": (1e9, b"452 4.2.2 mailbox full") for n in (2, 3, 4)}
    plan.rules = [
        AutomationRule("full", ReplyMatch(r"\b452\b"), Remedy.SUSPEND, 100.0, threshold=Rate(3, 60.0)),
    ]
    found = run(plan)
    assert found.oracle.measures.begun >= 1
    third = [at for at, _ in found.plan.sites[1].refusals][2] - found.clock.began
    goes = said(found, f"{SITE} accepts")
    assert not [at for at in goes if third + 1.0 < at < third + 100.0]
    assert [at for at in goes if third + 100.0 < at < third + 110.0]


def test_a_slowed_site_is_slow_for_its_time() -> None:
    """A rule's rate holds beside those of the configuration, from the reply on until its time is over."""
    plan = world(Temper(), [mail(n, 1.0 + n / 2, f"p{n}") for n in range(300)])
    plan.refusals = {f"p10@{SITE}": (1e9, b"450 4.7.1 slow down")}
    plan.rules = [AutomationRule("slow", ReplyMatch(r"4\.7\.1"), Remedy.SLOW_DOWN, 60.0, message_rate=(Rate(6, 60.0),))]
    found = run(plan)
    began = next(at for at, _ in found.plan.sites[1].refusals) - found.clock.began
    goes = said(found, f"{SITE} accepts")
    assert 4 <= len([at for at in goes if began < at < began + 60.0]) <= 7


def test_tokens_that_expire_or_are_revoked_cost_no_mail() -> None:
    """An upstream that wants fresh tokens has all mail, with one fetch for each time that a token had become bad."""
    plan = world(Temper(), [mail(n, 1.0 + 10 * n) for n in range(40)])
    wanting = Temper()
    wanting.wants_login = wanting.by_token = True
    _add_site(plan, "r0.example", [], [1], wanting)
    plan.relayhosts, plan.token_lifetime, plan.revocations = ["r0.example"], 120.0, [50.0, 205.0]
    plan.limits = [Limit(LimitMatch(site="mx0.r0.example"), max_messages_per_connection=1)]
    found = run(plan)
    assert set(ends(found).values()) == {"relayed"}
    assert found.world.tokens.given <= 400 / 80 + 2 + 1
    assert len(said(found, "is refused")) <= 2


def test_a_login_without_tokens_delays_and_never_fails() -> None:
    """While the token server is out of order mail waits, and goes when that is over."""
    plan = world(Temper(), [mail(n, 1.0 + n) for n in range(10)])
    wanting = Temper()
    wanting.wants_login = wanting.by_token = True
    _add_site(plan, "r0.example", [], [1], wanting)
    plan.relayhosts, plan.token_lifetime, plan.token_outages = ["r0.example"], 3600.0, [(0.0, 400.0)]
    found = run(plan)
    assert set(ends(found).values()) == {"relayed"}


def test_broken_tls_is_remembered_and_mail_goes() -> None:
    """At level may a host whose handshake fails has its mail in plain text, and is not asked for TLS again."""
    temper = Temper()
    temper.tls = "broken"
    plan = world(temper, [mail(n, 1.0 + 30 * n) for n in range(10)])
    plan.tls = TlsLevel.MAY
    found = run(plan)
    assert set(ends(found).values()) == {"relayed"}
    assert len(said(found, "shakes hands")) == 1


def test_requiretls_goes_only_where_it_is_kept() -> None:
    """A message with REQUIRETLS goes to no host that does not offer it or cannot prove who it is; others go."""
    for tls, offers in (("trusted", True), ("trusted", False), ("strange", True), ("", True)):
        temper = Temper()
        temper.tls, temper.requiretls = tls, offers
        plan = world(temper, [replace(mail(0, 1.0), requiretls=True), mail(1, 1.0)])
        plan.tls = TlsLevel.MAY
        found = run(plan)
        assert ends(found)["m1"] == "relayed"
        assert said(found, f"{SITE} accepts m0") == [] or (tls, offers) == ("trusted", True)


def test_converted_mail_says_the_same() -> None:
    """A host without 8BITMIME has 8-bit mail in seven bits, its words unchanged; or it fails, as configured."""
    temper = Temper()
    temper.eight_bit_mime = temper.smtputf8 = False
    mails = [replace(mail(n, 1.0 + n), script=("body", "header")[n % 2]) for n in range(10)]
    assert set(ends(run(world(temper, mails))).values()) == {"relayed"}
    plan = world(temper, mails)
    plan.conversion = Conversions(Conversion.FAIL, Conversion.FAIL)
    assert {ends(run(plan))[f"m{n}"] for n in range(10)} == {"failed"}


def test_who_is_not_there_is_not_asked_for_again() -> None:
    """After a 5.1.1 mail for the same recipient fails without a word to the site; a restart does not forget that."""
    plan = scenario(Temper(), [(1.0 + 20 * n, ("ann", "bob")) for n in range(10)])
    plan.refusals = {f"bob@{SITE}": (1e9, b"550 5.1.1 no such user")}
    plan.suppression = SuppressionRules(enabled=True, at=SuppressionPoint.SEND)
    plan.crashes = [(95.0, 0.0)]
    found = run(plan)
    assert len(said(found, f"is asked for bob@{SITE}")) == 1
    assert len(said(found, f"is asked for ann@{SITE}")) == 10


def test_a_hint_is_heeded() -> None:
    """Who says when to come back is not asked before that, whatever the schedule says."""
    temper = Temper()
    temper.greylist, temper.hint = 200.0, ", try again in 4 minutes"
    found = run(scenario(temper, [(1.0, ("ann",))]))
    first, second = said(found, f"is asked for ann@{SITE}")
    assert 240.0 <= second - first < 240.0 * 1.3
    assert found.oracle.measures.hinted == 1
