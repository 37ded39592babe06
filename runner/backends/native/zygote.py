"""The supervisor's side of the launcher: starts it clean, asks it for builders."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import runner
from runner.backends.native.cgroups import owner_name
from runner.backends.native.launcher.protocol import PeerGoneError, receive, send
from runner.errors import BackendError

# Isolated, without site-packages: what the launcher imports is the standard library and its own
# folder. The package's parent goes last, so that nothing in it can stand for a standard module.
_BOOT = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from runner.backends.native.launcher import zygote; zygote.main(int(sys.argv[2]))"
)
_PACKAGE_PARENT = str(Path(runner.__file__).resolve().parent.parent)
_SCOPE = (
    "systemd-run", "--user", "--scope", "--quiet", "--collect", "-p", "Delegate=yes", "--",
)  # fmt: skip
"""A delegated cgroup of one's own from the user's systemd (systemd-run(1))."""


class Zygote:
    """One launcher process; forks builders for one supervisor."""

    def __init__(self, *, delegated: bool) -> None:
        """`delegated`: ask the user's systemd for a scope to start it in. BackendError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel = ours
        self._lock = threading.Lock()
        channel_fd = str(theirs.fileno())
        # The last word is for whoever looks for launchers of the dead.
        owner = owner_name("launcher")
        command = [sys.executable, "-I", "-S", "-c", _BOOT, _PACKAGE_PARENT, channel_fd, owner]
        environment = {"LANG": "C.UTF-8"}
        if delegated:
            command = [*_SCOPE, *command]
            environment |= _bus_environment()
        self._process = subprocess.Popen(
            command,
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE if delegated else None,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,  # a Ctrl-C is for the supervisor, which ends its runs
        )
        theirs.close()

    @property
    def pid(self) -> int:
        """Process id of the launcher (systemd-run becomes it by exec)."""
        return self._process.pid

    def spawn(self, control: socket.socket, plan_fd: int, streams: tuple[int, int, int]) -> int:
        """Fork a builder for one run; its process id. BackendError when the launcher is gone."""
        with self._lock:
            try:
                send(self._channel, {"do": "build"}, (control.fileno(), plan_fd, *streams))
                answer, _ = receive(self._channel)
            except (PeerGoneError, OSError) as error:
                raise BackendError(f"the launcher is gone{self._last_words()}") from error
        if "error" in answer:
            raise BackendError(f"the launcher could not start a sandbox: {answer['error']}")
        pid: int = answer["pid"]
        return pid

    def await_started(self) -> None:
        """Wait until the launcher itself answers; systemd may have to make its scope first."""
        with self._lock:
            try:
                send(self._channel, {"do": "hello"})
                receive(self._channel)
            except (PeerGoneError, OSError) as error:
                raise BackendError(f"the launcher did not start{self._last_words()}") from error

    @property
    def alive(self) -> bool:
        """Whether the launcher still runs."""
        return self._process.poll() is None

    def _last_words(self) -> str:
        status = self._process.poll()
        words = ""
        if self._process.stderr is not None and status is not None:
            words = self._process.stderr.read().decode(errors="replace").strip()
        return f" (exit status {status}{': ' + words if words else ''})"

    def close(self) -> None:
        """End the launcher; sandboxes that still run end with their own control sockets."""
        self._channel.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()


def owner_of(words: Sequence[str]) -> str | None:
    """Whose launcher (`cgroups.owner_name`) runs by this command line; None: it is none."""
    match words:
        case [_, "-I", "-S", "-c", boot, _, _, owner] if boot == _BOOT:
            return owner
    return None


def _bus_environment() -> dict[str, str]:
    """What systemd-run needs to find the user's manager: a fixed place, not our environment."""
    runtime = f"/run/user/{os.geteuid()}"
    return {
        "XDG_RUNTIME_DIR": runtime,
        "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime}/bus",
        "PATH": "/usr/bin:/bin",
    }


def can_be_delegated() -> bool:
    """Whether there is a systemd user manager to ask."""
    manager = Path(f"/run/user/{os.geteuid()}/systemd/private")
    if shutil.which("systemd-run", path="/usr/bin:/bin") is None:
        return False
    try:
        return manager.exists()
    except PermissionError:  # a service's ProtectHome= hides /run/user from it
        return False
