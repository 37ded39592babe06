"""The compiled seccomp filter of a profile, kept from run to run."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from runner.backends.bpf import program_for
from runner.syscalls import Refusal

CACHE_VERSION = 2
"""Part of the key: raised when compiling changes what the same list means."""

INSTRUCTION_BYTES = 8
"""struct sock_filter (the kernel's include/uapi/linux/filter.h)."""
MOST_INSTRUCTIONS = 4096
"""BPF_MAXINSNS: the kernel takes no longer program."""
_DIGEST_BYTES = hashlib.sha256().digest_size
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def compiled(wanted: tuple[Refusal, ...], cache: Path) -> bytes:
    """The BPF program (8 bytes an instruction) for a list of refusals.

    Kept in the folder `cache`, under a digest of the list and behind a digest of both. What
    somebody else could have put there, or what is not whole, is compiled anew and replaced.
    Raises ProtectionMissingError where libseccomp is not installed or knows not enough.
    """
    identity = f"{CACHE_VERSION} {os.uname().machine} {wanted!r}".encode()
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(cache, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not _is_ours_alone(os.fstat(folder)):
            return program_for(wanted)  # nothing from here, and nothing to be kept here
        name = f"seccomp-{hashlib.sha256(identity).hexdigest()[:32]}.bpf"
        program = _kept(name, folder, identity)
    finally:
        os.close(folder)
    if program is None:
        program = program_for(wanted)
        with tempfile.NamedTemporaryFile(dir=cache, delete=False) as fresh:
            fresh.write(_digest(identity, program) + program)
        Path(fresh.name).rename(cache / name)  # whole or not at all, whoever else does the same
    return program


def _kept(name: str, folder: int, identity: bytes) -> bytes | None:
    """What was kept, or None when there is nothing, or nothing to be trusted."""
    # NONBLOCK: a FIFO in its place must not hold us up.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=folder)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or not _is_ours_alone(found):
            return None
        most_bytes = _DIGEST_BYTES + MOST_INSTRUCTIONS * INSTRUCTION_BYTES
        content = file.read(most_bytes + 1)
    digest, program = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    whole = program and len(program) % INSTRUCTION_BYTES == 0 and len(content) <= most_bytes
    return program if whole and digest == _digest(identity, program) else None


def _is_ours_alone(found: os.stat_result) -> bool:
    return found.st_uid == os.geteuid() and not found.st_mode & _OTHERS_WRITE


def _digest(identity: bytes, program: bytes) -> bytes:
    return hashlib.sha256(len(identity).to_bytes(8, "big") + identity + program).digest()
