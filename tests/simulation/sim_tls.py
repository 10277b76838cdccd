"""TLS in the simulation: how a handshake ends, and whether mail may go by what it has shown."""

import asyncio
import ssl
from typing import Any

from sim_plan import Plan
from sim_site import Site, Temper
from sim_wire import Wire

from smarthost.mail.route import TlsLevel


class Shown:
    """What a handshake leaves behind, as much of ssl.SSLObject as the relay asks for. `is_trusted` is the truth."""

    def __init__(self, context: ssl.SSLContext, is_trusted: bool) -> None:
        """Keep who verified."""
        self.context, self.is_trusted = context, is_trusted

    def version(self) -> str:
        """Give the version."""
        return "TLSv1.3"

    def cipher(self) -> tuple[str, str, int]:
        """Give the cipher suite."""
        return "TLS_AES_256_GCM_SHA384", "TLSv1.3", 256

    def getpeercert(self, binary_form: bool = False) -> bytes:
        """Give no certificate: whether it is trusted is known without."""
        return b""


class Tls:
    """The border of TLS: a handshake takes two round trips and ends as the site's temper and the context say.

    Nothing is encrypted. The context that the relay made decides, by its `verify_mode`, whether it minds a certificate
    that is not trusted or is of another name.
    """

    def __init__(self, world: Any, plan: Plan) -> None:
        """Look at the mail of one world."""
        self._world, self._plan = world, plan

    async def shake_hands(
        self, site: Site, address: str, wire: Wire, context: ssl.SSLContext, name: str, timeout: float
    ) -> Wire:
        """End a handshake as asyncio's would."""
        await asyncio.sleep(4 * site.temper.latency)
        mode = site.temper.tls
        if mode == "hangs":
            await asyncio.sleep(timeout)
            wire.abort()
            raise ConnectionAbortedError("SSL handshake is taking longer than it should")
        if wire.is_closing():
            raise ConnectionResetError(104, "connection reset by peer")
        is_trusted = mode == "trusted" and address in self._plan.addresses.get(name, ())
        self._world.say("%s shakes hands: %s", address, mode)
        if mode == "broken":
            wire.abort()
            broken = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")
            broken.reason = "WRONG_VERSION_NUMBER"
            raise broken
        if context.verify_mode is not ssl.CERT_NONE and not is_trusted:
            wire.abort()
            error = ssl.SSLCertVerificationError(1, "certificate verify failed")
            error.reason, error.verify_message = "CERTIFICATE_VERIFY_FAILED", "self-signed certificate"
            raise error
        wire.tls = Shown(context, is_trusted)
        return wire

    def look_at_mail(self, site: Site, wire: Wire, line: bytes) -> None:
        """See whether MAIL comes over what its route demands."""
        level, shown = self._plan.tls, wire.tls
        if shown is None and level not in (TlsLevel.NONE, TlsLevel.MAY):
            self._world.blame(f"{site.name}: MAIL in plain text on a route of level {level}")
        if level is TlsLevel.VERIFY and shown is not None and not shown.is_trusted:
            self._world.blame(f"{site.name}: MAIL to a host that nothing verifies, on a route of level verify")
        if level is TlsLevel.MAY and shown is None and site.temper.tls == "trusted" and is_steady(site.temper):
            self._world.blame(f"{site.name}: MAIL in plain text, though the handshake works")
        if b" REQUIRETLS" in line and (shown is None or not shown.is_trusted or not site.temper.requiretls):
            self._world.blame(f"{site.name}: REQUIRETLS where nothing is proved, or it is not offered")

    def look_at_recipient(self, site: Site, address: str, wire: Wire, recipient: str) -> None:
        """See whether a recipient's domain allows this host, by its MTA-STS policy."""
        mode, pattern = self._plan.sts.get(recipient.rpartition("@")[2], ("none", ""))
        if mode != "enforce" or site.name == self._plan.aside:
            return
        names = [name for name, addresses in self._plan.addresses.items() if address in addresses]
        if not any(name == pattern or f"*.{name.partition('.')[2]}" == pattern for name in names):
            self._world.blame(f"{site.name}: {recipient} at a host that its MTA-STS policy does not list")
        if wire.tls is None or not wire.tls.is_trusted:
            self._world.blame(f"{site.name}: {recipient} against its MTA-STS policy, which is enforced")


def is_steady(temper: Temper) -> bool:
    """Whether connections to a site do not break off, so that a handshake cannot fail by that."""
    return not (temper.cuts or temper.deaths or temper.tarpits or temper.patience or temper.storms or temper.down)
