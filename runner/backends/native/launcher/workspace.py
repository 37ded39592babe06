"""The workspace of a run, as a detached mount: a layer, a copy, an empty folder, or the folder.

The folder is opened once, by the identity that was decided about, and what is done with it is done
through descriptors.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field

from runner.backends.guards import mount_point_below
from runner.backends.native.launcher import copying, foreign, kernel
from runner.backends.native.launcher.protocol import Message

STAGE = "/tmp"  # any folder that exists: only this mount namespace sees it covered
WRITABLE = kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class WorkspaceError(Exception):
    """The workspace can't be given to a run; the message says why and what to do."""


@dataclass(slots=True)
class Laid:
    """What is attached where the program finds its folder, and what tells of it afterwards."""

    tree: int = -1
    """A detached mount; -1: there is no workspace."""
    upper_fd: int = -1
    """The overlay's upper layer, or the copy; -1 where changes are not told."""
    merged_fd: int = -1
    """The overlay as the program saw it; -1 for a copy."""
    lower_fd: int = -1
    """The original; -1 for a copy."""
    baseline: copying.Baseline = field(default_factory=dict)
    """What the copy looked like at first, and of an overlay what was laid into its upper layer."""


def opened(workspace: Message) -> int:
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
    return folder


def clone(workspace: Message) -> tuple[int, int]:
    """A detached mount of the folder that was decided about, and the folder itself, opened."""
    folder, source = opened(workspace), workspace["source"]
    # A clone without what is mounted below shows what that covers.
    if mount_point := mount_point_below(source):
        raise WorkspaceError(
            f"something is mounted at {mount_point} in the workspace: unmount it, or work in a "
            "folder that holds no mount point"
        )
    tree = kernel.open_tree(folder, "", recursive=False)
    return tree, folder


def lay(mode: str, source: int, owner: int | None, folder: int = -1) -> Laid:
    """The workspace in the way of `mode`, with the scratch mounted at STAGE.

    `source` and `folder`: what `clone` gave; a layer or a copy takes both. `owner`: as root, the
    user outside that stands for the program's.
    """
    if mode == "bind":
        return _bound(source, owner)
    if mode == "tmpfs":
        return _empty(owner)
    return _layered(source, owner, folder, overlay=mode == "cow")


def _bound(source: int, owner: int | None) -> Laid:
    """The folder itself. As root the program is its owner there, and nobody else."""
    if owner is not None:
        folder = os.fstat(source)
        if folder.st_uid == 0 or folder.st_gid == 0:
            raise WorkspaceError(
                "the workspace belongs to root, or to root's group, and no run writes as root: "
                "give it to an ordinary user with chown, or use a profile with workspace: cow"
            )
        if _idmapped(source, owner) < 0:
            raise WorkspaceError(
                "the workspace lies on a file system that can't be mounted with other owners "
                "(mount_setattr(2), ID-mapped mounts), so no run as root can be its owner there: "
                "run it as that owner, or use a profile with workspace: cow"
            )
    kernel.mount_setattr(source, "", WRITABLE, recursive=False)
    return Laid(tree=source)


def _empty(owner: int | None) -> Laid:
    """A folder in the scratch; all that is in it afterwards was made by the run."""
    if owner is not None:
        os.chown(f"{STAGE}/workspace", owner, owner)
    folder_fd = os.open(f"{STAGE}/workspace", FOLDER)
    return Laid(staged("workspace"), upper_fd=folder_fd, baseline={})


def _layered(source: int, owner: int | None, folder: int, *, overlay: bool) -> Laid:
    """Overlay where the kernel does it right, found by trying; a copy of the files else.

    No reflinks (FICLONE, ioctl_ficlonerange(2)): they need a copy on the folder's own file system,
    where nothing would hold its size.
    """
    if overlay and _keeps_attributes(owner is not None):
        lower = source if owner is None else _idmapped(source, owner)
        laid = _overlaid(lower, owner, folder) if lower >= 0 else None
        if laid is not None:
            return laid
    lower_fd = os.open(".", FOLDER, dir_fd=source)
    copy_fd = os.open(f"{STAGE}/workspace", FOLDER)
    baseline = copying.copy(lower_fd, copy_fd, owner)
    os.close(lower_fd)
    return Laid(staged("workspace"), upper_fd=copy_fd, baseline=baseline)


def _overlaid(lower: int, owner: int | None, folder: int) -> Laid | None:
    """None: this file system can't be laid under an overlay."""
    kernel.move_mount(lower, kernel.AT_FDCWD, f"{STAGE}/lower")
    lower_fd = os.open(f"{STAGE}/lower", FOLDER)
    upper_fd = os.open(f"{STAGE}/upper", FOLDER)
    baseline = _lay_foreign(upper_fd, owner, folder)  # nothing may change beneath a mounted one
    overlaid = _overlay(owner)
    kernel.umount(f"{STAGE}/lower", kernel.MNT_DETACH)
    if not overlaid:
        _take_away(upper_fd, baseline)
        os.close(lower_fd)
        os.close(upper_fd)
        return None
    tree = staged("workspace")
    merged_fd = os.open(".", FOLDER, dir_fd=tree)
    kernel.umount(f"{STAGE}/workspace", kernel.MNT_DETACH)
    return Laid(tree, upper_fd, merged_fd, lower_fd, baseline)


def _lay_foreign(upper_fd: int, owner: int | None, folder: int) -> copying.Baseline:
    source_fd = os.open(".", FOLDER, dir_fd=folder)
    try:
        return foreign.lay(source_fd, upper_fd, owner)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise WorkspaceError(
            "what belongs to another user or group in the workspace has to be copied, and does not "
            "fit into the limits 'workspace' and 'inodes' of the profile: raise them, or give the "
            "files to one user and group (chown, chgrp)"
        ) from error
    finally:
        os.close(source_fd)


def _take_away(upper_fd: int, baseline: copying.Baseline) -> None:
    """What was laid; it would count beside a copy."""
    for path in sorted(baseline, reverse=True):  # what is in a folder before the folder
        remove = os.rmdir if baseline[path].type == "directory" else os.unlink
        remove(path, dir_fd=upper_fd)


def staged(name: str) -> int:
    """A folder of the scratch as a detached mount."""
    tree = kernel.open_tree(kernel.AT_FDCWD, f"{STAGE}/{name}", recursive=True)
    kernel.mount_setattr(tree, "", WRITABLE, recursive=True)
    return tree


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
