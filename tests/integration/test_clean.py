"""Clean-up: what can't be removed is told everywhere, tried again, and never taken for done."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from runner import Runner
from runner.backends.native.belongings import Belongings, Watched
from runner.backends.native.cgroups import UnifiedHierarchy, owner_name
from runner.errors import BackendError
from runner.model.keeping import KeepBounds
from runner.model.limits import UNLIMITED
from runner.model.swept import Swept
from runner.settings import load_settings
from runner.testing.fakes import FakeBackend, FakeRun

DAY_S = 86_400


def events(runner: Runner, kind: str) -> list[dict]:
    return [json.loads(e.body)["data"] for e in runner.store.events() if e.kind == kind]


@pytest.fixture
def with_fake(tmp_path, monkeypatch):
    """A Runner on this scripted backend."""

    (tmp_path / "work").mkdir()

    def make(backend: FakeBackend) -> Runner:
        monkeypatch.setattr("runner.backends.native.create", lambda _: backend)
        return Runner(home=tmp_path / "home", backend="native")

    return make


def test_what_a_release_leaves_is_in_the_outcome_and_in_the_log(with_fake, tmp_path):
    with with_fake(FakeBackend([FakeRun(left=("a group stays; end it",))])) as runner:
        assert runner.run(["true"], cwd=tmp_path / "work").left == ("a group stays; end it",)
        assert runner.run(["true"], cwd=tmp_path / "work").left == ()  # the twin
        assert [e["left"] for e in events(runner, "run.ended")] == [["a group stays; end it"], []]


def test_it_is_recorded_with_a_run_that_was_lost_too(with_fake, tmp_path):
    with with_fake(FakeBackend([FakeRun(lost="gone", left=("a mount stays",))])) as runner:
        with pytest.raises(BackendError) as caught:
            runner.run(["true"], cwd=tmp_path / "work")
        assert caught.value.outcome.left == ("a mount stays",)
        assert events(runner, "run.ended")[0]["left"] == ["a mount stays"]


def test_what_a_start_swept_is_recorded_with_the_first_run(with_fake, tmp_path):
    swept = Swept(("control group x",), ("control group y stays",))
    with with_fake(FakeBackend(swept=swept)) as runner:
        for _ in range(2):
            runner.run(["true"], cwd=tmp_path / "work")
        (event,) = events(runner, "machine.swept")
    assert event == {
        "backend": "fake",
        "removed": {"count": 1, "first": ["control group x"]},
        "left": {"count": 1, "first": ["control group y stays"]},
    }


def test_clean_fails_when_something_is_left(run_cli, runner_home, tmp_path):
    """A folder stands where a kept file should, which only a hand can have put there."""
    home = runner_home
    run_cli("check", "--", "true")
    odd = home / "runs" / "run-1" / "stdout"
    (odd / "inside").mkdir(parents=True)
    # Whether there is a backend here is no matter of this test.
    with Runner(home=home) as runner:
        swept = runner.store.discard_outdated(KeepBounds(UNLIMITED, 0))
    assert [str(odd) in line for line in swept.left] == [True]


@pytest.mark.usefixtures("native")
def test_the_command_says_what_to_do_and_exits_with_1(run_cli, runner_home, monkeypatch):
    run_cli("check", "--", "true")
    odd = runner_home / "runs" / "run-1" / "stdout"
    (odd / "inside").mkdir(parents=True)
    monkeypatch.setenv("RUNNER_KEEP_OUTPUT_TOTAL_BYTES", "0")
    done = run_cli("clean")
    assert done.returncode == 1
    assert f"runner: left: kept output {odd} could not be removed" in done.stderr
    assert "run `runner clean`" in done.stderr
    (odd / "inside").rmdir()
    odd.rmdir()
    done = run_cli("clean")
    assert (done.returncode, done.stdout, done.stderr) == (0, "nothing was left\n", "")


def test_a_group_that_stays_is_told_and_the_others_go(tmp_path):
    """On plain folders: one that is not empty can't be removed, whoever asks."""
    own = owner_name("x")
    dead = own.replace(f"-{os.getpid()}-", "-4194304-")  # above the highest process id
    for name in ("a", "b", "c"):
        (tmp_path / f"{dead}{name}").mkdir()
    (tmp_path / f"{dead}b" / "below").mkdir()
    hierarchy = UnifiedHierarchy(tmp_path, "")
    swept = hierarchy.sweep(0.01)
    assert [line[-1] for line in swept.removed] == ["a", "c"]
    (left,) = swept.left
    assert f"{dead}b could not be removed" in left
    assert "run `runner clean`" in left
    (tmp_path / f"{dead}b" / "below").rmdir()
    assert hierarchy.sweep(0.01) == Swept((f"control group {tmp_path / dead}b",))


