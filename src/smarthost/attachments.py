"""Joins where attachments come from, and where large ones are put, as the configuration says."""

import logging
import secrets
import ssl
from pathlib import Path

from smarthost.accounts import KEY_FILE
from smarthost.assembly import Relay
from smarthost.crypto.sealing import derive_key, load_master_key
from smarthost.mail.route import TlsLevel
from smarthost.network.attaching import Attaching
from smarthost.network.attachment_cache import AttachmentCache
from smarthost.network.attachments import AttachmentSources
from smarthost.network.downloads import Downloads, sweep_downloads
from smarthost.network.http_client import HttpClient
from smarthost.network.s3 import S3Reader
from smarthost.policy.attachments import AttachmentTerms, LargeAction

CONNECTIONS = 32  # to all servers that attachments are fetched from
CACHE, DOWNLOADS, SCRATCH = "attachment-cache", "downloads", "scratch"  # in the data directory
log = logging.getLogger(__name__)


class Attachments:
    """The relay's way with attachments. `make` when the HTTP door opens, `follow` at each reload, `close` at the end.

    Before the door opens there is no folder, no key and no connection.
    """

    def __init__(self, relay: Relay, data_directory: Path, terms: AttachmentTerms) -> None:
        """Remember the parts."""
        self._relay, self._folder, self._terms = relay, data_directory, terms

        self._client = self._connect(allow_private=terms.allow_private)
        # The store's address stands in the configuration: whoever writes that may mean a private one.
        self._store_client = self._connect(allow_private=True)
        self._left: list[HttpClient] = []
        self._cache: AttachmentCache | None = None
        self._downloads: Downloads | None = None
        self._made: Attaching | None = None

    def make(self) -> Attaching:
        """Give the HTTP door its way; raises OSError, and ValueError when the relay's own key is damaged."""
        self._made = Attaching(self._sources(), self._terms.large, self._folder_of_downloads(), self._folder / SCRATCH)
        return self._made

    def follow(self, terms: AttachmentTerms) -> None:
        """Follow a new configuration; what cannot be opened is logged, and stays as it was."""
        before, self._terms = self._terms, terms
        if self._made is None or terms == before:
            return
        try:
            sources, downloads = self._sources(), self._folder_of_downloads()
        except (OSError, ValueError) as error:
            log.error("attachments do not follow the configuration: %s", error)
            self._terms = before
            return
        self._made.sources, self._made.downloads, self._made.large = sources, downloads, terms.large

    def sweep(self, now: float) -> int:
        """For a thread: delete downloads that have expired, and say how many."""
        return sweep_downloads(self._place_of_downloads(), now)

    async def close(self) -> None:
        """End every connection."""
        for client in (self._client, self._store_client, *self._left):
            await client.close()

    def _connect(self, *, allow_private: bool) -> HttpClient:
        relay = self._relay

        def context() -> ssl.SSLContext:
            return relay.contexts.for_level(TlsLevel.VERIFY)

        return HttpClient(relay.resolver, context, connections=CONNECTIONS, allow_private=allow_private)

    def _sources(self) -> AttachmentSources:
        terms, fetching = self._terms, self._terms.fetching
        if self._client.allow_private is not terms.allow_private:
            # A connection that is open already is looked at no more, and who uses it may not be done.
            self._left.append(self._client)
            self._client = self._connect(allow_private=terms.allow_private)
        store = None
        if fetching.s3 is not None:
            store = S3Reader(self._store_client, fetching.s3, self._relay.clock, fetching.url.timeout)
        return AttachmentSources(fetching, self._client, store, self._cache_of_contents(), terms.largest)

    def _cache_of_contents(self) -> AttachmentCache | None:
        settings = self._terms.cache
        if not settings.octets:
            self._cache = None
        elif self._cache is not None and self._cache.settings.folder == settings.folder:
            self._cache.settings = settings
        else:
            folder = Path(settings.folder) if settings.folder else self._folder / CACHE
            self._cache = AttachmentCache(folder, settings, self._relay.clock)
        return self._cache

    def _folder_of_downloads(self) -> Downloads | None:
        """Give the downloads where some are to be made, or were: their links are good after a change, too."""
        settings, folder = self._terms.large, self._place_of_downloads()
        if settings.action is not LargeAction.REWRITE and not folder.is_dir():
            return None
        key = settings.secret.encode() or derive_key(load_master_key(self._folder / KEY_FILE), "downloads")
        if self._downloads is not None and self._downloads.settings.folder == settings.folder:
            self._downloads.settings, self._downloads.key = settings, key
        else:
            self._downloads = Downloads(folder, settings, key, self._relay.clock, lambda: secrets.token_hex(16))
        return self._downloads

    def _place_of_downloads(self) -> Path:
        folder = self._terms.large.folder
        return Path(folder) if folder else self._folder / DOWNLOADS
