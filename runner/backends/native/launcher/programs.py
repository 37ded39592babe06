"""Executes the program of a run, and never the launcher's own.

Until the exec, `/proc/self/exe` of the program's process is the Python that runs the launcher: a
file of the host, outside of the sandbox's root. A request or a script's first line may name it.
Such a program would start with a file of the host in its hands, which as an ordinary user may be
one that it can write once nobody runs it (CVE-2019-5736 was that in runc); Landlock forbids it,
where there is Landlock. So what is executed first is not found by a link of /proc that leads out
of the tree of names. Nothing else runs in the sandbox yet that could change what was looked at.
"""

from __future__ import annotations

import errno
import os
import re
from typing import NoReturn

from runner.backends.native.launcher import kernel

MOST_INTERPRETERS = 5
"""Deeper the kernel does not follow interpreters that are scripts (exec_binprm, execve(2))."""
FIRST_LINE_BYTES = 256
"""As much as the kernel reads of it (BINPRM_BUF_SIZE)."""


Found = list[tuple[str, int]]
"""Paths to try in turn, each with the errno that looking at it met; 0: it may be executed."""


def look(argv: list[str], environment: dict[str, str]) -> Found:
    """Where the program may be, along the run's own PATH, like execvp(3).

    Before the seccomp filter, which may refuse what it takes (openat2(2)).
    """
    name = argv[0]
    if "/" in name:
        paths = [name]
    else:
        folders = environment.get("PATH", "").split(":")
        paths = [f"{folder or '.'}/{name}" for folder in folders]
    return [(path, _looked_at(path)) for path in paths]


def execute(found: Found, argv: list[str], environment: dict[str, str]) -> NoReturn:
    """execve(2) what `look` found; a script without `#!` is not guessed. OSError: none could be."""
    refused = errno.ENOENT
    for path, looked in found:
        try:
            if looked:
                raise OSError(looked, os.strerror(looked))
            os.execve(path, argv, environment)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR) or len(found) == 1:
                refused = error.errno or refused
    raise OSError(refused, os.strerror(refused))


def _looked_at(path: str) -> int:
    try:
        _refuse_links_of_proc(os.fsencode(path))
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _refuse_links_of_proc(path: bytes) -> None:
    """OSError (ELOOP): the program, or the interpreter of one, is found by such a link."""
    for _ in range(MOST_INTERPRETERS + 1):
        os.close(kernel.open_by_names(path, os.O_PATH))
        try:
            script = kernel.open_by_names(path, os.O_RDONLY | os.O_NONBLOCK)
        except PermissionError:
            return  # what can't be read is no script that could be run
        try:
            first = os.read(script, FIRST_LINE_BYTES)
        except OSError:
            return  # a folder or a device: the exec says what is wrong with it
        finally:
            os.close(script)
        if not first.startswith(b"#!"):
            return
        # As fs/binfmt_script.c reads it: other white space is part of a name.
        path = re.split(rb"[ \t\n\0]", first[2:].lstrip(b" \t"), maxsplit=1)[0]
