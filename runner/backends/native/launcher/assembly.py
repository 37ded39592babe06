"""Puts the staged parts together to the sandbox's root, and enters it.

The root is a small tmpfs that ends read-only; all else is attached to it. Folders on the way to a
mount point are walked one by one and no link is followed: a workspace is full of links that
somebody else made.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct

from runner.backends.native.launcher import guards, kernel
from runner.backends.native.launcher.protocol import Message
from runner.backends.native.launcher.staging import Stage

ROOT = "/tmp"  # any folder that exists: only this mount namespace sees it covered
ROOT_OWN_BYTES = 1 << 20
"""Room in the root for the files of /etc and for mount points."""
HOME = "/home/agent"
MOST_TERMINALS = 64
"""All instances of devpts share one number of terminals (kernel.pty.max, 4096): none takes all."""

_READ_ONLY = kernel.MOUNT_ATTR_RDONLY | kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV
_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

ETC_FILES = {
    "passwd": "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\n"
    "agent:x:{id}:{id}:agent:/home/agent:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "group": "root:x:0:\nagent:x:{id}:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost {hostname}\n::1 localhost {hostname}\n",
    "hostname": "{hostname}\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "resolv.conf": "# This sandbox has no network.\n",
    "shells": "/bin/sh\n/bin/bash\n",
}

PROC_READ_ONLY = ("sys", "bus", "fs", "irq", "sysrq-trigger", "mtrr", "driver")
PROC_HIDDEN = (
    "acpi", "asound", "cmdline", "config.gz", "interrupts", "kallsyms", "kcore", "key-users",
    "keys", "kmsg", "latency_stats", "modules", "sched_debug", "schedstat", "scsi", "slabinfo",
    "timer_list", "timer_stats", "vmallocinfo", "pressure", "mdstat", "partitions", "diskstats",
)  # fmt: skip
"""What tells of the host (proc(5)); an empty file or folder stands in its place."""


def assemble(plan: Message, stage: Stage, blobs: list[bytes]) -> None:
    """Build the root at ROOT. Needs the sandbox's mount namespace and the inner user."""
    os.umask(0o022)
    injected = sum(len(blobs[file["blob"]]) for file in plan["files"])
    kernel.mount(
        "root", ROOT, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV,
        f"mode=0755,size={ROOT_OWN_BYTES + 2 * injected},nr_inodes=4096",
    )  # fmt: skip
    root = os.open(ROOT, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    attach(root, "usr", stage.usr, is_folder=True)
    for name, target in stage.root_links.items():
        os.symlink(target, name, dir_fd=root)
    for name, tree in stage.root_folders.items():
        attach(root, name, tree, is_folder=True)
    _etc(plan, root, stage)
    _dev(root, stage)
    for name in ("proc", "run/runner", "var/lib", "opt", "mnt", "srv", "sys"):
        os.close(folder(root, name))
    attach(root, "tmp", stage.scratch["tmp"], is_folder=True)
    # Not a link: workspaces may lie below, and no link on the way to one is followed.
    same = kernel.open_tree(kernel.AT_FDCWD, f"{ROOT}/tmp", recursive=False)
    attach(root, "var/tmp", same, is_folder=True)
    os.symlink("../run", f"{ROOT}/var/run")
    attach(root, HOME[1:], stage.scratch["home"], is_folder=True)
    for path, tree, is_folder in sorted(stage.read, key=lambda part: len(part[0])):
        attach(root, path[1:], tree, is_folder=is_folder)
    if stage.workspace.tree >= 0:
        target = plan["workspace"]["target"][1:]
        attach(root, target, stage.workspace.tree, is_folder=True)
        if plan["workspace"]["guarded"]:
            inside = folder(root, target)
            guards.lay(inside, plan["workspace"]["guarded"])
            os.close(inside)
    _inject(plan, root, blobs)
    os.close(root)


def folder(root: int, path: str) -> int:
    """Open a folder below `root`, making what is missing; OSError (ELOOP, ENOTDIR) at a link."""
    here = os.dup(root)
    for name in path.split("/"):
        try:
            following = os.open(name, _PATH | os.O_DIRECTORY, dir_fd=here)
        except FileNotFoundError:
            os.mkdir(name, 0o755, dir_fd=here)
            following = os.open(name, _PATH | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = following
    return here


def attach(root: int, path: str, tree: int, *, is_folder: bool) -> None:
    """Attach a detached mount at `path` below `root`; the mount point is made if it is missing."""
    if is_folder:
        target = folder(root, path)
    else:
        parent, _, name = path.rpartition("/")
        at = folder(root, parent) if parent else os.dup(root)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=at))
        target = os.open(name, _PATH, dir_fd=at)
        os.close(at)
    kernel.move_mount(tree, target, "")
    os.close(target)
    os.close(tree)


def _write(at: int, name: str, content: bytes, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, mode, dir_fd=at), "wb") as file:
        file.write(content)


