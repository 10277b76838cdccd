"""The client of the relay's API: `Client` for programs that wait, `AsyncClient` for those with an event loop."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from smarthost.client.accounts import Account, NewAccount
from smarthost.client.batches import Batch, BatchEvent, BatchRecipient, BatchSummary, NewBatch, SentBatch
from smarthost.client.dead_letters import DeadLetter
from smarthost.client.events import Event
from smarthost.client.faults import (
    ApiError,
    BadRequest,
    Conflict,
    FieldError,
    Forbidden,
    Invalid,
    NotFound,
    Problem,
    ServerError,
    SmarthostError,
    TimedOut,
    TooLarge,
    TooMany,
    Unauthorized,
    Unavailable,
    Unreachable,
    Unreadable,
    Untrusted,
)
from smarthost.client.keys import ApiKey
from smarthost.client.messages import (
    Address,
    Attachment,
    Message,
    NewMessage,
    RecipientResult,
    RetryProfile,
    SentMessage,
    Standing,
    StoredObject,
)
from smarthost.client.result import DeliveryResult, DeliveryStatus, RecipientFailure
from smarthost.client.settings import Retries
from smarthost.client.suppressions import NewSuppression, Suppression
from smarthost.client.sync import Client
from smarthost.client.templates import NewTemplate, Template, Variable
from smarthost.client.webhooks import Webhook

if TYPE_CHECKING:
    from smarthost.client.asynchronous import AsyncClient as AsyncClient

__all__ = [
    "Account",
    "Address",
    "ApiError",
    "ApiKey",
    "AsyncClient",
    "Attachment",
    "BadRequest",
    "Batch",
    "BatchEvent",
    "BatchRecipient",
    "BatchSummary",
    "Client",
    "Conflict",
    "DeadLetter",
    "DeliveryResult",
    "DeliveryStatus",
    "Event",
    "FieldError",
    "Forbidden",
    "Invalid",
    "Message",
    "NewAccount",
    "NewBatch",
    "NewMessage",
    "NewSuppression",
    "NewTemplate",
    "NotFound",
    "Problem",
    "RecipientFailure",
    "RecipientResult",
    "Retries",
    "RetryProfile",
    "SentBatch",
    "SentMessage",
    "ServerError",
    "SmarthostError",
    "Standing",
    "StoredObject",
    "Suppression",
    "Template",
    "TimedOut",
    "TooLarge",
    "TooMany",
    "Unauthorized",
    "Unavailable",
    "Unreachable",
    "Unreadable",
    "Untrusted",
    "Variable",
    "Webhook",
]


def __getattr__(name: str) -> Any:
    # An HTTP library costs whoever imports this a quarter of a second: it is loaded with the first AsyncClient only.
    if name == "AsyncClient":
        return import_module("smarthost.client.asynchronous").AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
