"""smarthost sink: runs a test upstream that misbehaves by recipient."""

import argparse
import asyncio
import os
import ssl
import tempfile
import time
from pathlib import Path

import msgspec

from smarthost.cli.exits import CommandFailed, misused, unavailable
from smarthost.crypto.tls import ServerTls, TlsFault, ensure_self_signed
from smarthost.sink.desk import SinkSettings
from smarthost.sink.main import serve

_BEHAVIOUR = """\
the recipient's local part says how it is treated:
  250@ or any other        accepted
  451@ 550@ 452.4.2.2@     that code (and enhanced status) as reply to RCPT
  451.once@                refused once, then accepted
  451=try_again_in_5_min@  with these words in the reply
  data-451@ data-554@      that code after the end of data
  drop-mail@ drop-data@ drop-dot@   the connection is closed there
  slow-500@                waits 500 ms before each reply
  hang@                    never answers again
  garbage@ huge@           answers RCPT with what is no reply, or with 100 KB
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _BEHAVIOUR
    parser.add_argument("--listen", metavar="ADDRESS", default="127.0.0.1:2525", help="host:port [127.0.0.1:2525]")
    parser.add_argument("--http", metavar="ADDRESS", default="", help="serve GET /counts here, host:port [off]")
    parser.add_argument("--maildir", metavar="DIR", type=Path, help="store what comes [only count it]")
    parser.add_argument("--login", metavar="USER:PASSWORD", default="", help="offer AUTH with this login [no AUTH]")
    parser.add_argument(
        "--token", metavar="USER:TOKEN", default="", help="demand XOAUTH2 or OAUTHBEARER with this access token"
    )
    parser.add_argument("--tls", action="store_true", help="offer STARTTLS with a throw-away certificate [no TLS]")
    parser.add_argument("--certificate", metavar="FILE", type=Path, help="offer STARTTLS with this PEM chain")
    parser.add_argument("--key", metavar="FILE", type=Path, help="the private key of --certificate")


def run(chosen: argparse.Namespace) -> int:
    """Run the sink until Ctrl-C; gives the exit code."""
    if (chosen.certificate is None) != (chosen.key is None):
        raise misused("--certificate and --key belong together")
    try:
        asyncio.run(serve(_settings(chosen), _tls(chosen), _announce))
    except KeyboardInterrupt:
        return os.EX_OK
    except ValueError as error:
        raise misused(str(error)) from None
    except OSError as error:
        raise unavailable(f"the sink cannot start: {error.strerror or error}") from None
    return os.EX_OK


def _settings(chosen: argparse.Namespace) -> SinkSettings:
    settings = SinkSettings(listen=chosen.listen, http=chosen.http, maildir=chosen.maildir)
    if chosen.login and chosen.token:
        raise misused("--login and --token are both given; give one of them")
    username, colon, secret = (chosen.login or chosen.token).partition(":")
    if (chosen.login or chosen.token) and not colon:
        raise misused("--login wants USER:PASSWORD, and --token USER:TOKEN")
    if chosen.token:
        mechanisms = ("XOAUTH2", "OAUTHBEARER")
        wanted = {"username": username, "tokens": (secret,), "mechanisms": mechanisms, "require_auth": True}
    else:
        wanted = {"username": username, "password": secret}
    return msgspec.structs.replace(settings, **wanted)


def _announce(sentence: str) -> None:
    print(sentence, flush=True)


def _tls(chosen: argparse.Namespace) -> ssl.SSLContext | None:
    try:
        if chosen.certificate is not None:
            return ServerTls(chosen.certificate, chosen.key).context
        if chosen.tls:
            with tempfile.TemporaryDirectory(prefix="smarthost-sink-") as folder:
                return ServerTls(*ensure_self_signed(Path(folder), "localhost", time.time())).context
    except TlsFault as fault:
        raise CommandFailed(str(fault), os.EX_NOINPUT) from None
    return None
