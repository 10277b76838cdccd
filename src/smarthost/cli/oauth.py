"""smarthost oauth: obtains the refresh token of a login, once, with a person's consent."""

import argparse
import json
import os
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path

from smarthost.cli.exits import CommandFailed, misconfigured, misused
from smarthost.cli.parser import add_config, add_json
from smarthost.cli.settings import load_config
from smarthost.crypto.tls import TlsContexts, TlsFault
from smarthost.logins import make_sign
from smarthost.mail.route import TlsLevel
from smarthost.network.https import TIMEOUT, Answer, HttpsFault, post_form
from smarthost.network.oauth_answer import TokenFault
from smarthost.network.oauth_browser import REDIRECT, BrowserLogin
from smarthost.network.oauth_device import DeviceLogin
from smarthost.network.oauth_file import write_refresh_token
from smarthost.network.oauth_grant import Grant

_EXIT_CODES = {
    "access_denied": os.EX_NOPERM,
    "authorization_declined": os.EX_NOPERM,
    "expired_token": os.EX_TEMPFAIL,
    "temporarily_unavailable": os.EX_TEMPFAIL,
    "bad_address": os.EX_DATAERR,
    "": os.EX_UNAVAILABLE,
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    login = actions.add_parser(
        "login",
        help="log in with a browser anywhere, and write the refresh token to its file",
        description="Shows an address and a code; whoever opens the one and enters the other lets this relay send. "
        "The refresh token is written to the login's refresh_token_file, readable by its owner alone. A relay that "
        "runs takes it up by itself.",
    )
    login.add_argument(
        "--browser",
        action="store_true",
        help="by an address that is copied back, for scopes that no device is given, as Gmail's",
    )
    login.add_argument("name", metavar="NAME", help='the route\'s name, or "relayhost"')
    add_config(login)
    add_json(login)


def run(chosen: argparse.Namespace) -> int:
    """Run the command; gives the exit code."""
    grant = _find_grant(chosen)
    file = grant.refresh_token_file
    assert file is not None
    _check_folder(file)
    post = _Post(grant.ca_file)
    token = _by_browser(grant, post, chosen.json) if chosen.browser else _by_device(grant, post, chosen.json)
    if isinstance(token, TokenFault):
        raise _failed(token)
    try:
        write_refresh_token(file, token)
    except OSError as error:
        raise CommandFailed(f"{file} cannot be written: {error.strerror or error}", os.EX_CANTCREAT) from None
    if chosen.json:
        print(json.dumps({"ok": True, "refresh_token_file": str(file)}))
    else:
        print(f"The refresh token is in {file}; a relay that runs uses it from its next login on.")
    return os.EX_OK


def _by_device(grant: Grant, post: "_Post", as_json: bool) -> str | TokenFault:
    if not grant.device_url:
        raise misconfigured(f"the login of {grant.name} has neither provider nor device_url, so nobody can be asked")
    login = DeviceLogin(grant, make_sign(grant), post)
    code = login.begin()
    if isinstance(code, TokenFault):
        if code.error == "invalid_scope" and grant.authorize_url:
            return TokenFault(f"{code.reason}; a device may not have it, --browser may", code.error)
        return code
    if as_json:
        shown = {"verification_uri": code.address, "user_code": code.user_code, "expires_in": code.lifetime}
        print(json.dumps(shown), flush=True)
    else:
        print(f"Open {code.address} in any browser, log in as {grant.username}, and enter the code {code.user_code}")
        print(f"(waiting for {code.lifetime / 60:.0f} minutes at most)", flush=True)
    return login.wait(code)


def _by_browser(grant: Grant, post: "_Post", as_json: bool) -> str | TokenFault:
    if not grant.authorize_url:
        raise misconfigured(f"the login of {grant.name} has neither provider nor authorize_url")
    login = BrowserLogin(grant, make_sign(grant), post)
    if as_json:
        print(json.dumps({"authorize_url": login.address}), flush=True)
    else:
        print(f"Open this address in any browser, and log in as {grant.username}:\n\n{login.address}\n")
        print(f"The browser then says that it cannot reach {REDIRECT}: copy the whole address that it shows, and")
        print("enter it here: ", end="", flush=True)
    return login.finish(sys.stdin.readline())


class _Post:
    """Posts forms with one TLS context."""

    def __init__(self, ca_file: str) -> None:
        try:
            self._context: ssl.SSLContext = TlsContexts().for_level(TlsLevel.VERIFY, ca_file)
        except TlsFault as fault:
            raise misconfigured(str(fault)) from None

    def __call__(self, url: str, fields: Mapping[str, str]) -> Answer | HttpsFault:
        return post_form(url, fields, self._context, TIMEOUT)


def _find_grant(chosen: argparse.Namespace) -> Grant:
    logins = load_config(chosen, needs_tokens=False).credentials
    login = logins.get(chosen.name)
    if login is None:
        there_are = f"there are: {', '.join(sorted(logins))}" if logins else "no route has one"
        raise misused(f"there is no login {chosen.name!r}; {there_are}")
    grant = login.grant
    if grant is None or grant.refresh_token_file is None:
        raise misconfigured(f"the login of {chosen.name} uses no refresh token; give it refresh_token_file")
    return grant


def _check_folder(file: Path) -> None:
    """See that the token can be kept, before a person goes to a browser for it."""
    folder = file.resolve().parent
    if not folder.is_dir():
        raise CommandFailed(f"{folder}: there is no such folder to keep the refresh token in", os.EX_CANTCREAT)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CommandFailed(f"{folder}: this user may not write there", os.EX_CANTCREAT)


def _failed(fault: TokenFault) -> CommandFailed:
    return CommandFailed(fault.reason, _EXIT_CODES.get(fault.error, os.EX_CONFIG))