class Stubborn:
    """A group that the kernel lets go of at the second try."""

    def __init__(self) -> None:
        self.tries = 0

    def kill(self) -> None:
        """Nothing is in it."""

    def remove(self) -> None:
        self.tries += 1
        if self.tries < 2:
            raise BackendError("the control group is busy")


def test_belongings_are_tried_again():
    belongings = Belongings("run-1")
    belongings.cgroup = Stubborn()
    assert belongings.remove() == ("run run-1: the control group is busy",)
    assert belongings.remove() == ()
    assert belongings.left == ()
    assert belongings.cgroup is None


def test_a_process_is_ended_and_another_by_its_number_is_not(monkeypatch):
    monkeypatch.setattr("runner.backends.native.belongings.END_S", 0.01)
    pid = os.posix_spawn("/bin/sleep", ["sleep", "600"], {})
    belongings = Belongings("run-1")
    belongings.add(pid, "builder")
    assert belongings.remove() == ()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9
    gone = Watched(pid, "builder")
    gone.kill()  # nobody
    assert gone.end() is None


def keep(runner: Runner, tmp_path: Path, texts: list[str]) -> list[str]:
    return [runner.run(["echo", text], cwd=tmp_path / "work").run_id for text in texts]


@pytest.fixture
def three_kept(with_fake, tmp_path):
    """Three runs of ten bytes each, one, two and three days old, the youngest first."""
    backend = FakeBackend([FakeRun(stdout=b"0123456789") for _ in range(3)])
    with with_fake(backend) as runner:
        ids = keep(runner, tmp_path, ["a", "b", "c"])
        for days, run_id in enumerate(ids, start=1):
            path = tmp_path / "home" / "runs" / run_id / "stdout"
            os.utime(path, (time.time() - days * DAY_S,) * 2)
        yield runner, ids


def test_the_oldest_output_goes_first_and_is_recorded(three_kept):
    runner, (a, b, c) = three_kept
    swept = runner.store.discard_outdated(KeepBounds(UNLIMITED, 25))
    assert swept == Swept((f"kept output of {c} (10 bytes)",))
    assert runner.store.kept_output(c, "stdout") is None
    assert runner.store.kept_output(b, "stdout") == b"0123456789"
    assert not runner.store.discard_outdated(KeepBounds(3, 25))  # the twin: within both
    runner.store.discard_outdated(KeepBounds(1, 25))
    assert events(runner, "output.discarded") == [
        {"runs": [c], "size_bytes": 10, "days": "unlimited", "total_bytes": 25},
        {"runs": [b, a], "size_bytes": 20, "days": 1, "total_bytes": 25},
    ]
    assert not list((runner.store.home / "runs").iterdir())
    assert runner.store.verify().failure is None


def test_a_start_takes_so_many_at_once_and_looks_now_and_then(three_kept):
    runner, (_, b, c) = three_kept
    (runner.store.home / "runs.looked-at").unlink()
    bounds = KeepBounds(UNLIMITED, 0)
    assert len(runner.store.discard_outdated(bounds, not_within_s=600, most=1).removed) == 1
    assert not runner.store.discard_outdated(bounds, not_within_s=600, most=1)
    assert runner.store.kept_output(c, "stdout") is None
    assert runner.store.kept_output(b, "stdout") is not None
    assert len(runner.store.discard_outdated(bounds).removed) == 2


def test_output_of_an_open_run_stays(with_fake, tmp_path):
    seen = []

    def look(_: object) -> None:
        (folder,) = (tmp_path / "home" / "runs").iterdir()
        os.utime(folder / "program", (0, 0))
        seen.append(runner.store.discard_outdated(KeepBounds(1, 0)))
        seen.append((folder / "program").exists())

    with with_fake(FakeBackend([FakeRun(before=look)])) as runner:
        outcome = runner.run(code="print(1)", language="python", cwd=tmp_path / "work")
        assert seen == [Swept(), True]
        assert runner.store.discard_outdated(KeepBounds(1, 0))  # the twin: it has ended
        assert runner.store.kept_output(outcome.run_id, "program") is None


def test_a_run_drops_what_is_past_the_settings(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "runner.backends.native.create", lambda _: FakeBackend([FakeRun(stdout=b"0123456789")])
    )
    monkeypatch.setattr("runner.app.LOOK_EVERY_S", 0.001)
    (tmp_path / "work").mkdir()
    for expected in (0, 1):
        flags = {"home": str(tmp_path / "home"), "keep_output_total_bytes": 5}
        with Runner(settings=load_settings(flags)) as runner:
            runner.run(["true"], cwd=tmp_path / "work")
            assert len(events(runner, "output.discarded")) == expected
            time.sleep(0.01)
