"""Launchers and builders whose supervisor is dead and that did not end by themselves.

They do end, unless somebody stopped them or the kernel holds them. With a builder goes its
sandbox: init is killed with it (PR_SET_PDEATHSIG), and with init all that is inside.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from runner.backends.native.belongings import Watched
from runner.backends.native.cgroups import owner_is_dead
from runner.backends.native.zygote import owner_of
from runner.errors import BackendError
from runner.model.swept import Swept


def sweep_processes() -> Swept:
    """End them; what is still there after that is told."""
    removed, left = [], []
    for pid, owner in ours():
        if not owner_is_dead(owner):
            continue
        try:
            process = Watched(pid, "launcher of a dead supervisor")
            # Looked at again: with the descriptor in hand the number can't be another's any more.
            if _owner(pid) != owner:
                continue
            why = process.end()
        except BackendError as error:
            why = str(error)
        if why is None:
            removed.append(f"process {pid} of a dead supervisor's launcher")
        else:
            left.append(why)
    return Swept(tuple(removed), tuple(left))


def ours() -> Iterator[tuple[int, str]]:
    """Launchers and their forks, children last: a fork keeps the words of its parent."""
    for pid in sorted(int(folder.name) for folder in Path("/proc").glob("[0-9]*")):
        if (owner := _owner(pid)) is not None:
            yield pid, owner


def _owner(pid: int) -> str | None:
    """Whose launcher it is, by its words (proc_pid_cmdline(5)); None: it is no launcher."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return None  # gone, or not ours to look at
    return owner_of([os.fsdecode(word) for word in words[:-1]])
