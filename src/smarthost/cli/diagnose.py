"""smarthost diagnose: looks for what keeps mail from going, one line a check, with what to do about it."""

import argparse
import asyncio
import json
import os
import time
from collections.abc import Iterable
from typing import Any

import msgspec

from smarthost.cli.check import check_certificates, check_folder, check_keys, check_sources
from smarthost.cli.exits import CommandFailed
from smarthost.cli.parser import add_config, add_json
from smarthost.cli.relay import RelayDown, ask_one
from smarthost.cli.table import printable
from smarthost.config import Config, ConfigError, load
from smarthost.crypto.dkim_keys import KeyUnreadable
from smarthost.diagnosis import Finding, Verdict, check_certificate, check_clock, check_listener, check_space
from smarthost.diagnosis_outside import check_outside
from smarthost.dnssec import dnssec_warnings
from smarthost.explain import known_from


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_config(parser)
    add_json(parser)
    parser.add_argument("--offline", action="store_true", help="ask neither DNS nor upstreams")


def run(chosen: argparse.Namespace) -> int:
    """Run the command; gives 0 where nothing failed, else the code of the first failure."""
    try:
        config = load(chosen.config, os.environ)
    except ConfigError as error:
        findings = [Finding("configuration", Verdict.FAIL, str(problem)) for problem in error.problems]
    else:
        findings = diagnose(config, chosen.offline)
    if chosen.json:
        is_well = all(each.verdict is not Verdict.FAIL for each in findings)
        print(json.dumps({"ok": is_well, "findings": msgspec.to_builtins(findings)}, ensure_ascii=False))
    else:
        for each in findings:
            print(printable(f"{each.verdict.value:<4}  {each.check}: {each.text}"))
            if each.hint:
                print(printable(f"      {each.hint}"))
    return next((each.exit_code for each in findings if each.verdict is Verdict.FAIL), os.EX_OK)


def diagnose(config: Config, offline: bool) -> list[Finding]:
    """Run every check."""
    now = time.time()
    findings = [*_configuration(config), check_space(config), check_clock(config, now), check_certificate(config, now)]
    status = _status(config)
    if isinstance(status, Finding):
        findings.append(status)
    else:
        findings.append(_running(status))
    is_running = not isinstance(status, Finding)
    findings += filter(None, (check_listener(listener, is_running) for listener in config.listeners))
    if not offline:
        try:
            findings += asyncio.run(check_outside(known_from(config, time.time)))
        except KeyUnreadable as fault:
            findings.append(Finding("dkim", Verdict.FAIL, str(fault), "smarthost check says more"))
    return findings


def _configuration(config: Config) -> Iterable[Finding]:
    problems: list[str] = []
    warnings = [*config.warnings, *dnssec_warnings(config)]
    check_keys(config, problems, warnings)
    check_certificates(config, problems)
    check_folder(config.data_directory, problems, warnings)
    check_sources(config, warnings)
    yield from (Finding("configuration", Verdict.FAIL, problem) for problem in problems)
    yield from (Finding("configuration", Verdict.WARN, warning) for warning in warnings)
    if not problems:
        yield Finding("configuration", Verdict.OK, f"{config.source or 'the defaults'}: it can be used")


def _status(config: Config) -> dict[str, Any] | Finding:
    try:
        return ask_one(config.data_directory, "status", {})
    except RelayDown as fault:
        return Finding("relay", Verdict.WARN, str(fault), "smarthost serve starts it")
    except CommandFailed as fault:
        return Finding("relay", Verdict.FAIL, str(fault), "", fault.exit_code)


def _running(status: dict[str, Any]) -> Finding:
    queue = status.get("queue", {})
    text = f"version {status['version']} runs for {status['uptime_seconds']:.0f} s; in the queue: "
    text += ", ".join(f"{state} {count}" for state, count in queue.items())
    return Finding(
        "relay", Verdict.OK, text, "smarthost check-loop says whether it goes on" if queue.get("total") else ""
    )
