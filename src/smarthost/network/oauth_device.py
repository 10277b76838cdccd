"""Obtains the first refresh token of a login by the device flow (RFC 8628): a person says yes in any browser."""

import time
import uuid
from collections.abc import Callable, Mapping

import msgspec

from smarthost.network.https import Answer, HttpsFault
from smarthost.network.oauth_answer import Asked, TokenFault, clean, read_fields, read_tokens
from smarthost.network.oauth_grant import SECRET_FIELDS, Grant, Sign, client_proof

_DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
INTERVAL = 5.0  # seconds between two questions where the endpoint does not say, and what slow_down adds (3.2, 3.5)
LONGEST_INTERVAL = 60.0
_LIFETIME = 900.0  # seconds for a code whose answer does not say
_STILL_WAITING = ("authorization_pending", "slow_down")
NO_REFRESH_TOKEN = TokenFault(
    "the token endpoint gave no refresh token; Microsoft wants offline_access in the scope", "no_refresh_token"
)

# Posts a form to an address; blocks until there is an answer.
Post = Callable[[str, Mapping[str, str]], Answer | HttpsFault]


class DeviceCode(msgspec.Struct, frozen=True):
    """What a person types where; `lifetime` and `interval` are seconds."""

    device_code: str
    user_code: str
    address: str
    lifetime: float
    interval: float

    def __repr__(self) -> str:
        """Write it without the codes."""
        return f"DeviceCode(address={self.address!r})"


class DeviceLogin:
    """One run of the flow for one login."""

    def __init__(
        self,
        grant: Grant,
        sign: Sign | None,
        post: Post,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Begin with nothing asked; `clock` gives Unix seconds."""
        self._grant, self._sign, self._post, self._sleep, self._clock = grant, sign, post, sleep, clock

    def begin(self) -> DeviceCode | TokenFault:
        """Ask for a code (RFC 8628 3.1)."""
        grant = self._grant
        form = {"client_id": grant.client_id} | ({"scope": grant.scope} if grant.scope else {})
        fields = read_fields(self._post(grant.device_url, form), Asked(grant.device_url, grant.name, ()))
        if isinstance(fields, TokenFault):
            return fields
        # Google has its own word for where to go.
        address = fields.get("verification_uri") or fields.get("verification_url")
        codes = (fields.get("device_code"), fields.get("user_code"), address)
        if not all(isinstance(code, str) and code for code in codes):
            return TokenFault("the answer lacks device_code, user_code or verification_uri", "no_device_code")
        device_code, user_code, where = map(str, codes)
        lifetime, interval = _seconds(fields.get("expires_in"), _LIFETIME), _seconds(fields.get("interval"), INTERVAL)
        return DeviceCode(device_code, clean(user_code, ()), clean(where, ()), lifetime, interval)

    def wait(self, code: DeviceCode) -> str | TokenFault:
        """Ask until the person has decided (RFC 8628 3.4, 3.5); gives the refresh token.

        Where the endpoint is away for a moment, the questions become rarer, and go on until the code has expired.
        """
        grant, interval = self._grant, code.interval
        deadline = self._clock() + code.lifetime
        form = {"grant_type": _DEVICE_CODE, "client_id": grant.client_id, "device_code": code.device_code}
        while True:
            self._sleep(interval)
            now = self._clock()
            if now > deadline:
                return TokenFault("the code was not used in time; run the command again", "expired_token")
            asking = form | client_proof(grant, self._sign, now, str(uuid.uuid4()))
            secrets = [asking[field] for field in SECRET_FIELDS if asking.get(field)]
            answer = self._post(grant.token_url, asking)
            if isinstance(answer, HttpsFault) or answer.status >= 500:
                interval = min(interval * 2, LONGEST_INTERVAL)
                continue
            found = read_tokens(answer, Asked(grant.token_url, grant.name, secrets))
            if not isinstance(found, TokenFault):
                return found.refresh or NO_REFRESH_TOKEN
            if found.error not in _STILL_WAITING:
                return found
            if found.error == "slow_down":
                interval = min(interval + INTERVAL, LONGEST_INTERVAL)


def _seconds(value: object, default: float) -> float:
    try:
        seconds = float(value) if isinstance(value, int | float | str) else default
    except ValueError:
        return default
    return seconds if 0 < seconds < 86400 else default
