"""smarthost dkim: makes DKIM keys, shows their DNS records, and compares the records with the keys."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from smarthost.cli.dkim_record import compare_record
from smarthost.cli.exits import CommandFailed, misconfigured, misused
from smarthost.cli.parser import add_config, add_json
from smarthost.cli.settings import load_config
from smarthost.crypto.dkim_keys import (
    Algorithm,
    KeyUnreadable,
    KeyUnwritable,
    SigningKey,
    generate_key,
    load_key,
    public_record,
    zone_record,
)

_ALGORITHMS = {"rsa": Algorithm.RSA_SHA256, "ed25519": Algorithm.ED25519_SHA256}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    making = actions.add_parser(
        "generate", help="make a key and print its DNS record", description="Makes a key and prints its DNS record."
    )
    making.add_argument("--domain", required=True, help="signs mail whose From domain is this or below it")
    making.add_argument("--selector", required=True, help="names this key among the domain's keys, for example s2026a")
    making.add_argument("--algorithm", choices=_ALGORITHMS, default="rsa", help="[rsa: every receiver knows it]")
    making.add_argument("--bits", type=int, default=2048, choices=(2048, 3072, 4096), help="of an RSA key [2048]")
    making.add_argument("--out", required=True, metavar="FILE", type=Path, help="the new key file (PEM, mode 0600)")
    add_json(making)
    for name, text in (
        ("show", "print the DNS records of the configured keys"),
        ("check", "compare the configured keys with their records in DNS"),
    ):
        action = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        action.add_argument("--domain", default="", help="only this domain's keys")
        action.add_argument("--selector", default="", help="only this selector's key")
        action.add_argument("--key", metavar="FILE", type=Path, help="this key file, with --domain and --selector")
        if name == "check":
            action.add_argument("--server", default="", metavar="ADDRESS", help="ask this DNS server: address[:port]")
        add_config(action)
        add_json(action)


def run(chosen: argparse.Namespace) -> int:
    """Run the command; gives the exit code."""
    if chosen.action == "generate":
        return _generate(chosen)
    keys = _keys(chosen)
    if chosen.action == "show":
        for key in keys:
            _show(key, chosen.json)
        return os.EX_OK
    return _check(keys, chosen)


def _generate(chosen: argparse.Namespace) -> int:
    try:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        generate_key(_ALGORITHMS[chosen.algorithm], chosen.out, chosen.bits)
    except OSError as error:
        raise CommandFailed(f"{chosen.out.parent}: {error.strerror}", os.EX_CANTCREAT) from None
    except KeyUnwritable as fault:
        raise CommandFailed(str(fault), os.EX_CANTCREAT) from None
    try:
        key = load_key(chosen.domain, chosen.selector, chosen.out)
    except KeyUnreadable as fault:
        chosen.out.unlink(missing_ok=True)
        raise misused(str(fault)) from None
    if not chosen.json:
        print(f"; the key is in {chosen.out}; put this record into the zone of {key.domain}:")
    _show(key, chosen.json)
    if not chosen.json:
        print(f'; then: [[dkim]] domain = "{key.domain}", selector = "{key.selector}", key = "{chosen.out}"')
    return os.EX_OK


def _show(key: SigningKey, as_json: bool) -> None:
    if as_json:
        row = {"name": key.record_name, "type": "TXT", "value": public_record(key), "algorithm": str(key.algorithm)}
        print(json.dumps(row | {"key": str(key.path)}))
    else:
        print(zone_record(key))


def _keys(chosen: argparse.Namespace) -> Sequence[SigningKey]:
    try:
        if chosen.key is not None:
            if not (chosen.domain and chosen.selector):
                raise misused("--key wants --domain and --selector")
            return (load_key(chosen.domain, chosen.selector, chosen.key),)
        config = load_config(chosen)
        wanted = [
            setting
            for setting in config.dkim
            if chosen.domain in ("", setting.domain) and chosen.selector in ("", setting.selector)
        ]
        keys = [load_key(setting.domain, setting.selector, Path(setting.key)) for setting in wanted]
    except KeyUnreadable as fault:
        raise misconfigured(str(fault)) from None
    if not keys:
        raise misconfigured("no such key is configured ([[dkim]])")
    return keys


def _check(keys: Sequence[SigningKey], chosen: argparse.Namespace) -> int:
    """Compare; 0 when every record fits, 75 when DNS did not answer, 78 when a record is missing or another one."""
    exit_code = os.EX_OK
    servers = (chosen.server,) if chosen.server else ()
    for key in keys:
        try:
            found, meaning = compare_record(key, servers)
        except ValueError as error:
            raise misused(str(error)) from None
        exit_code = max(exit_code, meaning)
        if chosen.json:
            print(json.dumps({"name": key.record_name, "ok": found.fits, "reason": found.sentence}))
        else:
            out = sys.stdout if found.fits else sys.stderr
            print(f"{key.record_name}: {found.sentence}", file=out)
    return exit_code
