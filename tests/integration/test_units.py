"""The units of packaging/systemd: as systemd reads them, and as docs/deploying.md explains them.

That they work is tried on a machine under systemd; what is kept here is that they are well formed
and hold what was tried there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "packaging" / "systemd"
PAGE = ROOT / "docs" / "deploying.md"
MOST_EXPOSED = 60
"""Of 100, by `systemd-analyze security`; without any hardening it is 96."""

systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def settings(unit: Path) -> dict[str, str]:
    lines = [line.split("=", 1) for line in unit.read_text().splitlines() if "=" in line]
    return {key: value for key, value in lines if not key.startswith("#")}


def installed(folder: Path, place: Path) -> list[str]:
    """The units, with a program in the place of one that is not installed here."""
    place.mkdir()
    for unit in folder.glob("runner.*"):
        text = re.sub(r"(?m)^(ExecStart=)\S+", r"\1/bin/true", unit.read_text())
        (place / unit.name).write_text(text)
    return sorted(str(unit) for unit in place.iterdir())


@systemd
@pytest.mark.parametrize("folder", [UNITS, UNITS / "user"], ids=["machine", "user"])
def test_systemd_takes_the_units(folder, tmp_path):
    units = installed(folder, tmp_path / "units")
    assert len(units) == 2
    command = ["systemd-analyze", "verify", "--man=no"]
    done = subprocess.run(
        [*command, *units], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    # The twin: a line that systemd does not know is told of.
    (tmp_path / "units" / "runner.service").open("a").write("\n[Service]\nNoSuchLine=yes\n")
    done = subprocess.run(
        [*command, *units], capture_output=True, text=True, check=False, timeout=120
    )
    assert "NoSuchLine" in done.stderr


@systemd
def test_the_machines_server_is_hardened():
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager"]
    done = subprocess.run(
        [*command, f"--threshold={MOST_EXPOSED}", str(UNITS / "runner.service")],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-500:]


def test_a_session_outlives_its_server_and_a_run_has_its_grace():
    for folder in (UNITS, UNITS / "user"):
        service = settings(folder / "runner.service")
        assert service["KillMode"] == "process"
        assert service["Type"] == "notify"
        grace = re.search(r"--grace (\d+)s", service["ExecStart"])
        assert grace is not None
        # Cancelling and recording comes behind the grace, and what is being answered.
        assert int(service["TimeoutStopSec"].rstrip("s")) >= int(grace[1]) + 30
        # A folder that goes with the service would take the sessions' workspaces along.
        assert "PrivateTmp" not in service
        assert "RuntimeDirectory" not in service


def test_the_page_explains_each_line_of_the_machines_service():
    told = set(re.findall(r"`(\w+)=", PAGE.read_text()))
    plain = {"Description", "Documentation", "Requires", "After", "WantedBy", "Also"}
    assert set(settings(UNITS / "runner.service")) - plain - told == set()


@pytest.mark.root
def test_a_service_that_is_not_shown_the_users_manager_has_none(tmp_path):
    """ProtectHome= makes /run/user unreadable: no defect, and no group of a scope."""
    inside = (
        "import os\n"
        "from runner.backends.native.zygote import can_be_delegated\n"
        "os.seteuid(54001)\n"
        "print(can_be_delegated())\n"
    )
    (tmp_path / "inside.py").write_text(inside)
    hidden = "mkdir -p /run/user && mount -t tmpfs -o mode=0700 none /run/user && "
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", hidden + 'exec "$0" "$1"', sys.executable,
         str(tmp_path / "inside.py")],
        capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mount namespace can be made here: {done.stderr}")
    assert (done.stdout, done.returncode) == ("False\n", 0), done.stderr
