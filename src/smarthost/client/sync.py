"""Client: the relay's API for programs that wait for each answer."""

import os
import ssl
import time
from collections.abc import Callable, Iterator
from functools import wraps
from random import Random
from types import TracebackType
from typing import Generic, ParamSpec, Self, TypeVar, overload

from smarthost.client import (
    accounts,
    batches,
    bounces,
    dead_letters,
    events,
    keys,
    messages,
    suppressions,
    templates,
    webhooks,
)
from smarthost.client.batches import BatchSummary
from smarthost.client.call import Call, Page
from smarthost.client.connections import Connections
from smarthost.client.events import Event
from smarthost.client.faults import Unreachable
from smarthost.client.following import Following
from smarthost.client.health import Health, ask_health, ask_ready
from smarthost.client.metrics import AdminMetrics, Metrics, admin_metrics, metrics
from smarthost.client.result import DeliveryResult
from smarthost.client.settings import RETRIES, Retries, Settings
from smarthost.client.trial import Trial
from smarthost.client.waiting import waits

P = ParamSpec("P")
T = TypeVar("T")


class Group:
    """Calls that belong together, on one client."""

    __slots__ = ("_client",)

    def __init__(self, client: "Client") -> None:
        """Stand on a client."""
        self._client = client


class Listing(Generic[T]):
    """A list that is asked for a page at a time, as it is read: iterate over it, or over its `pages`."""

    def __init__(self, client: "Client", first: Call[Page[T]]) -> None:
        """Ask for nothing yet."""
        self._client, self._first = client, first

    def __iter__(self) -> Iterator[T]:
        """Give everything in it."""
        for page in self.pages():
            yield from page.items

    def pages(self) -> Iterator[Page[T]]:
        """Give it page by page; a page may be empty although there are more."""
        following: Call[Page[T]] | None = self._first
        while following is not None:
            page = self._client.run(following)
            yield page
            following = page.following


class _Asks(Generic[P, T]):
    """A method that makes one call."""

    def __init__(self, make: Callable[P, Call[T]]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, group: None, owner: type) -> Self: ...
    @overload
    def __get__(self, group: Group, owner: type) -> Callable[P, T]: ...
    def __get__(self, group: Group | None, owner: type) -> Self | Callable[P, T]:
        if group is None:
            return self
        client, make = group._client, self._make

        @wraps(make)
        def ask(*arguments: P.args, **named: P.kwargs) -> T:
            return client.run(make(*arguments, **named))

        return ask


class _Lists(Generic[P, T]):
    """A method that gives a list."""

    def __init__(self, make: Callable[P, Call[Page[T]]]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, group: None, owner: type) -> Self: ...
    @overload
    def __get__(self, group: Group, owner: type) -> Callable[P, Listing[T]]: ...
    def __get__(self, group: Group | None, owner: type) -> Self | Callable[P, Listing[T]]:
        if group is None:
            return self
        client, make = group._client, self._make

        @wraps(make)
        def ask(*arguments: P.args, **named: P.kwargs) -> Listing[T]:
            return Listing(client, make(*arguments, **named))

        return ask


class Messages(Group):
    """Messages: sent, listed, and changed while they are in the queue."""

    send = _Asks(messages.send)
    send_raw = _Asks(messages.send_raw)
    get = _Asks(messages.show)
    list = _Lists(messages.list_messages)
    cancel = _Asks(messages.cancel)
    retry = _Asks(messages.retry)
    hold = _Asks(messages.hold)
    release = _Asks(messages.release)


class DeadLetters(Group):
    """Messages that failed, and are kept for a time."""

    list = _Lists(dead_letters.list_dead_letters)
    resend = _Asks(dead_letters.resend)
    remove = _Asks(dead_letters.remove)


class Events(Group):
    """Everything that happens."""

    list = _Lists(events.list_events)

    def stream(self, after: int | None = None) -> Iterator[Event]:
        """Give events as they happen, for ever, those behind a cursor first; None is from now on.

        A stream that breaks is opened again behind the last event, so that none is missing; when that fails as often
        as `Retries` says, Unreachable is raised, and ApiError as soon as the key is not good any more.
        """
        return self._client.follow(self._client.run(events.newest()) if after is None else after)


class Webhooks(Group):
    """Where events are posted to."""

    make = _Asks(webhooks.make)
    list = _Asks(webhooks.list_webhooks)
    get = _Asks(webhooks.show)
    change = _Asks(webhooks.change)
    remove = _Asks(webhooks.remove)
    dead = _Lists(webhooks.list_dead)
    replay = _Asks(webhooks.replay)
    replay_dead = _Asks(webhooks.replay_dead)


class Accounts(Group):
    """Upstreams of the tenant."""

    keep = _Asks(accounts.keep)
    list = _Asks(accounts.list_accounts)
    remove = _Asks(accounts.remove)


