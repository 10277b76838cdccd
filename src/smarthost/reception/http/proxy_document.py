"""What the OpenAPI document says of the routes of a mail proxy's clients that read their content themselves."""

from types import MappingProxyType
from typing import Any

import msgspec

from smarthost.reception.http.proxy import ProxyAdded, ProxyBatch
from smarthost.reception.http.proxy_forms import Cleanup, WhichBatch, WhichMessages, WhichTenant

ADD = "/messages/add"
PROXY_BATCHES = ("/messages/add_batch", "/commands/add-messages")
PROXY_TYPES = (ProxyAdded, ProxyBatch, WhichTenant, WhichBatch, WhichMessages, Cleanup)
_REFERENCE = "#/components/schemas/{name}"
_TEXT = {"type": "string"}
_MANY = {"anyOf": [{"type": "array", "items": _TEXT}, _TEXT]}
_MESSAGE: dict[str, Any] = {
    "type": "object",
    "required": ["id", "to"],
    "properties": {
        "id": {**_TEXT, "minLength": 1, "maxLength": 255, "description": "the client's own, sent once"},
        "tenant_id": {**_TEXT, "pattern": "^[a-z0-9-]{1,64}$"},
        "account_id": {**_TEXT, "description": "an upstream of the tenant; else the rules choose"},
        "from": {**_TEXT, "description": "or from_addr"},
        "from_addr": _TEXT,
        "to": _MANY,
        "cc": _MANY,
        "bcc": _MANY,
        "reply_to": _TEXT,
        "return_path": _TEXT,
        "subject": _TEXT,
        "body": _TEXT,
        "content_type": {"enum": ["plain", "html"]},
        "headers": {"type": "object", "additionalProperties": _TEXT},
        "message_id": _TEXT,
        "priority": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 3}, _TEXT]},
        "deferred_ts": {"type": "integer", "minimum": 0, "description": "a Unix time before which it is not sent"},
        "batch_code": {**_TEXT, "maxLength": 255},
        "attachments": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["filename", "storage_path"],
                "properties": {
                    "filename": _TEXT,
                    "storage_path": {**_TEXT, "description": "base64:..., a URL, or a path below a configured folder"},
                    "fetch_mode": {"enum": ["base64", "http_url", "filesystem"]},
                    "mime_type": _TEXT,
                    "content_md5": _TEXT,
                },
            },
        },
    },
}
_BATCH: dict[str, Any] = {
    "type": "object",
    "required": ["messages"],
    "properties": {
        "messages": {"type": "array", "maxItems": 10_000, "items": _MESSAGE},
        "default_priority": _MESSAGE["properties"]["priority"],
        "tenant_id": _MESSAGE["properties"]["tenant_id"],
    },
}
_CONTENT = MappingProxyType(
    {
        "/commands/run-now": WhichTenant,
        "/instance/run_now": WhichTenant,
        "/commands/suspend": WhichBatch,
        "/instance/suspend": WhichBatch,
        "/tenants/suspend_batch": WhichBatch,
        "/commands/activate": WhichBatch,
        "/instance/activate": WhichBatch,
        "/tenants/activate_batch": WhichBatch,
        "/commands/delete-messages": WhichMessages,
        "/messages/delete_batch": WhichMessages,
        "/commands/cleanup-messages": Cleanup,
    }
)


def add_proxy_paths(paths: dict[str, Any]) -> None:
    """Add what takes messages, and the content of commands, which may be left out."""
    paths[ADD] = {"post": _operation("AddMessage", "Queue a message of a mail proxy's client.", _MESSAGE, ProxyAdded)}
    for path, name in zip(PROXY_BATCHES, ("AddMessageBatch", "AddMessages"), strict=True):
        text = "Queue many messages of a mail proxy's client; they become durable together."
        paths[path] = {"post": _operation(name, text, _BATCH, ProxyBatch)}
    for path, form in _CONTENT.items():
        if path in paths:
            paths[path]["post"]["requestBody"] = _body({"$ref": _REFERENCE.format(name=form.__name__)}, False)


def _operation(name: str, text: str, form: dict[str, Any], told: type[msgspec.Struct]) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": _REFERENCE.format(name=told.__name__)}}}
    return {
        "summary": name,
        "operationId": name,
        "description": text,
        "requestBody": _body(form, True),
        "responses": {"200": {"description": "What became of it.", "content": content}},
    }


def _body(schema: dict[str, Any], required: bool) -> dict[str, Any]:
    return {"required": required, "content": {"application/json": {"schema": schema}}}
