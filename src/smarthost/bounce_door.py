"""Joins the listeners for bounces: what they take, and by which return paths it is believed."""

import msgspec

from smarthost.assembly import Relay
from smarthost.config import Config
from smarthost.policy.admission import Role
from smarthost.queue.bounces import BounceIntake
from smarthost.reception.accept import Annex
from smarthost.reception.bounce_mail import MOST_RECIPIENTS, BounceDesk
from smarthost.reception.terms import Terms


class BounceDoor:
    """The annex of a relay's door in which bounces come in. `follow` at the start and at each reload."""

    def __init__(self, relay: Relay, intake: BounceIntake) -> None:
        """Take nothing yet."""
        self._relay, self._intake = relay, intake
        self._desk = BounceDesk(intake.take_mail, relay.clock)

    def follow(self, config: Config) -> None:
        """Follow a configuration that the relay follows already."""
        relay, terms = self._relay, config.bounces
        paths = relay.rules.return_paths
        self._intake.paths = paths
        self._desk.follow(paths)
        if paths is None:
            return
        submission = msgspec.structs.replace(
            config.submission, max_message_size=terms.max_message_size, max_recipients=MOST_RECIPIENTS
        )
        parts = msgspec.structs.replace(
            relay.door.parts, intake=self._desk, limits=self._desk, route_refusal=self._desk.refuse
        )
        settings = Terms(config.hostname, config.default_domain, submission, relays=False)
        relay.door.annexes[Role.BOUNCES] = Annex(settings, parts, terms.max_connections)
