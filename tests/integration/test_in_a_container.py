"""runner inside a container of a Docker engine: what doctor says there is what a run meets."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "runner/base:latest"
ALLOWED = ("--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined")
INSIDE = """
import json, os, sys
from runner import Runner
from runner.errors import RunnerError
with Runner(home="/tmp/state", backend="native") as runner:
    print(json.dumps({
        "withheld": {s.protection: s.remedy for s in runner.backend().probe() if not s.in_force},
        "agent": runner.try_profiles()["agent"],
    }))
    os.mkdir("/tmp/work")
    os.chdir("/tmp/work")
    try:
        print(runner.run(["echo", "ran"]).stdout.data.decode().strip())
    except RunnerError as error:
        print("refused:", error)
"""


def in_container(*options):
    """What doctor found there, and what a run under `agent` came to."""
    version = "{}.{}".format(*sys.version_info[:2])
    mounts = {
        ROOT / "runner": "/opt/runner/runner",
        ROOT / "profiles": "/opt/runner/profiles",
        Path(sysconfig.get_path("purelib")): "/opt/site",
    }
    words = ["docker", "run", "--rm", "--network", "none", *options]
    for source, target in mounts.items():
        words += ["-v", f"{source}:{target}:ro"]
    words += ["-e", "PYTHONPATH=/opt/runner:/opt/site", IMAGE]
    found = subprocess.run(
        [*words, "python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if found.returncode:
        pytest.skip(f"the image {IMAGE} can't be started: scripts/build-images makes it")
    if found.stdout.strip() != version:
        pytest.skip(f"{IMAGE} has Python {found.stdout.strip()}, these packages are {version}'s")
    done = subprocess.run(
        [*words, "python3", "-B", "-c", INSIDE],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    doctor, ran = done.stdout.splitlines()
    return json.loads(doctor), ran


def test_what_docker_withholds_by_default_is_named():
    doctor, ran = in_container()
    assert "user_namespace" in doctor["withheld"]
    assert "seccomp=unconfined" in doctor["withheld"]["user_namespace"]
    assert "required protection" in doctor["agent"]
    assert ran.startswith("refused: ")


def test_a_masked_proc_is_named():
    doctor, ran = in_container("--user", "1000:1000", *ALLOWED[:2])
    assert "systempaths=unconfined" in doctor["withheld"]["private_proc"]
    assert "user_namespace" not in doctor["withheld"]
    assert "private_proc" in doctor["agent"] or "mount_namespace" in doctor["agent"]
    assert ran.startswith("refused: ")


def test_root_without_the_right_to_mount_is_told_so():
    doctor, ran = in_container(*ALLOWED)
    assert "--user 1000:1000" in doctor["withheld"]["mount_namespace"]
    assert "--cap-add SYS_ADMIN" in doctor["withheld"]["mount_namespace"]
    assert "mount_namespace" in doctor["agent"]
    assert ran.startswith("refused: ")


@pytest.mark.parametrize(
    "options", [("--user", "1000:1000"), ("--cap-add", "SYS_ADMIN")], ids=["user", "root"]
)
def test_with_what_the_documentation_says_it_runs(options):
    doctor, ran = in_container(*ALLOWED, *options)
    assert set(doctor["withheld"]) <= {"cgroup", "landlock"}
    assert doctor["agent"] is None
    assert ran == "ran"