def _etc(plan: Message, root: int, stage: Stage) -> None:
    etc = folder(root, "etc")
    for name, text in ETC_FILES.items():
        content = text.format(id=plan["inner_id"], hostname=plan["hostname"])
        _write(etc, name, content.encode(), 0o644)
    for name, tree, is_folder in stage.etc:
        attach(etc, name, tree, is_folder=is_folder)
    for name, target in stage.etc_links:
        parent, _, base = name.rpartition("/")
        at = folder(etc, parent) if parent else os.dup(etc)
        os.symlink(target, base, dir_fd=at)
        os.close(at)
    os.symlink("/proc/self/mounts", "mtab", dir_fd=etc)
    os.close(etc)


def _dev(root: int, stage: Stage) -> None:
    dev = folder(root, "dev")
    for name, tree in stage.devices.items():
        attach(dev, name, tree, is_folder=False)
    attach(dev, "shm", stage.scratch["shm"], is_folder=True)
    os.close(folder(dev, "pts"))
    kernel.mount(
        "devpts", f"{ROOT}/dev/pts", "devpts", kernel.MS_NOSUID | kernel.MS_NOEXEC,
        f"newinstance,ptmxmode=0666,mode=0620,max={MOST_TERMINALS}",
    )  # fmt: skip
    for name, target in (
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ):
        os.symlink(target, name, dir_fd=dev)
    os.close(dev)


def _inject(plan: Message, root: int, blobs: list[bytes]) -> None:
    """Files with exactly these bytes, read-only, also over a file of the workspace."""
    if not plan["files"]:
        return
    staging = folder(root, "run/.injected")
    for number, file in enumerate(plan["files"]):
        name = str(number)
        mode = 0o555 if file["executable"] else 0o444
        _write(staging, name, blobs[file["blob"]], mode)
        tree = kernel.open_tree(kernel.AT_FDCWD, f"{ROOT}/run/.injected/{name}", recursive=False)
        kernel.mount_setattr(tree, "", _READ_ONLY, recursive=False)
        attach(root, file["path"][1:], tree, is_folder=False)
        os.unlink(name, dir_fd=staging)
    os.close(staging)
    os.rmdir(f"{ROOT}/run/.injected")


def open_terminal(root: str = ROOT) -> tuple[int, int]:
    """A terminal of the sandbox's own devpts: descriptors of master and slave (pts(4)).

    `root`: where the sandbox's root is; empty once it was entered.
    """
    tiocsptlck, tiocgptpeer = 0x40045431, 0x5441
    master = os.open(f"{root}/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, tiocsptlck, struct.pack("=i", 0))
    slave = fcntl.ioctl(master, tiocgptpeer, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    return master, slave


def raise_loopback() -> None:
    """Bring `lo` up in the new network namespace (netdevice(7))."""
    siocgifflags, siocsifflags, iff_up = 0x8913, 0x8914, 0x1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        request = fcntl.ioctl(sock, siocgifflags, struct.pack("16sH22x", b"lo", 0))
        (flags,) = struct.unpack_from("=H", request, 16)
        fcntl.ioctl(sock, siocsifflags, struct.pack("16sH22x", b"lo", flags | iff_up))


def mount_proc() -> None:
    """A /proc of the new pid namespace; must be called by a process in it, before `enter`.

    The kernel allows it only while a /proc that hides nothing is mounted (mount_too_revealing).
    Shown are processes that the program could look into anyway, so not init: its arguments are
    the launcher's, with paths of the host.
    """
    kernel.mount(
        "proc", f"{ROOT}/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC,
        "hidepid=ptraceable",
    )  # fmt: skip
    for name in PROC_READ_ONLY:
        path = f"{ROOT}/proc/{name}"
        if os.path.lexists(path):
            tree = kernel.open_tree(kernel.AT_FDCWD, path, recursive=True)
            kernel.mount_setattr(tree, "", _READ_ONLY | kernel.MOUNT_ATTR_NOEXEC, recursive=True)
            kernel.move_mount(tree, kernel.AT_FDCWD, path)
            os.close(tree)
    for name in PROC_HIDDEN:
        path = f"{ROOT}/proc/{name}"
        if os.path.isdir(path):
            kernel.mount("hidden", path, "tmpfs", kernel.MS_RDONLY | kernel.MS_NODEV, "size=4k")
        elif os.path.lexists(path):
            tree = kernel.open_tree(kernel.AT_FDCWD, f"{ROOT}/dev/null", recursive=False)
            kernel.move_mount(tree, kernel.AT_FDCWD, path)
            os.close(tree)


def enter() -> None:
    """Make ROOT the root of every process in this mount namespace; the old one is gone."""
    os.chdir(ROOT)
    kernel.pivot_root(".", ".")
    kernel.umount(".", kernel.MNT_DETACH)
    os.chdir("/")
    kernel.mount_setattr(kernel.AT_FDCWD, "/", _READ_ONLY, recursive=False)
