"""smarthost check: reads the configuration, the keys and the permissions, and says what is wrong."""

import argparse
import json
import os
import socket
import stat
import sys
from pathlib import Path

from smarthost.cli.parser import add_config, add_json
from smarthost.config import Config, ConfigError, load
from smarthost.crypto.dkim_keys import KeyUnreadable, load_key
from smarthost.crypto.tls import ServerTls, TlsContexts, TlsFault
from smarthost.dnssec import dnssec_warnings
from smarthost.mail.route import Route, TlsLevel
from smarthost.network.dial import SourceUnusable, bind


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_config(parser)
    add_json(parser)


def run(chosen: argparse.Namespace) -> int:
    """Run the command; gives 78 when something would keep the relay from starting, else 0."""
    problems: list[str] = []
    warnings: list[str] = []
    try:
        config = load(chosen.config, os.environ)
    except ConfigError as error:
        problems = [str(problem) for problem in error.problems]
    else:
        warnings += (*config.warnings, *dnssec_warnings(config))
        check_keys(config, problems, warnings)
        check_certificates(config, problems)
        check_folder(config.data_directory, problems, warnings)
        check_sources(config, warnings)
    if chosen.json:
        print(json.dumps({"ok": not problems, "problems": problems, "warnings": warnings}, ensure_ascii=False))
        return os.EX_CONFIG if problems else os.EX_OK
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        return os.EX_CONFIG
    print("ok")
    return os.EX_OK


def check_keys(config: Config, problems: list[str], warnings: list[str]) -> None:
    """Read every DKIM key as the relay would."""
    for setting in config.dkim:
        try:
            warnings += load_key(setting.domain, setting.selector, setting.key).warnings
        except KeyUnreadable as fault:
            problems.append(str(fault))


def check_certificates(config: Config, problems: list[str]) -> None:
    """Read the listeners' certificate and key, and the trust anchors and certificates of routes and logins."""
    files = config.tls
    if files.certificate is not None and files.key is not None:
        try:
            ServerTls(files.certificate, files.key)
        except TlsFault as fault:
            problems.append(str(fault))
    contexts = TlsContexts()
    routes: list[Route] = [config.fallback, *(rule.route for rule in config.route_rules)]
    routes += [upstream.route for route in routes for upstream in route.pool]
    anchors = {route.ca_file for route in routes}
    anchors |= {login.grant.ca_file for login in config.credentials.values() if login.grant is not None}
    for ca_file in sorted(anchors - {""}):
        try:
            contexts.for_level(TlsLevel.VERIFY, ca_file)
        except TlsFault as fault:
            problems.append(str(fault))
    for pair in sorted({(route.client_certificate, route.client_key) for route in routes} - {("", "")}):
        try:
            contexts.for_level(TlsLevel.ENCRYPT, client=pair)
        except TlsFault as fault:
            problems.append(str(fault))


def check_sources(config: Config, warnings: list[str]) -> None:
    """See whether this machine has the addresses that sessions shall go out from; they may come up later."""
    routes = [config.fallback, *(rule.route for rule in config.route_rules)]
    for address in sorted({source.address for route in routes for source in route.source_address}):
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as connection:
            try:
                bind(connection, address)
            except SourceUnusable as fault:
                warnings.append(str(fault))


def check_folder(folder: Path, problems: list[str], warnings: list[str]) -> None:
    """See whether the data directory can be made or used, and whether others may look into it."""
    nearest = folder.absolute()
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        problems.append(f"{nearest}: is in the way of the data directory {folder}, and is not a directory")
        return
    if not os.access(nearest, os.R_OK | os.W_OK | os.X_OK):
        verb = "used" if nearest == folder.absolute() else "made"
        problems.append(f"{folder}: this data directory cannot be {verb} by this user: no permission at {nearest}")
        return
    if nearest == folder.absolute():
        state = folder.stat()
        if state.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            warnings.append(f"{folder}: others than the owner may look into the data directory; chmod 700 {folder}")
        if state.st_uid != os.geteuid():
            warnings.append(f"{folder}: belongs to another user than the one who runs this check")
