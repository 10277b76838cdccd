"""The OpenAPI document as it is given out: Litestar's own, with what the front answers and with problem documents."""

import html
from typing import Any

import msgspec
from litestar import Request
from litestar.openapi.plugins import OpenAPIRenderPlugin
from litestar.types import Empty

from smarthost.compose.batch_form import BatchSubmission
from smarthost.compose.submission import Submission
from smarthost.reception.http.batch_answers import MadeBatch
from smarthost.reception.http.front import BATCHES_PATH, MESSAGES
from smarthost.reception.http.handing import TakenMessage
from smarthost.reception.http.problem import Problem
from smarthost.reception.http.proxy_document import PROXY_TYPES, add_proxy_paths

_REFERENCE = "#/components/schemas/{name}"
_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}code,pre{font-family:monospace}"
    "pre{background:#f4f4f4;padding:1rem;overflow:auto}details{border-top:1px solid #ccc;padding:.5rem 0}"
    "summary{cursor:pointer}b{display:inline-block;width:5rem;font-family:monospace}"
)
_IDEMPOTENCY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key and content give the answer of before; another content is 409. Kept for a day.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
_QUERY = {
    "to": "for message/rfc822: the recipients, instead of those of To, Cc and Bcc; may be given often",
    "from": "for message/rfc822: the reverse-path, instead of the author",
    "id": "for message/rfc822: the client's own id",
    "dry_run": "for message/rfc822: 1 sends nothing",
}


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Give the document with everything in it that Litestar does not know of."""
    types = (Submission, TakenMessage, BatchSubmission, MadeBatch, Problem, *PROXY_TYPES)
    _, schemas = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    document.setdefault("components", {}).setdefault("schemas", {}).update(schemas)
    document["paths"].setdefault(MESSAGES, {})["post"] = _post_message()
    document["paths"].setdefault(BATCHES_PATH, {})["post"] = _post_batch()
    add_proxy_paths(document["paths"])
    problem = {
        "description": "A problem document (RFC 9457).",
        "content": {"application/problem+json": {"schema": {"$ref": _REFERENCE.format(name="Problem")}}},
    }
    for path in document["paths"].values():
        for operation in path.values():
            if isinstance(operation, dict) and "responses" in operation:
                operation["responses"].pop("400", None)
                operation["responses"] |= {"4XX": problem, "5XX": problem}
    return document


def _post_message() -> dict[str, Any]:
    taken = {"application/json": {"schema": {"$ref": _REFERENCE.format(name="TakenMessage")}}}
    return {
        "summary": "SubmitMessage",
        "operationId": "SubmitMessage",
        "description": "Hand in a message, as JSON or as it is; 202 when it is on disk, with a result a recipient.",
        "parameters": [
            _IDEMPOTENCY,
            *(
                {"name": name, "in": "query", "required": False, "description": text, "schema": {"type": "string"}}
                for name, text in _QUERY.items()
            ),
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": _REFERENCE.format(name="Submission")}},
                "message/rfc822": {"schema": {"type": "string"}},
            },
        },
        "responses": {
            "200": {"description": "A dry run: nothing was sent.", "content": taken},
            "202": {"description": "Accepted, and on disk.", "content": taken},
        },
    }


def _post_batch() -> dict[str, Any]:
    made = {"application/json": {"schema": {"$ref": _REFERENCE.format(name="MadeBatch")}}}
    asked = {"application/json": {"schema": {"$ref": _REFERENCE.format(name="BatchSubmission")}}}
    return {
        "summary": "SubmitBatch",
        "operationId": "SubmitBatch",
        "description": "Send a template to up to 100,000 recipients; 201 when all of it is on disk.",
        "parameters": [_IDEMPOTENCY],
        "requestBody": {"required": True, "content": asked},
        "responses": {"201": {"description": "Accepted, and on disk.", "content": made}},
    }


class Document(OpenAPIRenderPlugin):
    """Gives the document as JSON."""

    def __init__(self) -> None:
        """Stand at /openapi.json."""
        super().__init__(path="/openapi.json", media_type="application/vnd.oai.openapi+json")  # type: ignore[arg-type]
        self._octets = b""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """Give the document, made once."""
        if not self._octets:
            self._octets = msgspec.json.encode(complete(_plain(openapi_schema)))
        return self._octets


class Page(OpenAPIRenderPlugin):
    """Gives the document as one page of HTML, which needs nothing from elsewhere."""

    def __init__(self) -> None:
        """Stand at /docs."""
        super().__init__(path="/docs")
        self._octets = b""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """Give the page, made once."""
        if not self._octets:
            self._octets = write_page(complete(_plain(openapi_schema))).encode()
        return self._octets


def write_page(document: dict[str, Any]) -> str:
    """Write the document as HTML: each operation with its parameters, content and answers, then all types."""
    told = document["info"]
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(told['title'])}</title>",
        f"<style>{_STYLE}</style><h1>{html.escape(told['title'])} {html.escape(told['version'])}</h1>",
        f"<p>{html.escape(told.get('description') or '')} The same as <a href=openapi.json>OpenAPI</a>.</p>",
        "<h2>Requests</h2>",
    ]
    for path, operations in sorted(document["paths"].items()):
        for method, operation in operations.items():
            if not isinstance(operation, dict):
                continue
            text = html.escape(operation.get("description") or operation.get("summary") or "")
            shown = {key: operation[key] for key in ("parameters", "requestBody", "responses") if key in operation}
            parts.append(
                f"<details><summary><b>{method.upper()}</b> <code>{html.escape(path)}</code><br>{text}</summary>"
                f"<pre>{_json(shown)}</pre></details>"
            )
    parts.append("<h2>Types</h2>")
    for name, schema in sorted(document["components"]["schemas"].items()):
        parts.append(
            f"<details id='{html.escape(name)}'><summary><code>{html.escape(name)}</code></summary>"
            f"<pre>{_json(schema)}</pre></details>"
        )
    return "".join(parts)


def _json(value: object) -> str:
    return html.escape(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _plain(value: Any) -> Any:
    """Copy a document into plain values."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items() if inner is not Empty}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value.value if hasattr(value, "value") and not isinstance(value, str) else value
