"""What every test stands on: a machine that is left alone, and skips that say their names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from runner import Runner
from runner.backends.native.launcher import kernel
from runner.model.protection import LANDLOCK_OF_PROCESS_TIER

sys.path.insert(0, str(Path(__file__).parent))
from warm_cli import WarmCommandLine, cold_part

# No test asserts a time, Hypothesis' own deadlines included: machines are slow, or emulated. And
# nothing is written into the clone. The same examples are tried each time, so that a change that
# is tested says something about that change; looking for others is a deed of its own, with
# `scripts/test --hypothesis-profile=explore`.
_HYPOTHESIS = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None, derandomize=True
)
settings.register_profile("runner", _HYPOTHESIS)
settings.register_profile("explore", _HYPOTHESIS, derandomize=False)
settings.load_profile("runner")

# Runs the command line of the package under test from any folder; the console script itself is
# tested in tests/e2e/test_packaging.py.
RUNNER_COMMAND = (
    sys.executable,
    "-c",
    "import sys; from runner.surfaces.cli.main import main; sys.exit(main())",
)


@cache
def docker_missing() -> str | None:
    """Why no Docker engine can be used here, or None."""
    try:
        import docker
        from docker.errors import DockerException
    except ImportError:
        return "the package `docker` is not installed"
    try:
        client = docker.from_env(timeout=10)
        client.ping()
        client.close()
    except DockerException:
        return "there is no Docker engine that this user may talk to"
    return None


NATIVE_TRIAL = """
import sys
from runner import Runner, RunnerError
try:
    with Runner(home=sys.argv[1] + "/home", backend="native") as runner:
        outcome = runner.run(["true"], cwd=sys.argv[1] + "/work", profile=sys.argv[2])
except RunnerError as error:
    sys.exit(str(error))
sys.exit(None if outcome.ok else f"`true` ended as {outcome.termination}: {outcome.failure}")
"""


@cache
def native_missing(profile: str = "agent", owner: int | None = None) -> str | None:
    """Why the native backend can't run `true` here under a profile, by name or file, or None.

    `owner`: whose the workspace is, as root; its own by default.
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "work").mkdir()
        if owner is not None and os.geteuid() == 0:
            os.chown(Path(folder, "work"), owner, owner)
        done = subprocess.run(
            [sys.executable, "-c", NATIVE_TRIAL, folder, profile],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    if done.returncode == 0:
        return None
    said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return f"the native backend does not work here: {said[-1]}"


def pytest_configure(config: pytest.Config) -> None:
    """Where the environment forbids to write bytecode it is kept beside the clone, while we test.

    The command line is started a thousand times, and would be compiled as often. In the process
    that starts the others, which have their environment of it.
    """
    if hasattr(config, "workerinput") or not os.environ.get("PYTHONDONTWRITEBYTECODE"):
        return
    folder = tempfile.mkdtemp(prefix="runner-bytecode-")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    del os.environ["PYTHONDONTWRITEBYTECODE"]
    os.environ["PYTHONPYCACHEPREFIX"] = folder


def pytest_runtest_setup(item: pytest.Item) -> None:
    """The markers of pyproject.toml: a test says what it needs, here stands whether it is there."""
    is_root = os.geteuid() == 0
    if item.get_closest_marker("root") and not is_root:
        pytest.skip("needs root")
    if item.get_closest_marker("unprivileged") and is_root:
        pytest.skip("needs an ordinary user")
    if item.get_closest_marker("docker") and (why := docker_missing()):
        pytest.skip(why)


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    """An empty folder, stood in."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """An empty folder, to be worked on."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def runner(tmp_path: Path, native: None) -> Iterator[Runner]:
    """The library on a state folder of this test's own."""
    with Runner(home=tmp_path / "home") as made:
        yield made


@pytest.fixture(scope="session")
def landlock_of_process_tier() -> None:
    """This kernel has the Landlock that `isolation: process` needs, else the test is skipped."""
    try:
        abi = kernel.landlock_abi()
    except OSError:
        abi = 0
    if abi < LANDLOCK_OF_PROCESS_TIER:
        pytest.skip(f"the tier needs Landlock ABI {LANDLOCK_OF_PROCESS_TIER}; here is {abi}")


@pytest.fixture(scope="session")
def _nobodys_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("xdg")


@pytest.fixture(autouse=True)
def _left_alone(monkeypatch: pytest.MonkeyPatch, _nobodys_home: Path) -> None:
    """No test reads the settings or writes the state of who runs it."""
    os.umask(0o022)  # some users' is 002, and what a group can write is refused as policy
    for name in os.environ:
        if name.startswith("RUNNER_"):
            monkeypatch.delenv(name)
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(_nobodys_home / name.lower()))


@pytest.fixture
def runner_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of this test's own, named by RUNNER_HOME."""
    home = tmp_path / "runner-home"
    monkeypatch.setenv("RUNNER_HOME", str(home))
    return home


@pytest.fixture
def native() -> None:
    """The native backend works here, else the test is skipped with what it said."""
    if why := native_missing():
        pytest.skip(why)


@pytest.fixture(scope="session")
def _warm() -> Iterator[WarmCommandLine]:
    made = WarmCommandLine()
    yield made
    made.close()


@pytest.fixture
def run_cli(
    runner_home: Path, _warm: WarmCommandLine
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Call it with the words after `runner`; output is captured as text."""

    def run(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
        environment = dict(options.get("env") or os.environ)
        if options.keys() <= {"input", "cwd", "env", "timeout"} and (
            cold_part(environment) == _warm.cold
        ):
            folder, timeout_s = str(options.get("cwd") or Path.cwd()), options.get("timeout", 300)
            return _warm.run(list(words), options.get("input"), folder, environment, timeout_s)
        chosen = {"capture_output": True, "text": True, "timeout": 300, "check": False, **options}
        return subprocess.run([*RUNNER_COMMAND, *words], **chosen)  # noqa: PLW1510

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say by name what could not run here, and why; pytest's own list has lines, not names."""
    skipped: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for report in terminalreporter.stats.get("skipped", ()):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        name = report.nodeid.partition("[")[0]
        skipped[reason.removeprefix("Skipped: ")][name] += 1
    if not skipped:
        return
    terminalreporter.section("could not run here")
    for reason in sorted(skipped):
        terminalreporter.write_line(f"{reason}:")
        for name, count in sorted(skipped[reason].items()):
            terminalreporter.write_line(f"  {name}" + (f" ({count} cases)" if count > 1 else ""))
