"""Believes or refuses what Amazon SNS posts: its signature, its topic, and the confirmation of a subscription."""

import logging
from collections.abc import Awaitable, Callable, Collection

from smarthost.crypto.sns import signature_fault
from smarthost.network.http_client import HttpAnswer, HttpFault, HttpRequest
from smarthost.wire.sns import SnsEnvelope, SnsType, is_certificate_url, is_subscribe_url, signed_octets

log = logging.getLogger(__name__)

Ask = Callable[[HttpRequest], Awaitable[HttpAnswer | HttpFault]]

MOST_CERTIFICATES = 16  # SNS changes its own about once a year and region
TIMEOUT = 10.0


class SnsDesk:
    """Remembers certificates. `topics` may speak without an API key; a reload replaces them."""

    def __init__(self, ask: Ask, clock: Callable[[], float]) -> None:
        """Know no certificate and no topic."""
        self.topics: Collection[str] = ()
        self._ask, self._clock = ask, clock
        self._certificates: dict[str, bytes] = {}

    async def fault(self, envelope: SnsEnvelope, *, needs_topic: bool) -> str:
        """Say why an envelope is not believed, "" when it is; `needs_topic` when nothing else vouches for its sender.

        A signature proves that SNS sent it, for anybody who has an account there: so the topic has to be ours.
        """
        if needs_topic and envelope.topic not in self.topics:
            return "the topic is not one of [outreach] sns_topics"
        if not is_certificate_url(envelope.certificate_url):
            return "the certificate is not one of Amazon SNS"
        certificate = self._certificates.get(envelope.certificate_url)
        if certificate is None:
            answer = await self._ask(HttpRequest("GET", envelope.certificate_url, timeout=TIMEOUT))
            if not isinstance(answer, HttpAnswer) or answer.status != 200:
                return "the certificate could not be fetched"
            certificate = answer.body
        content, now = signed_octets(envelope), self._clock()
        wrong = signature_fault(content, envelope.signature, envelope.signature_version, certificate, now)
        if not wrong:
            if len(self._certificates) >= MOST_CERTIFICATES:
                self._certificates.clear()
            self._certificates[envelope.certificate_url] = certificate
        return wrong

    async def confirm(self, envelope: SnsEnvelope) -> bool:
        """Confirm a subscription that was believed, by asking SNS at the URL that it gave; true when it took it."""
        url = envelope.subscribe_url or ""
        if envelope.type is not SnsType.SUBSCRIPTION or not is_subscribe_url(url):
            return False
        answer = await self._ask(HttpRequest("GET", url, timeout=TIMEOUT))
        is_taken = isinstance(answer, HttpAnswer) and answer.status == 200
        log.log(
            logging.INFO if is_taken else logging.WARNING,
            "the subscription to %s was %sconfirmed",
            envelope.topic,
            "" if is_taken else "not ",
        )
        return is_taken
