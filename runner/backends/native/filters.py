"""The compiled seccomp filter of a profile, kept from run to run."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from runner.backends.bpf import program_for
from runner.model.profile import Syscalls
from runner.syscalls import refusals

CACHE_VERSION = 1
"""Part of the key: raised when compiling changes what the same list means."""


def compiled(changes: Syscalls, cache: Path) -> bytes:
    """The BPF program (8 bytes an instruction) for the default list with a profile's changes.

    Kept in the folder `cache`, which only this user may write, under a digest of the list.
    Raises ProtectionMissingError where libseccomp is not installed or knows not enough.
    """
    wanted = refusals(changes)
    identity = f"{CACHE_VERSION} {os.uname().machine} {wanted!r}"
    file = cache / f"seccomp-{hashlib.sha256(identity.encode()).hexdigest()[:32]}.bpf"
    try:
        return file.read_bytes()
    except OSError:
        program = program_for(wanted)
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=cache, delete=False) as fresh:
        fresh.write(program)
    Path(fresh.name).rename(file)  # whole or not at all, whoever else does the same
    return program
