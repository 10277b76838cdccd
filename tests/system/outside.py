"""What the system tests need from outside the project: is it there, and must it be?"""

import os
import shutil
import subprocess

import pytest


def need(is_there: bool, what: str) -> None:
    """Skip the test with a reason when something is missing; fail instead where everything has been installed."""
    if is_there:
        return
    if os.environ.get("SMARTHOST_TEST_EVERYTHING"):
        pytest.fail(f"missing, though everything is to be tested: {what}")
    pytest.skip(f"missing: {what}")


def need_command(*names: str) -> None:
    """Skip the test unless all these commands are installed."""
    for name in names:
        need(shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is not None, f"command {name}")


def need_root() -> None:
    """Skip the test unless it runs as root."""
    need(os.geteuid() == 0, "root rights")


def succeeds(*command: str) -> bool:
    """Whether a short command ends with status 0."""
    try:
        return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
