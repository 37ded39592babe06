"""Tries one protection in a process of its own and says what it found; used by the probe.

Exit status 0 and a detail on stdout: in force. 1 and the reason: withheld.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import struct
from collections.abc import Callable
from typing import NoReturn

from runner.backends.native.launcher import kernel, landlock
from runner.backends.native.launcher.builder import NAMESPACES

FLAGS = dict(NAMESPACES)


def main(name: str) -> NoReturn:
    """Run the trial called `name` and exit."""
    try:
        detail = TRIALS[name]()
    except OSError as error:
        print(error.strerror if error.filename is None else error, flush=True)  # noqa: T201
        os._exit(1)
    print(detail, flush=True)  # noqa: T201
    os._exit(0)


def _user() -> str:
    """Enter a user namespace with a mapping, and use a capability that it should grant."""
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER)
    if uid != 0:
        for file, text in (
            ("setgroups", "deny"),
            ("uid_map", f"1000 {uid} 1"),
            ("gid_map", f"1000 {gid} 1"),
        ):
            with open(f"/proc/self/{file}", "w") as stream:
                stream.write(text)
        os.setresuid(1000, 1000, 1000)
    kernel.unshare(kernel.CLONE_NEWUTS)
    socket.sethostname("trial")
    return "as root, mapped to a user of its own" if uid == 0 else "unprivileged"


def _mount() -> str:
    if os.geteuid() == 0:
        # Root lays out the workspace before it gives its rights away (see builder.py), which a
        # container's root may not: it has no CAP_SYS_ADMIN outside of a namespace of its own.
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    _user()
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    if os.geteuid() == 1000:
        kernel.mount("trial", "/tmp", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV)
    return "tried"


def _root() -> str:
    """A tree that is the host's and read-only for us (mount_setattr(2), Linux 5.12)."""
    _mount()
    tree = kernel.open_tree(kernel.AT_FDCWD, "/usr", recursive=True)
    kernel.mount_setattr(tree, "", kernel.MOUNT_ATTR_RDONLY, recursive=True)
    return "mount_setattr"


def _namespace(protection: str) -> Callable[[], str]:
    def trial() -> str:
        _user()
        kernel.unshare(FLAGS[protection])
        return "tried"

    return trial


def _network() -> str:
    from runner.backends.native.launcher import assembly  # noqa: PLC0415

    _namespace("network_namespace")()
    if os.geteuid() == 1000:
        assembly.raise_loopback()
    return "tried"


def _proc() -> str:
    _mount()
    kernel.unshare(kernel.CLONE_NEWPID)
    child = os.fork()
    if child == 0:
        try:
            kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV)
        except OSError as error:
            os._exit(error.errno or 255)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code:
        raise OSError(code, f"{os.strerror(code)}: the outer /proc is masked or hidden")
    return "tried"


def _cgroup() -> str:
    _user()
    kernel.unshare(kernel.CLONE_NEWCGROUP)
    return "tried"


def _capabilities() -> str:
    _user()
    kernel.drop_capabilities(kernel.last_capability())
    return "all sets emptied"


def _nnp() -> str:
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    return "tried"


def _seccomp() -> str:
    """A filter of one instruction that allows everything."""
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    bpf_ret, allow = 0x06, 0x7FFF0000
    kernel.install_seccomp(struct.pack("=HBBI", bpf_ret, 0, 0, allow))
    return "tried"


def _landlock() -> str:
    abi = kernel.landlock_abi()
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    landlock.restrict(abi, landlock.Hierarchies(readable=("/",)))
    return f"ABI {abi}: {landlock.covers(abi)}"


def _rlimits() -> str:
    """RLIMIT_NPROC set in a user namespace counts there (Linux 5.14)."""
    if os.geteuid() == 0:
        return "set on each process; the cgroup counts processes"
    _user()
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
    children = []
    try:
        for _ in range(3):
            child = os.fork()
            if child == 0:
                signal.pause()
            children.append(child)
    except OSError:
        return "held per user namespace"
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return "process count not held by this kernel"


TRIALS: dict[str, Callable[[], str]] = {
    "user": _user,
    "mount": _mount,
    "root": _root,
    "pid": _namespace("pid_namespace"),
    "proc": _proc,
    "network": _network,
    "ipc": _namespace("ipc_namespace"),
    "uts": _namespace("uts_namespace"),
    "cgroup": _cgroup,
    "capabilities": _capabilities,
    "nnp": _nnp,
    "seccomp": _seccomp,
    "landlock": _landlock,
    "rlimits": _rlimits,
}
