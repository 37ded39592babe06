"""Honest work does not notice the sandbox: a fast part; scripts/honest-work runs all of it."""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import honest_commands
import honest_work
from honest_sides import OPEN_FILES, PROFILE, Desk, Ran

from runner.model.protection import Protection
from runner.schema.profiles import load_profile

PYTHON = "/usr/bin/python3"
FOLDERS = """
import json, os, sys
seen = {}
for folder, _, _ in os.walk("."):
    for entry in os.scandir(folder):
        found = os.lstat(entry.path)
        seen[entry.path] = [entry.inode() == found.st_ino, found.st_dev == os.stat(".").st_dev]
print(json.dumps(seen))
"""


@pytest.fixture
def desk(native):
    opened = Desk()
    yield opened
    opened.close()


# npm is not among them: Debian's takes hundreds of packages.
@pytest.mark.parametrize("name", [each for each in honest_commands.WORKS if each != "npm"])
def test_everyday_work(desk, name):
    row = honest_work.run_work(desk, name, honest_commands.WORKS[name])
    if row.skipped:
        pytest.skip(row.skipped)
    assert not row.problems, "\n".join(row.problems)


@pytest.mark.slow
@pytest.mark.parametrize("module", ["test.test_tempfile", "test.test_os"])
def test_pythons_own_tests(desk, module):
    version, prefix = honest_work.version_of(PYTHON)
    if not (honest_work.DATA / f"python-{version}.yaml").exists():
        pytest.skip(f"no differences are listed for Python {version}")
    assert prefix == "/usr"
    row = honest_work.run_module(desk, PYTHON, module, honest_work.known_differences(version))
    if row.skipped:
        pytest.skip(f"{row.skipped}: apt-get install libpython{version}-testsuite")
    assert not row.problems, "\n".join(row.problems)
    assert row.results["ok"] > row.tests / 2
    assert json.loads(json.dumps(asdict(row)))["results"] == row.results


def test_the_profile_grants_no_more_rights_than_agent():
    honest, agent = load_profile(str(PROFILE)), load_profile("agent")
    for name in ("read", "network", "requires", "syscalls", "environment", "workspace", "cgroup"):
        assert getattr(honest, name) == getattr(agent, name)
    assert honest.limits.open_files == OPEN_FILES


@pytest.mark.parametrize(
    "path", sorted(honest_work.DATA.glob("python-*.yaml")), ids=lambda p: p.stem
)
def test_the_page_names_every_listed_difference(path):
    page = (Path(__file__).resolve().parents[2] / "docs" / "honest-work.md").read_text("utf-8")
    known = honest_work.known_differences(path.stem.removeprefix("python-"))
    assert path.stem == f"python-{known.python}"
    assert known.differences
    for each in known.differences:
        module, test = each.tests.split(".")[1], each.tests.rpartition(".")[2]
        assert any(f"`{module}`" in line and f"`{test}`" in line for line in page.splitlines()), (
            each.tests
        )
        protection = each.why.split()[0].rstrip(".")
        assert protection in set(Protection), each.why


# The comparison can fail.

KNOWN = honest_work.Known.model_validate(
    {
        "python": "3.0",
        "differences": [
            {"tests": "m.T.test_*", "outside": "ok", "inside": "failed", "why": "user_namespace"},
            {"tests": "m.T.other", "outside": "ok", "inside": "failed", "why": "seccomp"},
            {"tests": "n.T.test_a", "outside": "ok", "inside": "failed", "why": "seccomp"},
        ],
    }
)


def test_a_difference_is_listed_or_wrong():
    outside = dict.fromkeys(("m.T.test_a", "m.T.test_b", "m.U.test_c", "m.U.gone"), ("ok", ""))
    inside = {
        "m.T.test_a": ("failed", "x"),
        "m.T.test_b": ("error", "y"),
        "m.U.test_c": ("ok", ""),
    }
    found = list(honest_work.between(outside, inside))
    assert {d.test: (d.outside, d.inside) for d in found} == {
        "m.T.test_a": ("ok", "failed"),
        "m.T.test_b": ("ok", "error"),
        "m.U.gone": ("ok", "absent"),
    }
    new, stale = honest_work.check(found, KNOWN, ["m"])
    assert [d.test for d in new] == ["m.T.test_b", "m.U.gone"]
    assert [each.tests for each in stale] == ["m.T.other"]


