"""Turns the measurements of run_peers.py into the tables of RESULTS.md."""

import statistics
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from results_file import describe_machine, write_section

Rows = list[dict[str, Any]]


def write_report(path: Path, rows: Rows, scenarios: Sequence[Any], postfix_config: str, name: str) -> None:
    """Replace the section "Beside Postfix"; `name` is what the relay beside it is called."""
    names = {"cmd": name, "postfix": "Postfix"}
    rounds = 1 + max((row["round"] for row in rows), default=0)
    parts = [
        f"{describe_machine()}; {_postfix_version()}. Load by smtp-source, upstream smtp-sink, all over "
        f"loopback on this machine. Rounds: {rounds}, alternating between the relays; medians, the range in "
        "brackets. "
        "DKIM is off unless said, history is on."
    ]
    for scenario in scenarios:
        beside = "reuse" if scenario.signing else scenario.name
        parts.append(_throughput(scenario, pick(rows, scenario.name, "cmd"), pick(rows, beside, "postfix"), names))
    parts.append(_idle(pick(rows, "idle", "cmd"), pick(rows, "idle", "postfix"), names))
    if postfix_config:
        parts.append(f"### Postfix's configuration (main.cf, master.cf)\n\n```\n{postfix_config.strip()}\n```")
    write_section(path, "Beside Postfix", "\n\n".join(part for part in parts if part))


def pick(rows: Rows, scenario: str, peer: str) -> Rows:
    """Give the measurements of one relay under one load."""
    return [row for row in rows if row["scenario"] == scenario and row["peer"] == peer]


def _median(rows: Rows, key: str) -> float:
    return statistics.median(row[key] for row in rows)


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = "|".join(["---", *["--:"] * (len(head) - 1)])
    return "\n".join([f"| {' | '.join(head)} |", f"|{rule}|", *(f"| {' | '.join(line)} |" for line in lines)])


def _throughput(scenario: Any, ours: Rows, theirs: Rows, names: dict[str, str]) -> str:
    if not ours and (scenario.signing or not theirs):
        return ""
    head = (
        "relay",
        "end to end, messages/s",
        "accepted, messages/s",
        "CPU ms a message",
        "memory MiB (PSS)",
        "messages",
    )
    lines = []
    for rows in (ours, theirs):
        if rows:
            rates = [row["e2e_rate"] for row in rows]
            lines.append(
                (
                    names[rows[0]["peer"]] + _remarks(rows),
                    f"**{_median(rows, 'e2e_rate'):,.0f}** ({min(rates):,.0f} to {max(rates):,.0f})",
                    f"{_median(rows, 'accept_rate'):,.0f}",
                    f"{_median(rows, 'cpu_ms_per_msg'):.3f}",
                    f"{_median(rows, 'pss_mb'):.0f}",
                    f"{rows[0]['messages']:,}",
                )
            )
    text = f"### {scenario.title}\n\n{_table(head, lines)}"
    if ours and theirs:
        times = _median(ours, "e2e_rate") / max(_median(theirs, "e2e_rate"), 0.1)
        share = _median(theirs, "cpu_ms_per_msg") / max(_median(ours, "cpu_ms_per_msg"), 0.001)
        text += (
            f"\n\n{times:.1f} times Postfix's messages/s (goal: {scenario.least:g}), 1/{share:.1f} of its CPU a message"
        )
        text += f" (goal: 1/{1 / scenario.cpu_share:.0f})." if scenario.cpu_share else "."
    if scenario.signing:
        text += f" One core of this machine makes {rsa_rate():,.0f} signatures with RSA-2048 a second and nothing else."
    return text


def rsa_rate(seconds: float = 2.0) -> float:
    """Count the RSA-2048 signatures that one thread makes in a second, by the library that the relay signs with."""
    key = rsa.generate_private_key(65537, 2048)
    started, made = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        key.sign(bytes(32), PKCS1v15(), Prehashed(SHA256()))
        made += 1
    return made / (time.perf_counter() - started)


def _remarks(rows: Rows) -> str:
    """Say in brackets what makes a measurement doubtful."""
    remarks = []
    if any(not row["complete"] or row["rc"] for row in rows):
        remarks.append(f"incomplete in {sum(1 for row in rows if not row['complete'] or row['rc'])} rounds")
    if any(row["received"] > row["messages"] for row in rows):
        remarks.append("duplicates")
    if (noise := max(row.get("noise", 0) for row in rows)) > 0.3:
        remarks.append(f"others took up to {noise:.1f} cores")
    return f" ({'; '.join(remarks)})" if remarks else ""


def _idle(ours: Rows, theirs: Rows, names: dict[str, str]) -> str:
    if not ours and not theirs:
        return ""
    head = ("relay", "connect to delivered, ms", "connect to 250, ms", "end of data to 250, ms", "250 to delivered, ms")
    keys = ("total_ms", "accept_ms", "dot_ms", "after_250_ms")
    lines = [(names[r[0]["peer"]], *(f"{_median(r, key):.2f}" for key in keys)) for r in (ours, theirs) if r]
    return f"### One message at a time, nothing else to do\n\n{_table(head, lines)}\n\nGoal: no slower than Postfix."


def _postfix_version() -> str:
    found = subprocess.run(["postconf", "-dh", "mail_version"], capture_output=True, text=True, check=False)
    return f"Postfix {found.stdout.strip() or 'of unknown version'}"
