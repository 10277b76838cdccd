"""What is fetched by HTTPS in the simulation: access tokens, and MTA-STS policies."""

import asyncio
from base64 import b64decode
from collections.abc import Callable
from functools import partial
from typing import Any

from sim_plan import Plan

from smarthost.network.https import Answer, HttpsFault
from smarthost.network.oauth_answer import TokenFault, Tokens

SLOWEST = 5.0  # seconds of an answer


class TokenServer:
    """Gives tokens that are good for a while, unless it is out of order; knows which are good."""

    def __init__(self, world: Any, plan: Plan) -> None:
        """Begin with no token given."""
        self._world, self._plan = world, plan
        self._good: dict[str, float] = {}
        self._asked = 0
        self.given = 0

    async def fetch(self, work: Callable[[], object]) -> object:
        """Answer what the relay would have asked in a thread of its own."""
        if isinstance(work, partial):
            await asyncio.sleep(self._world.rng.uniform(0.01, SLOWEST))
            return self._policy_at(work.args[0])
        if self._asked:
            self._world.blame("a token is fetched while one is being fetched")
        self._asked += 1
        try:
            await asyncio.sleep(self._world.rng.uniform(0.01, SLOWEST))
        finally:
            self._asked -= 1
        if self._world.is_within(self._plan.token_outages):
            self._world.say("no token is given")
            return TokenFault("the token endpoint is out of order")
        self.given += 1
        token = f"token-{self.given}"
        self._good[token] = self._world.clock.elapsed
        self._world.say("%s is given", token)
        return Tokens(token, self._plan.token_lifetime)

    def _policy_at(self, url: str) -> Answer | HttpsFault:
        domain = url.split("/")[2].removeprefix("mta-sts.")
        mode, pattern = self._plan.sts[domain]
        self._world.say("the policy of %s is fetched", domain)
        text = f"version: STSv1\nmode: {mode}\nmx: {pattern}\nmax_age: 86400\n"
        return Answer(200, text.encode(), "text/plain")

    def is_good(self, line: bytes) -> bool:
        """Whether AUTH XOAUTH2 comes with a token that is good now."""
        text = b64decode(line.split()[-1]).decode()
        token = text.partition("auth=Bearer ")[2].rstrip("\x01")
        now, since = self._world.clock.elapsed, self._good.get(token)
        is_revoked = since is not None and any(since < at <= now for at in self._plan.revocations)
        is_good = since is not None and now < since + self._plan.token_lifetime and not is_revoked
        self._world.say("a login by %s is %s", token, "good" if is_good else "refused")
        return is_good
