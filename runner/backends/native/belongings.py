"""What a sandbox has on this machine, and how it goes: processes first, then the rest.

Namespaces and mounts need no step of their own: they are the processes', and the kernel lets go
of them with the last one (namespaces(7)).
"""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path

from runner.backends.native import scratch
from runner.backends.native.cgroups import Cgroup
from runner.errors import BackendError

END_S = 5.0
"""How long a sandbox whose control socket was closed may take to end by itself."""
KILL_S = 5.0
"""How long the kernel may take to end what was killed; a stuck device or file system needs more."""


class Watched:
    """A process, by a descriptor (pidfd_open(2)): its number may be used again, this may not."""

    def __init__(self, pid: int, role: str) -> None:
        """`role`: what it is to the sandbox. BackendError: this kernel gives no descriptor."""
        self.pid = pid
        self._name = f"process {pid} (the {role})"
        self._fd: int | None = None
        try:
            self._fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return  # it ended meanwhile
        except OSError as error:
            raise BackendError(
                f"{self._name} can't be watched (pidfd_open: {error.strerror}); allow that system "
                "call where this container's seccomp profile refuses it"
            ) from error

    def kill(self) -> None:
        """SIGKILL; nothing when it is gone. PermissionError: it is not ours to kill."""
        if self._fd is None:
            return
        try:
            signal.pidfd_send_signal(self._fd, signal.SIGKILL)
        except ProcessLookupError:
            return

    def ended_by(self, deadline_s: float) -> bool:
        """Wait until it is dead, or the monotonic clock shows `deadline_s`."""
        if self._fd is None:
            return True
        poll = select.poll()  # not select(): descriptors may be above 1023
        poll.register(self._fd, select.POLLIN)
        if not poll.poll(max(0.0, deadline_s - time.monotonic()) * 1000):
            return False
        self.close()
        return True

    def close(self) -> None:
        """It is not watched any more; may be called twice."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def end(self) -> str | None:
        """Kill it and wait; None, or why it is still there."""
        try:
            self.kill()
        except OSError as error:
            return f"{self._name} could not be killed: {error.strerror}; end it by hand"
        if self.ended_by(time.monotonic() + KILL_S):
            return None
        return (
            f"{self._name} was killed and did not end within {KILL_S:.0f} s, so the kernel holds "
            "it: look what it waits for (its state in /proc), then run `runner clean`"
        )


class Belongings:
    """Everything of one sandbox that has to be gone after it."""

    def __init__(self, run_id: str) -> None:
        """Nothing yet."""
        self.run_id = run_id
        self.cgroup: Cgroup | None = None
        """The run's own; None: it has none, or it is removed."""
        self.folder: Path | None = None
        """All that a run of the tier `process` may write; None: it has none, or it is removed."""
        self.left: tuple[str, ...] = ()
        """What `remove` said last."""
        self._processes: list[Watched] = []

    def add(self, pid: int, role: str) -> Watched:
        """From now on that process is one of them."""
        process = Watched(pid, role)
        self._processes.append(process)
        return process

    def remove(self) -> tuple[str, ...]:
        """Wait for the end that was asked for, kill, remove; a sentence for what is still there.

        May be called again, and then tries again.
        """
        deadline_s = time.monotonic() + END_S
        # Each is waited for, also after the first that is late: the deadline is one for all.
        late = [process for process in self._processes if not process.ended_by(deadline_s)]
        left = [why for process in late if (why := process.end()) is not None]
        self._processes = [process for process in late if not process.ended_by(0.0)]
        if self.cgroup is not None:
            try:
                self.cgroup.kill()
                self.cgroup.remove()
            except (BackendError, OSError) as error:
                left.append(str(error))
            else:
                self.cgroup = None
        if self.folder is not None:
            try:
                scratch.remove(self.folder)
            except BackendError as error:
                left.append(str(error))
            else:
                self.folder = None
        self.left = tuple(f"run {self.run_id}: {why}" for why in left)
        return self.left


def namespace_of(pid: int) -> int:
    """The inode of a process's mount namespace (namespaces(7)). OSError: it can't be told."""
    return Path(f"/proc/{pid}/ns/mnt").stat().st_ino


def state_of(pid: int) -> str:
    """proc_pid_stat(5), field 3; empty: it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[0]
