"""Settings of attachments that a message names and the relay fetches."""

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
    """The cache of contents that requests name by their MD5: octets in all, and seconds since the last use."""

    octets: int = 1024 * _MIB
    age: float = 7 * _DAY


class DownloadSettings(msgspec.Struct, frozen=True):
    """Attachments over `above` octets become links below `public_url`, which are good for `lifetime` seconds."""

    public_url: str
    above: int = 10 * _MIB
    lifetime: float = 30 * _DAY


class AttachmentSettings(msgspec.Struct, frozen=True):
    """Where attachments may come from. `roots` are folders that `storage_path` may lie below; () allows none."""

    url: UrlSettings = UrlSettings()
    s3: S3Settings | None = None
    roots: tuple[str, ...] = ()
    largest: int = 25 * _MIB
    together: int = 100 * _MIB
