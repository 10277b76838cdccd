"""Settings of attachments that a message names and the relay fetches."""

from enum import StrEnum

import msgspec

_MIB = 1024 * 1024
_DAY = 86400.0


class UrlSettings(msgspec.Struct, frozen=True):
    """How a URL is fetched: seconds for each try, how many tries, seconds before the second one (doubled each time)."""

    timeout: float = 30.0
    attempts: int = 3
    pause: float = 1.0
    redirects: int = 5


class S3Settings(msgspec.Struct, frozen=True):
    """A store that speaks S3's protocol. `endpoint` is an http:// or https:// address without a path.

    With `path_style` the bucket is in the path, else it is in front of the host's name. `buckets` are those that
    requests may name; () is all that the credentials reach. The representation hides the credentials.
    """

    endpoint: str = "https://s3.us-east-1.amazonaws.com"
    region: str = "us-east-1"
    access_key: str = ""
    secret_key: str = ""
    session_token: str = ""
    path_style: bool = False
    buckets: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Write it without the credentials."""
        return f"S3Settings(endpoint={self.endpoint!r}, region={self.region!r})"


class CacheSettings(msgspec.Struct, frozen=True):
    """The cache of contents that requests name by their MD5: octets in all, and seconds since the last use.

    `folder` is where it is, "" for a place in the data directory; with 0 octets there is none.
    """

    octets: int = 1024 * _MIB
    age: float = 7 * _DAY
    folder: str = ""


class LargeAction(StrEnum):
    """What becomes of an attachment that is larger than mail should carry."""

    WARN = "warn"
    REJECT = "reject"
    REWRITE = "rewrite"


class LargeSettings(msgspec.Struct, frozen=True):
    """Attachments over `above` octets, 0 for none.

    Links that take their place lie below `public_url`, are good for `lifetime` seconds and signed by `secret`, "" for
    a key of the relay's own; the files are in `folder`, "" for a place in the data directory. The representation hides
    the secret.
    """

    above: int = 10 * _MIB
    action: LargeAction = LargeAction.WARN
    lifetime: float = 30 * _DAY
    public_url: str = ""
    secret: str = ""
    folder: str = ""

    def __repr__(self) -> str:
        """Write it without the secret."""
        return f"LargeSettings({self.above}, {self.action.value}, {self.lifetime}, {self.public_url!r})"


class AttachmentSettings(msgspec.Struct, frozen=True):
    """Where attachments may come from. `roots` are folders that `storage_path` may lie below; () allows none."""

    url: UrlSettings = UrlSettings()
    s3: S3Settings | None = None
    roots: tuple[str, ...] = ()
    largest: int = 25 * _MIB
    together: int = 100 * _MIB


class AttachmentTerms(msgspec.Struct, frozen=True):
    """Everything that is configured about attachments. `allow_private` lets URLs lead to addresses off the Internet."""

    fetching: AttachmentSettings = AttachmentSettings()
    allow_private: bool = False
    cache: CacheSettings = CacheSettings()
    large: LargeSettings = LargeSettings()

    @property
    def largest(self) -> int:
        """The octets that one attachment may have."""
        large = self.large
        most = self.fetching.largest
        return min(most, large.above) if large.above and large.action is LargeAction.REJECT else most