def test_a_listed_difference_that_is_one_users_only():
    other = "user" if honest_work.who() == "root" else "root"
    (one, *_) = KNOWN.differences
    theirs = honest_work.Known(python="3.0", differences=(one.model_copy(update={"who": other}),))
    found = [honest_work.Difference("m.T.test_a", "ok", "failed", "")]
    assert honest_work.check(found, theirs, ["m"]) == (found, [])


def test_results_without_an_end_are_a_problem():
    told = b'{"begins": "m.T.a"}\n{"test": "m.T.a", "result": "ok", "why": ""}\n{"begins": "m.T.b"}'
    found, wrong = honest_work.results_of(Ran("limit memory", told, b"killed"))
    assert found == {"m.T.a": ("ok", "")}
    assert wrong is not None
    assert "limit memory" in wrong
    assert "m.T.b" in wrong
    assert honest_work.results_of(Ran("exited 0", told, b""))[1] is not None
    assert honest_work.results_of(Ran("exited 0", told + b'\n{"finished": true}', b""))[1] is None


def test_outputs_and_files_are_compared():
    changes = {"a": "created file 1", "log": "created file 2"}
    side = Ran("exited 0", b"x", b"", changes)
    assert honest_work.compared(side, side, {}) == []
    other = Ran("exited 1", b"y", b"z", {"a": "created file 3", "log": "created file 4", "b": "?"})
    assert len(honest_work.compared(other, side, {"log": "a time"})) == 5
    assert len(honest_work.compared(side, other, {})) == 7  # the work itself failed, and log


def test_changes_are_told_alike_on_both_sides(desk):
    """The twin of all comparisons of files: one work with every kind of change."""
    text = (
        "rm gone; echo new > kept; mkdir -p d/e; ln -s kept link; echo x > d/file; chmod 600 same"
    )
    desk.put({"gone": "1", "kept": "2", "same": "3"})
    inner = desk.inside(shell=text)
    assert set(desk.photograph()) == {"gone", "kept", "same"}
    outer = desk.outside(["sh", "-c", text])
    assert inner.ended == outer.ended == "exited 0"
    assert {path for path, told in outer.changes.items()} == {
        "gone", "kept", "d", "d/e", "link", "d/file",
    }  # fmt: skip
    del inner.changes["same"]  # a mode is a change, which the photograph does not hold
    assert inner.changes == outer.changes


@pytest.mark.usefixtures("native", "workspace")
def test_numbers_of_files_agree(runner_home):
    """What fts(3), `find -xdev` and `rm --one-file-system` go by: readdir(3) against stat(2)."""
    from runner import Runner

    os.makedirs("old/deep")
    with open("old/deep/file", "w") as file:
        file.write("x")
    text = "import os; os.makedirs('new/deep'); open('old/new', 'w').close()\n" + FOLDERS
    with Runner(backend="native") as runner:
        outcome = runner.run(code=text, language="python")
    assert outcome.ok, outcome.stderr.data
    seen = json.loads(outcome.stdout.data)
    assert {"./old/deep/file", "./old/new", "./new/deep"} <= set(seen)
    assert all(same == [True, True] for same in seen.values()), seen


FORKS = """
import os, signal, sys, time
held = bytearray(os.urandom(1 << 20) * 40) if sys.argv[1] == "shared" else b""
for _ in range(30):
    if os.fork() == 0:
        if sys.argv[1] == "own":
            held = bytearray(os.urandom(1 << 20) * 40)
        time.sleep(20)
        os._exit(0)
time.sleep(5)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.killpg(0, signal.SIGTERM)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "limit"), [("shared", None), ("own", "memory")])
def test_shared_memory_counts_once(native, workspace, runner_home, kind, limit):
    """Thirty processes that share 40 MiB hold 40 MiB; thirty that have 40 MiB each hold 1.2 GiB."""
    from runner import Runner

    with Runner(backend="native") as runner:
        outcome = runner.run(
            code=FORKS, language="python", args=[kind], limits={"memory": "512MiB"}
        )
    assert outcome.limit == limit, outcome
    assert outcome.ok == (limit is None), outcome.stderr.data
