"""Keeps RESULTS.md: each tool replaces its own section and leaves the others alone; and says what was measured on."""

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "RESULTS.md"
_TITLE = "# What was measured\n\nHow each number comes about is told in [README.md](README.md).\n"


def write_section(path: Path, title: str, text: str) -> None:
    """Put "## title" with its text into a file, in place of an older section of that title."""
    old = path.read_text() if path.exists() else _TITLE
    section = f"## {title}\n\n{text.strip()}\n"
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if pattern.search(old):
        new = pattern.sub(lambda _: section + "\n", old)
    else:
        new = old.rstrip() + "\n\n" + section
    path.write_text(new.rstrip() + "\n")


def describe_machine() -> str:
    """Give processor, cores, memory, kernel, Python, and the day."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({model[1] if model else 'unknown'}), {memory:.0f} GiB, "
        f"Linux {platform.release()}, {platform.python_implementation()} {platform.python_version()}, "
        f"smarthost at {_commit()}"
    )


def _commit() -> str:
    command = ["git", "-C", str(RESULTS.parent), "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "no commit"
