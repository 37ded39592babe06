"""Executes the program of a run, and never the launcher's own.

Until the exec, `/proc/self/exe` of the program's process is the Python that runs the launcher: a
file of the host, outside of the sandbox's root. A request or a script's first line may name it.
Such a program would start with a file of the host in its hands, which as an ordinary user may be
one that it can write once nobody runs it (CVE-2019-5736 was that in runc); Landlock forbids it,
where there is Landlock. So what is executed first is not found by a link of /proc that leads out
of the tree of names. Nothing else runs in the sandbox yet that could change what was looked at.

Names are walked one by one, for by now the profile's filter is in force, which may refuse openat2
and its RESOLVE_NO_MAGICLINKS.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from typing import NoReturn

MOST_INTERPRETERS = 5
"""Deeper the kernel does not follow interpreters that are scripts (exec_binprm, execve(2))."""
FIRST_LINE_BYTES = 256
"""As much as the kernel reads of it (BINPRM_BUF_SIZE)."""
MOST_LINKS = 40
"""More the kernel does not follow on one path (path_resolution(7))."""
_NAME = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def execute(argv: list[str], environment: dict[str, str]) -> NoReturn:
    """execve(2) along the run's own PATH, like execvp(3); a script without `#!` is not guessed."""
    name = argv[0]
    if "/" in name:
        _execute(name, argv, environment)
    found = errno.ENOENT
    for folder in environment.get("PATH", "").split(":"):
        try:
            _execute(f"{folder or '.'}/{name}", argv, environment)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                found = error.errno or found
    raise OSError(found, os.strerror(found))


def _execute(path: str, argv: list[str], environment: dict[str, str]) -> NoReturn:
    _refuse_links_of_proc(os.fsencode(path))
    os.execve(path, argv, environment)


def _refuse_links_of_proc(path: bytes) -> None:
    """OSError (ELOOP): the program, or the interpreter of one, is found by such a link."""
    for _ in range(MOST_INTERPRETERS + 1):
        folder, name = _found_by_names(path)
        try:
            script = os.open(
                name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder
            )
        except PermissionError:
            return  # what can't be read is no script that could be run
        finally:
            os.close(folder)
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


def _found_by_names(path: bytes) -> tuple[int, bytes]:
    """Where a path ends: an open folder, and a name in it that is no link.

    OSError as open(2) has it, and with ELOOP at any link that stands in /proc.
    """
    if not path:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    of_proc = os.stat("/proc").st_dev
    names = path.split(b"/")
    at = _start_of(path)
    links = 0
    try:
        while True:
            name = names.pop(0) or b"."
            entry = os.open(name, _NAME, dir_fd=at)
            try:
                found = os.fstat(entry)
                if not stat.S_ISLNK(found.st_mode):
                    if not names:
                        return os.dup(at), name
                    at, entry = entry, at
                    continue
                links += 1
                if found.st_dev == of_proc or links > MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                target = os.readlink(b"", dir_fd=entry)
            finally:
                os.close(entry)
            names = target.split(b"/") + names
            if target.startswith(b"/"):
                start = _start_of(target)
                os.close(at)
                at = start
    finally:
        os.close(at)


def _start_of(path: bytes) -> int:
    start = "/" if path.startswith(b"/") else "."
    return os.open(start, _NAME | os.O_DIRECTORY)
