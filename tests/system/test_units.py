"""The files for systemd: what it says of them, and that they agree with each other."""

import subprocess
import sys
from pathlib import Path

import pytest
from outside import need_command

UNITS = Path(__file__).parents[2] / "systemd"
MOST_EXPOSURE = 30  # tenths; it is 1.6 with systemd 252, and 9.6 for a service without any hardening


def settings(file: Path) -> dict[str, str]:
    """Give the settings of a unit; of those that come twice, the last."""
    lines = [line.partition("=") for line in file.read_text().splitlines() if line[:1].isalpha()]
    return {key: value for key, _, value in lines}


def test_the_service_runs_as_a_lasting_user() -> None:
    """Its group can own files that nobody else may read, which no user of a DynamicUser= service could."""
    service = settings(UNITS / "smarthost.service")
    [made] = [line.split() for line in (UNITS / "smarthost.sysusers").read_text().splitlines() if line[:1] != "#"]
    assert "DynamicUser" not in service
    assert made[:2] == ["u", service["User"]] == ["u", service["Group"]]
    assert made[-1] == f"/var/lib/{service['StateDirectory']}"
    assert (service["StateDirectoryMode"], service["ConfigurationDirectoryMode"]) == ("0700", "0750")


def test_systemd_makes_the_user() -> None:
    """systemd-sysusers understands the file, whether the user is there already or not."""
    need_command("systemd-sysusers")
    command = ["systemd-sysusers", "--dry-run", str(UNITS / "smarthost.sysusers")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr


def test_systemd_understands_the_units(tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say of the units, once the program is where they expect it."""
    need_command("systemd-analyze")
    for unit in ("smarthost.service", "smarthost.socket"):
        text = (UNITS / unit).read_text()
        (tmp_path / unit).write_text(text.replace("/opt/smarthost/bin/smarthost", sys.executable))
    command = ["systemd-analyze", "verify", *map(str, sorted(tmp_path.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if "Failed to initialize manager" in done.stderr:
        pytest.skip("systemd-analyze cannot run here")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_service_stays_hardened() -> None:
    """`systemd-analyze security` sees little that the relay could do if it were taken over."""
    need_command("systemd-analyze")
    unit = str(UNITS / "smarthost.service")
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSURE}", unit]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-200:] + done.stderr
