"""A token endpoint on loopback with TLS: it takes what Microsoft and Google take, and checks it as they do."""

import json
import ssl
import threading
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from https_server import Quiet, https_server

from smarthost.network.oauth_grant import Grant

CLIENT_ID = "11111111-2222-3333-4444-555555555555"
SECRET = "the-client-secret~8Q"
ACCOUNT = "relay@project.iam.gserviceaccount.com"
TENANT = "tenant.example"
MICROSOFT_PATH = f"/{TENANT}/oauth2/v2.0/token"
MICROSOFT_DEVICE_PATH = f"/{TENANT}/oauth2/v2.0/devicecode"
WRONG_SECRET = {
    "error": "invalid_client",
    "error_description": "AADSTS7000215: Invalid client secret provided. Ensure the secret being sent in the request "
    "is the client secret value, not the client secret ID, for a secret added to app '1111'. Trace ID: 6e5f "
    "Correlation ID: 8a0e Timestamp: 2026-01-01 00:00:00Z",
    "error_codes": [7000215],
}


class TokenServer:
    """What a test sees of it. `answers` are given first, as they are; then each request is judged.

    `tokens` are the access tokens that are good; a test may take some out, as one that was revoked.
    """

    def __init__(self, folder: Path, authority: trustme.CA) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.answers: deque[tuple[int, Any]] = deque()
        self.tokens: set[str] = set()
        self.issued: list[str] = []
        self.lifetime: object = 3600
        self.delay = 0.0
        self.rotates = False
        self.refresh_token = "refresh-0-~secret~"
        self.faults: list[BaseException] = []
        self.assertions: list[dict[str, Any]] = []
        self.certificate: x509.Certificate | None = None
        self.service_key: RSAPublicKey | None = None
        self.lock = threading.Lock()
        self.ca_file = folder / "token-ca.pem"
        authority.cert_pem.write_to_path(str(self.ca_file))
        self.port = 0

    def url(self, path: str = MICROSOFT_PATH) -> str:
        """Give an address of it."""
        return f"https://localhost:{self.port}{path}"

    def secrets(self) -> list[str]:
        """Give everything that nobody may see: tokens of both kinds, the secret, assertions, device codes."""
        fields = ("client_secret", "refresh_token", "assertion", "client_assertion", "device_code", "code")
        sent = [form[field] for _, form in self.requests for field in fields if field in form]
        return [*self.issued, self.refresh_token, SECRET, *sent]

    def respond(self, path: str, form: dict[str, str]) -> tuple[int, Any]:
        """Judge a request."""
        with self.lock:
            self.requests.append((path, form))
            if self.answers:
                return self.answers.popleft()
        if path.endswith("devicecode"):
            return 200, {
                "device_code": "device-secret-code",
                "user_code": "ABCD-EFGH",
                "verification_uri": "https://microsoft.example/devicelogin",
                "expires_in": 900,
                "interval": 2,
            }
        if path.endswith("device/code"):
            return 200, {
                "device_code": "device-secret-code",
                "user_code": "GQVQ-JKEC",
                "verification_url": "https://www.google.example/device",
                "expires_in": 1800,
                "interval": 5,
            }
        return self._issue(form)

    def _issue(self, form: dict[str, str]) -> tuple[int, Any]:
        grant = form.get("grant_type", "")
        answer: dict[str, object] = {"token_type": "Bearer", "expires_in": self.lifetime, "ext_expires_in": 3599}
        if grant == "client_credentials":
            assert form["client_id"] == CLIENT_ID
            assert form["scope"].endswith("/.default")
            if "client_assertion" in form:
                self._check_client(form)
            elif form.get("client_secret") != SECRET:
                return 401, WRONG_SECRET
        elif grant == "refresh_token":
            assert form["client_id"] == CLIENT_ID
            if form["refresh_token"] != self.refresh_token:
                return 400, {"error": "invalid_grant", "error_description": "Token has been expired or revoked."}
            if self.rotates:
                self.refresh_token = f"refresh-{len(self.issued) + 1}-~secret~"
                answer["refresh_token"] = self.refresh_token
        elif grant == "urn:ietf:params:oauth:grant-type:jwt-bearer":
            self._check_service(form)
        elif grant == "urn:ietf:params:oauth:grant-type:device_code":
            assert (form["client_id"], form["device_code"]) == (CLIENT_ID, "device-secret-code")
            answer["refresh_token"] = self.refresh_token
        elif grant == "authorization_code":
            challenge = urlsafe_b64encode(sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
            if form["code"] != f"code-secret-for-{challenge}":
                return 400, {"error": "invalid_grant", "error_description": f"bad code {form['code']}"}
            assert (form["client_id"], form["redirect_uri"]) == (CLIENT_ID, "http://localhost:8400")
            answer["refresh_token"] = self.refresh_token
        else:
            return 400, {"error": "unsupported_grant_type"}
        with self.lock:
            # As long as Microsoft's, so that nobody's line limit is spared.
            token = f"access-{len(self.issued) + 1}." + "T" * 1800
            self.issued.append(token)
            self.tokens.add(token)
        return 200, answer | {"access_token": token}

    def _check_client(self, form: dict[str, str]) -> None:
        """Check a client's assertion as Microsoft documents it."""
        assert form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        assert self.certificate is not None
        key = self.certificate.public_key()
        assert isinstance(key, RSAPublicKey)
        header, claims, signed, signature = take_apart(form["client_assertion"])
        key.verify(signature, signed, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
        thumbprint = unpad(header.pop("x5t#S256"))
        assert thumbprint == self.certificate.fingerprint(hashes.SHA256())
        assert header == {"alg": "PS256", "typ": "JWT"}
        assert claims["iss"] == claims["sub"] == CLIENT_ID
        assert claims["aud"] == self.url()
        assert claims["nbf"] <= time.time() < claims["exp"] <= time.time() + 600
        assert claims["jti"] not in {earlier.get("jti") for earlier in self.assertions}
        self.assertions.append(claims)

    def _check_service(self, form: dict[str, str]) -> None:
        """Check a service account's assertion as Google documents it."""
        assert set(form) == {"grant_type", "assertion"}
        assert self.service_key is not None
        header, claims, signed, signature = take_apart(form["assertion"])
        self.service_key.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
        assert header == {"alg": "RS256", "typ": "JWT", "kid": "key-id-1"}
        assert claims["iss"] == ACCOUNT
        assert claims["sub"] == "app@example.org"
        assert claims["scope"] == "https://mail.google.com/"
        assert claims["aud"] == self.url("/token")
        assert claims["iat"] <= time.time() < claims["exp"] <= claims["iat"] + 3600
        self.assertions.append(claims)


def take_apart(token: str) -> tuple[dict[str, Any], dict[str, Any], bytes, bytes]:
    """Give header, claims, the signed octets and the signature of a compact JWS."""
    header, claims, signature = token.split(".")
    return json.loads(unpad(header)), json.loads(unpad(claims)), f"{header}.{claims}".encode(), unpad(signature)


def unpad(text: str) -> bytes:
    """Decode base64url without its padding, which must not be there."""
    assert "=" not in text
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


@contextmanager
def token_server(folder: Path) -> Iterator[TokenServer]:
    """Run one; at the end nothing may have failed in it."""
    authority = trustme.CA()
    server = TokenServer(folder, authority)

    class Responder(Quiet):
        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
            time.sleep(server.delay)
            try:
                assert self.headers["Content-Type"] == "application/x-www-form-urlencoded"
                status, answer = server.respond(self.path, dict(parse_qsl(text, strict_parsing=True)))
            except Exception as fault:
                server.faults.append(fault)
                status, answer = 500, "the test's server found a fault"
            body = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if status == 302:
                self.send_header("Location", server.url("/elsewhere"))
            self.end_headers()
            self.wfile.write(body)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with https_server(context, Responder) as server.port:
        yield server
    assert not server.faults, server.faults


def by_secret(server: TokenServer, **changes: object) -> Grant:
    """Ask as Microsoft's client credentials do."""
    grant = Grant(
        name="relayhost",
        username="app@example.org",
        token_url=server.url(),
        client_id=CLIENT_ID,
        client_secret=SECRET,
        scope="https://outlook.office365.com/.default",
        ca_file=str(server.ca_file),
    )
    return msgspec.structs.replace(grant, **changes)


def client_certificate(folder: Path) -> tuple[Path, Path, x509.Certificate]:
    """Make a client's RSA certificate and key; gives both files, and the certificate."""
    made = trustme.CA(key_type=trustme.KeyType.RSA).issue_cert("client.example", key_type=trustme.KeyType.RSA)
    certificate, key = folder / "client.pem", folder / "client.key"
    made.cert_chain_pems[0].write_to_path(str(certificate))
    made.private_key_pem.write_to_path(str(key))
    key.chmod(0o600)
    return certificate, key, x509.load_pem_x509_certificate(certificate.read_bytes())


def service_account(folder: Path) -> tuple[Path, RSAPublicKey]:
    """Make a service account's JSON as Google gives it; gives the file, and the key that verifies."""
    made = trustme.CA(key_type=trustme.KeyType.RSA).issue_cert("x.example", key_type=trustme.KeyType.RSA)
    pem = made.private_key_pem.bytes()
    file = folder / "service-account.json"
    fields = {"type": "service_account", "private_key_id": "key-id-1", "private_key": pem.decode()}
    file.write_text(json.dumps(fields | {"client_email": ACCOUNT, "token_uri": "https://oauth2.googleapis.com/token"}))
    file.chmod(0o600)
    public = serialization.load_pem_private_key(pem, None).public_key()
    assert isinstance(public, RSAPublicKey)
    return file, public
