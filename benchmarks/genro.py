"""Measures smarthost beside genro-mail-proxy: the second's client, unchanged, the same machine, rounds that alternate.

usage: genro.py --harness DIR --genro DIR --source DIR [--rounds 3] [--seconds 7] [--only smarthost] [--results FILE]

--harness holds bench.py, peers.py and genro_load.py; --genro the folder in which venv-genro is, --source the proxy's
src folder. Needs root, for the control groups that count CPU, and smtp-sink. Both relays get a tenant, an account at
the sink, and messages of 10 KB by 50 connections: one a call (/messages/add), and up to 500 (/messages/add_batch).
"""

import argparse
import importlib
import json
import os
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

from results_file import RESULTS, describe_machine, write_section

TITLE = "Beside genro-mail-proxy 0.7.0"
SIZE, SESSIONS = 10240, 50
MODES = (("", "one message a call"), ("d", "up to 500 messages a call"))
WANTED = 20  # times the messages/s of the other
_FIRST = {"smarthost": 1000, "genro": 60}  # messages by which is found out how many fill the time
_CONFIG = """\
hostname = "relay.test"
data_directory = "{folder}/data"
relayhost = "[127.0.0.1]:{upstream}"
relayhost_tls = "none"

[[listener]]
address = "127.0.0.1:{smtp}"
tls = "none"
auth = "none"

[submission]
max_connections = 10000
min_free_space = "16MiB"

[http]
address = "127.0.0.1:{listen}"
trusted_networks = ["127.0.0.0/8"]
"""


def smarthost_peer(harness: Path, command: str) -> Any:
    """Give what the harness asks for a peer: how smarthost is started, made ready and loaded."""

    def peer(folder: Path, listen: int, upstream: int) -> dict[str, Any]:
        text = _CONFIG.format(folder=folder, listen=listen, upstream=upstream, smtp=upstream + 1)
        (folder / "smarthost.toml").write_text(text)
        load = [sys.executable, str(harness / "genro_load.py")]
        return {
            "start": command.format(dir=folder).split(),
            "prepare": [*load, "setup", str(listen), str(upstream)],
            "inject": [*load, "send", str(listen)],
        }

    return peer


def measure(bench: ModuleType, name: str, mode: str, messages: int) -> dict[str, Any]:
    """Start sink and relay, warm up, measure, stop; `messages` 0 finds out how many fill the time."""
    sink = bench.Sink(bench.UPSTREAM)
    peer = bench.Peer(name, argparse.Namespace(start="", listen=None, upstream=bench.UPSTREAM))
    try:
        peer.start()
        bench.measure(peer, sink, SIZE, 10, _FIRST[name] // 10, "")
        return dict(bench.measure(peer, sink, SIZE, SESSIONS, messages or _FIRST[name], mode))
    finally:
        peer.stop()
        sink.stop()


def run_rounds(bench: ModuleType, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure both in both modes, in an order that turns round by round."""
    names = arguments.only.split(",") if arguments.only else ["smarthost", "genro"]
    counts: dict[tuple[str, str], int] = {}
    rows = []
    for number in range(arguments.rounds):
        for name in names if number % 2 == 0 else names[::-1]:
            for mode, _ in MODES:
                if (name, mode) not in counts:
                    rate = measure(bench, name, mode, 0)["e2e_rate"]
                    counts[name, mode] = int(max(rate * arguments.seconds, _FIRST[name]))
                row = measure(bench, name, mode, counts[name, mode])
                rows.append(row)
                told = (
                    f"accepted {row['accept_rate']}/s, end to end {row['e2e_rate']}/s, others {row['other_cpu']} s CPU"
                )
                print(f"round {number + 1} {name:9} {mode or '1'} {row['messages']} messages: {told}", flush=True)
                if row["rc"] or not row["complete"]:
                    print(
                        f"  incomplete: {row['received']} received, rc {row['rc']} {row.get('stderr', '')}", flush=True
                    )
                if arguments.raw:
                    with Path(arguments.raw).open("a") as file:
                        file.write(json.dumps(row) + "\n")
    return rows


def write_report(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the table: medians and ranges, and how many times the other's rate that is."""
    of: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        of[row["peer"], row["reuse"]].append(row)
    lines = [describe_machine() + "\n", "| load | relay | accepted/s | end to end/s | CPU ms/message | complete |"]
    lines.append("|---|---|---|---|---|---|")
    for mode, title in MODES:
        for name in ("smarthost", "genro"):
            mine = of.get((name, mode))
            if not mine:
                continue
            cells = [_told(mine, "accept_rate"), _told(mine, "e2e_rate"), f"{median(_all(mine, 'cpu_ms_per_msg')):.2f}"]
            whole = sum(row["complete"] and not row["rc"] for row in mine)
            lines.append(f"| {title} | {name} | {' | '.join(cells)} | {whole} of {len(mine)} |")
        if of.get(("smarthost", mode)) and of.get(("genro", mode)):
            ours, theirs = of["smarthost", mode], of["genro", mode]
            times = [median(_all(ours, key)) / median(_all(theirs, key)) for key in ("accept_rate", "e2e_rate")]
            lines.append(f"| | times, {WANTED} wanted | **{times[0]:.1f}** | **{times[1]:.1f}** | | |")
    write_section(path, TITLE, "\n".join(lines))


def _all(rows: list[dict[str, Any]], key: str) -> list[float]:
    return [float(row[key]) for row in rows]


def _told(rows: list[dict[str, Any]], key: str) -> str:
    values = _all(rows, key)
    return f"{median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


def main() -> None:
    """Read the arguments, measure, write the table."""
    relay = Path(sys.executable).with_name("smarthost")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--harness", type=Path, required=True)
    parser.add_argument("--genro", type=Path, required=True)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--start", default=f"{relay} serve --config {{dir}}/smarthost.toml")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=7.0, help="how long one measurement shall take")
    parser.add_argument("--only", default="", help="smarthost or genro")
    parser.add_argument("--port", type=int, default=10125, help="the relay's; the next two are the sink's and SMTP's")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--raw", default="", help="add every measurement to this file, as JSON lines")
    arguments = parser.parse_args()
    harness = arguments.harness.resolve()
    with tempfile.TemporaryDirectory(prefix="bench-") as work:
        os.environ |= {
            "PEERS_BASE": str(arguments.genro.resolve()),
            "PEERS_RUN": work,
            "GENRO_SRC": str(arguments.source.resolve()),
        }
        sys.path.insert(0, str(harness))
        bench = importlib.import_module("bench")
        bench.RUN, bench.LISTEN, bench.UPSTREAM = Path(work), arguments.port, arguments.port + 1
        importlib.import_module("peers").PEERS["smarthost"] = smarthost_peer(harness, arguments.start)
        rows = run_rounds(bench, arguments)
        write_report(arguments.results, rows)
    print(f"written: {arguments.results}")


if __name__ == "__main__":
    main()