class Keys(Group):
    """API keys of the tenant."""

    make = _Asks(keys.make)
    list = _Asks(keys.list_keys)
    revoke = _Asks(keys.revoke)


class Templates(Group):
    """Templates for messages and batches."""

    make = _Asks(templates.make)
    list = _Lists(templates.list_templates)
    get = _Asks(templates.show)
    change = _Asks(templates.change)
    remove = _Asks(templates.remove)
    preview = _Asks(templates.preview)


class Batches(Group):
    """One template to many recipients."""

    send = _Asks(batches.send)
    list = _Lists(batches.list_batches)
    get = _Asks(batches.show)
    events = _Lists(batches.list_batch_events)
    summary = _Asks(batches.summary)
    suspend = _Asks(batches.suspend)
    resume = _Asks(batches.resume)
    cancel = _Asks(batches.cancel)

    def wait(self, id: str, timeout: float = 3600.0) -> BatchSummary:
        """Wait until a batch is over, for some seconds at most; gives how it stands then."""
        client, end = self._client, time.monotonic() + timeout
        for wait in waits():
            summary = client.run(batches.summary(id))
            left = end - time.monotonic()
            if summary.is_over or left <= 0.0:
                break
            time.sleep(min(wait, left))
        return summary


class Suppressions(Group):
    """Addresses to which nothing is sent."""

    list = _Lists(suppressions.list_suppressions)
    add = _Asks(suppressions.add)
    remove = _Asks(suppressions.remove)


class Bounces(Group):
    """What is said later of messages that a server had taken."""

    report = _Asks(bounces.report)
    ses = _Asks(bounces.ses)


class Client:
    """A relay's API. Threads may share one; connections are kept, so make one and not one for each message."""

    def __init__(
        self,
        url: str = "",
        key: str = "",
        *,
        timeout: float = 30.0,
        ca: ssl.SSLContext | str | os.PathLike[str] | None = None,
        tenant: str = "",
        retries: Retries = RETRIES,
    ) -> None:
        """Talk to the relay at a URL with an API key, as `Settings` says; nothing is opened yet."""
        self._settings = Settings(url, key, timeout=timeout, ca=ca, tenant=tenant, retries=retries)
        self._connections = Connections(self._settings)
        self._chance = Random()
        self.messages, self.dead_letters, self.events = Messages(self), DeadLetters(self), Events(self)
        self.webhooks, self.accounts, self.keys = Webhooks(self), Accounts(self), Keys(self)
        self.templates, self.batches, self.suppressions = Templates(self), Batches(self), Suppressions(self)
        self.bounces = Bounces(self)

    def run(self, call: Call[T]) -> T:
        """Make a call, as often as it takes; raises SmarthostError."""
        trial = Trial(call, self._settings, self._chance)
        while True:
            try:
                answer = self._connections.exchange(trial.request)
            except Unreachable as fault:
                wait = trial.broke(fault)
            else:
                again = trial.heard(answer, time.time())
                if again is None:
                    return trial.read(answer)
                wait = again
            time.sleep(wait)

    def follow(self, cursor: int) -> Iterator[Event]:
        """Give the events behind a cursor, for ever: `events.stream`."""
        following = Following(cursor, self._settings, self._chance)
        while True:
            try:
                with self._connections.stream(following.request) as (answer, pieces):
                    if answer.status != 200:
                        wait = following.refused(answer, time.time())
                    else:
                        following.opened()
                        for piece in pieces:
                            yield from following.feed(piece)
                        raise Unreachable("the stream of events has ended", True)
            except Unreachable as fault:
                wait = following.broke(fault)
            time.sleep(wait)

    def result(self, id: str) -> DeliveryResult:
        """Give what has become of a message so far."""
        return DeliveryResult.from_message(self.messages.get(id))

    def wait(self, id: str, timeout: float = 60.0) -> DeliveryResult:
        """Wait until it is over with a message, for some seconds at most; gives what has become of it until then."""
        end = time.monotonic() + timeout
        for wait in waits():
            result = self.result(id)
            left = end - time.monotonic()
            if result.is_final or left <= 0.0:
                break
            time.sleep(min(wait, left))
        return result

    def health(self) -> Health:
        """Ask whether the relay works; needs no key."""
        return self.run(ask_health())

    def ready(self) -> Health:
        """Ask whether the relay takes mail; needs no key."""
        return self.run(ask_ready())

    def metrics(self, hours: int = 24) -> Metrics:
        """Give what became of the tenant's mail in the last hours."""
        return self.run(metrics(hours))

    def admin_metrics(self, hours: int = 24) -> AdminMetrics:
        """Give what became of mail in each of the last hours; of all tenants for an operator's token."""
        return self.run(admin_metrics(hours))

    def close(self) -> None:
        """Close the connections; another call opens new ones."""
        self._connections.close()

    def __enter__(self) -> Self:
        """Be closed at the end of a block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        """Show where the relay is, and never the key."""
        return f"Client({self._settings!r})"
