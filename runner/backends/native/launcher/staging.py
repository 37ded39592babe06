"""What a sandbox is made of, as detached mounts: the host's parts, the scratch, the workspace.

Each source is cloned with open_tree(2) into a descriptor, so that nothing is looked up twice by
path; what it may do (read-only, no set-uid, no devices) is set on the clone before it is attached
anywhere. As root all of this is done with root's own rights, before the user namespace is
entered; else inside of it, with the caller's rights. The code is the same.

Everything a run can write lies in one tmpfs, the *scratch*, so that one size and one inode count
bound it all.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field

from runner.backends.native.launcher import kernel, trees
from runner.backends.native.launcher.protocol import Message

STAGE = "/tmp"  # any folder that exists: only this mount namespace sees it covered
SCRATCH_FOLDERS = ("tmp", "home", "shm", "upper", "work", "workspace", "lower")
SCRATCH_OWN_INODES = 32
"""Inodes that the scratch needs for itself, beside what the limit grants."""
_READ_ONLY = kernel.MOUNT_ATTR_RDONLY | kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_WRITABLE = kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV

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


class WorkspaceError(Exception):
    """The workspace can't be given to a run; the message says why and what to do."""


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
    """`tmp`, `home`, `shm`, and `workspace` unless there is none."""
    scratch_fd: int = -1
    """A folder in the scratch, for statvfs(3)."""
    upper_fd: int = -1
    """The overlay's upper layer, or the copy; -1 without a workspace."""
    merged_fd: int = -1
    """The overlay as the program saw it; -1 for a copy."""
    lower_fd: int = -1
    """The original; -1 for a copy."""
    baseline: trees.Baseline | None = None
    """What the copy looked like at first; None for an overlay."""


def prepare(plan: Message) -> Stage:
    """Clone and build all parts. OSError names the step; WorkspaceError as it says."""
    stage = Stage()
    _clone_host(stage, plan)
    workspace = plan["workspace"]
    source = -1
    if workspace["source"] is not None:
        source = _clone_workspace(workspace)
    _make_scratch(plan)
    owner = plan["outer_id"] if plan["rootful"] else None
    stage.scratch_fd = os.open(f"{STAGE}/tmp", _FOLDER)
    if source >= 0:
        _make_workspace(stage, source, owner)
    for name in ("tmp", "home", "shm"):
        if owner is not None:
            os.chown(f"{STAGE}/{name}", owner, owner)
        stage.scratch[name] = _clone(f"{STAGE}/{name}", _WRITABLE)
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


def _clone_workspace(workspace: Message) -> int:
    """The folder that was decided about, by identity and by a path that held no link then."""
    source = workspace["source"]
    replaced = WorkspaceError(f"the folder at {source} was replaced meanwhile")
    try:
        folder = kernel.open_resolved(source)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOENT, errno.ENOTDIR):
            raise replaced from error
        raise
    found = os.fstat(folder)
    if (found.st_dev, found.st_ino) != (workspace["dev"], workspace["ino"]):
        raise replaced
    # A clone without what is mounted below shows what that covers.
    if mount_point := _mount_point_below(source):
        raise WorkspaceError(
            f"something is mounted at {mount_point} in the workspace: unmount it, or work in a "
            "folder that holds no mount point"
        )
    tree = kernel.open_tree(folder, "", recursive=False)
    os.close(folder)
    return tree


def _mount_point_below(folder: str) -> str | None:
    """The first mount point in the folder, as proc_pid_mountinfo(5) spells it."""
    escaped = folder.translate({ord(char): f"\\{ord(char):03o}" for char in " \t\n\\"})
    with open("/proc/self/mountinfo", errors="surrogateescape") as file:
        for line in file:
            mount_point = line.split(" ")[4]
            if mount_point.startswith(f"{escaped}/"):
                return mount_point
    return None


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


