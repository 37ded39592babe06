"""What a sandbox is made of, as detached mounts: the host's parts, the scratch, the workspace.

Each source is cloned with open_tree(2) into a descriptor, so that nothing is looked up twice by
path; what it may do (read-only, no set-uid, no devices) is set on the clone before it is attached
anywhere. As root all of this is done with root's own rights, before the user namespace is
entered; else inside of it, with the caller's rights. The code is the same.

Everything a run can write lies in one tmpfs, the *scratch*, so that one size and one inode count
bound it all; except for a folder that is bound, which nothing bounds.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field

from runner.backends.native.launcher import kernel, workspace
from runner.backends.native.launcher.protocol import Message
from runner.backends.native.launcher.workspace import FOLDER, STAGE, Laid

SCRATCH_FOLDERS = ("tmp", "home", "shm", "upper", "work", "workspace", "lower")
SCRATCH_OWN_INODES = 32
"""Inodes that the scratch needs for itself, beside what the limit grants."""
_READ_ONLY = kernel.MOUNT_ATTR_RDONLY | kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV

ROOT_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""Names in / that are links into /usr on a merged system, folders of their own on an older one."""

ETC_ENTRIES = (
    "alternatives", "ca-certificates", "ca-certificates.conf", "crypto-policies", "debian_version",
    "default/locale", "fonts", "java", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "locale.alias",
    "localtime", "magic", "mime.types", "nodejs", "os-release", "perl", "pki/tls/certs",
    "pki/ca-trust", "profile", "protocols", "python3", "python3.11", "python3.12", "python3.13",
    "rpc", "services", "ssl/certs", "ssl/openssl.cnf", "terminfo", "timezone", "vim", "xdg",
)  # fmt: skip
"""What programs need of /etc to work; nothing of who uses the machine and how it is reached."""

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


@dataclass(slots=True)
class Stage:
    """Detached mounts, ready to be attached, and the descriptors needed after the run."""

    usr: int = -1
    root_folders: dict[str, int] = field(default_factory=dict)
    root_links: dict[str, str] = field(default_factory=dict)
    etc: list[tuple[str, int, bool]] = field(default_factory=list)
    """Name, clone, whether it is a folder."""
    etc_links: list[tuple[str, str]] = field(default_factory=list)
    devices: dict[str, int] = field(default_factory=dict)
    read: list[tuple[str, int, bool]] = field(default_factory=list)
    scratch: dict[str, int] = field(default_factory=dict)
    """`tmp`, `home`, `shm`."""
    scratch_fd: int = -1
    """A folder in the scratch, for statvfs(3)."""
    workspace: Laid = field(default_factory=Laid)


def prepare(plan: Message) -> Stage:
    """Clone and build all parts. OSError names the step; WorkspaceError as it says."""
    stage = Stage()
    _clone_host(stage, plan)
    folder = plan["workspace"]
    source = opened = -1
    if folder["source"] is not None:
        source, opened = workspace.clone(folder)
    _make_scratch(plan)
    owner = plan["outer_id"] if plan["rootful"] else None
    stage.scratch_fd = os.open(f"{STAGE}/tmp", FOLDER)
    if folder["mode"] != "none":
        stage.workspace = workspace.lay(folder["mode"], source, owner, opened)
    if opened >= 0:
        os.close(opened)
    for name in ("tmp", "home", "shm"):
        if owner is not None:
            os.chown(f"{STAGE}/{name}", owner, owner)
        stage.scratch[name] = workspace.staged(name)
    kernel.umount(STAGE, kernel.MNT_DETACH)
    return stage


def _clone(path: str, attributes: int) -> int:
    tree = kernel.open_tree(kernel.AT_FDCWD, path, recursive=True)
    kernel.mount_setattr(tree, "", attributes, recursive=True)
    return tree


def _clone_host(stage: Stage, plan: Message) -> None:
    stage.usr = _clone("/usr", _READ_ONLY)
    for name in ROOT_LINKS:
        path = f"/{name}"
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            continue
        if stat.S_ISLNK(mode):
            stage.root_links[name] = os.readlink(path)
        elif stat.S_ISDIR(mode):
            stage.root_folders[name] = _clone(path, _READ_ONLY)
    for name in ETC_ENTRIES:
        path = f"/etc/{name}"
        try:
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                stage.etc_links.append((name, os.readlink(path)))
            elif stat.S_ISDIR(mode) or stat.S_ISREG(mode):
                stage.etc.append((name, _clone(path, _READ_ONLY), stat.S_ISDIR(mode)))
        except OSError:
            continue  # not there, or not ours to read: then it is not there inside either
    for name in DEVICES:
        # Read-only is the node, which is the host's own (its times, its mode); not the device.
        attributes = kernel.MOUNT_ATTR_RDONLY | kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NOEXEC
        stage.devices[name] = _clone(f"/dev/{name}", attributes)
    for path in plan["read"]:
        is_folder = stat.S_ISDIR(os.stat(path).st_mode)
        stage.read.append((path, _clone(path, _READ_ONLY), is_folder))


def _make_scratch(plan: Message) -> None:
    options = ["mode=0755"]
    if plan["scratch_bytes"] is not None:
        options.append(f"size={plan['scratch_bytes']}")
    if plan["scratch_inodes"] is not None:
        options.append(f"nr_inodes={plan['scratch_inodes'] + SCRATCH_OWN_INODES}")
    kernel.mount("scratch", STAGE, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, ",".join(options))
    for name in SCRATCH_FOLDERS:
        os.mkdir(f"{STAGE}/{name}", 0o755)
    os.chmod(f"{STAGE}/tmp", 0o1777)
    os.chmod(f"{STAGE}/shm", 0o1777)