def _make_workspace(stage: Stage, source: int, owner: int | None) -> None:
    """Overlay where the kernel does it right, found by trying; a copy of the files else."""
    lower = source
    if owner is not None:
        lower = _idmapped(source, owner)
    overlaid = False
    if lower >= 0 and _keeps_attributes(owner is not None):
        kernel.move_mount(lower, kernel.AT_FDCWD, f"{STAGE}/lower")
        overlaid = _overlay(owner)
        lower_fd = os.open(f"{STAGE}/lower", _FOLDER)
        kernel.umount(f"{STAGE}/lower", kernel.MNT_DETACH)
    else:
        lower_fd = os.open(".", _FOLDER, dir_fd=source)
    if overlaid:
        stage.lower_fd = lower_fd
        stage.upper_fd = os.open(f"{STAGE}/upper", _FOLDER)
        stage.scratch["workspace"] = _clone(f"{STAGE}/workspace", _WRITABLE)
        stage.merged_fd = os.open(".", _FOLDER, dir_fd=stage.scratch["workspace"])
        kernel.umount(f"{STAGE}/workspace", kernel.MNT_DETACH)
        return
    copy_fd = os.open(f"{STAGE}/workspace", _FOLDER)
    stage.baseline = trees.copy(lower_fd, copy_fd, owner)
    stage.upper_fd = copy_fd
    os.close(lower_fd)
    stage.scratch["workspace"] = _clone(f"{STAGE}/workspace", _WRITABLE)


def _idmapped(source: int, owner: int) -> int:
    """Map the folder's owner to `owner` in `source`, a detached mount; -1: its kind can't do that.

    Not in a clone of it: before Linux 6.15 a detached mount can't be cloned.
    """
    folder = os.fstat(source)
    ready_r, ready_w = os.pipe()
    done_r, done_w = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            kernel.unshare(kernel.CLONE_NEWUSER)
            os.write(ready_w, b"1")
            os.close(done_w)
            os.read(done_r, 1)
        finally:
            os._exit(0)
    os.close(ready_w)
    os.close(done_r)
    userns = -1
    try:
        if os.read(ready_r, 1):
            for name, disk_id in (("uid_map", folder.st_uid), ("gid_map", folder.st_gid)):
                with open(f"/proc/{child}/{name}", "w") as file:
                    file.write(f"{disk_id} {owner} 1")
            userns = os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
            kernel.mount_setattr(source, "", 0, recursive=False, userns=userns)
            return source
        return -1
    except OSError:
        return -1
    finally:
        os.close(done_w)
        os.close(ready_r)
        if userns >= 0:
            os.close(userns)
        os.waitpid(child, 0)


def _keeps_attributes(rootful: bool) -> bool:
    """Whether this tmpfs can mark a folder as opaque: without, a folder made anew shows the old."""
    name = "trusted.runner" if rootful else "user.runner"
    try:
        os.setxattr(f"{STAGE}/upper", name, b"1")
        os.removexattr(f"{STAGE}/upper", name)
    except OSError:
        return False
    return True


def _overlay(owner: int | None) -> bool:
    folder = os.stat(f"{STAGE}/lower")
    os.chmod(f"{STAGE}/upper", stat.S_IMODE(folder.st_mode))
    if owner is not None:
        os.chown(f"{STAGE}/upper", owner, owner)
        os.chown(f"{STAGE}/work", owner, owner)
    options = f"lowerdir={STAGE}/lower,upperdir={STAGE}/upper,workdir={STAGE}/work"
    # The upper layer has to hold what was changed, not point to the lower one for it, which is
    # some kernels' default; with userxattr it never does.
    options += ",userxattr" if owner is None else ",redirect_dir=nofollow,metacopy=off"
    # A folder lists its entries under the numbers that stat(2) gives, and all of them are of one
    # device, as on any other file system (overlayfs.rst, "Inode properties").
    options += ",xino=on"
    try:
        kernel.mount(
            "workspace",
            f"{STAGE}/workspace",
            "overlay",
            kernel.MS_NOSUID | kernel.MS_NODEV,
            options,
        )
    except OSError:
        return False
    return True
