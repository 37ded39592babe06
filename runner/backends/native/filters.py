"""Compiles the refused system calls to a BPF program with libseccomp, once, and keeps it.

Importing pyseccomp runs ldconfig, so it is imported only where there is something to compile.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from runner.errors import ProtectionMissingError
from runner.model.profile import Syscalls
from runner.model.protection import Protection
from runner.syscalls import NUMBERS, Refusal, refusals

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
        program = _compile(wanted)
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=cache, delete=False) as fresh:
        fresh.write(program)
    Path(fresh.name).rename(file)  # whole or not at all, whoever else does the same
    return program


def _compile(wanted: tuple[Refusal, ...]) -> bytes:
    try:
        import pyseccomp  # noqa: PLC0415  (see the docstring)
    except (ImportError, RuntimeError) as error:
        raise ProtectionMissingError(
            Protection.SECCOMP, f"libseccomp can't be loaded ({error}); install libseccomp2"
        ) from error
    try:
        filter_ = pyseccomp.SyscallFilter(defaction=pyseccomp.ALLOW)
        # Another architecture's calls have other numbers: this list would mean nothing to them.
        filter_.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.KILL_PROCESS)
        for refusal in wanted:
            conditions = []
            if refusal.when is not None:
                when = refusal.when
                conditions.append(
                    pyseccomp.Arg(when.index, pyseccomp.MASKED_EQ, when.mask, when.value)
                )
            name = NUMBERS.get(refusal.name, refusal.name)
            filter_.add_rule(pyseccomp.ERRNO(refusal.errno_code), name, *conditions)
        with tempfile.TemporaryFile() as file:
            filter_.export_bpf(file)
            file.seek(0)
            return file.read()
    except (OSError, ValueError) as error:
        raise ProtectionMissingError(
            Protection.SECCOMP,
            f"libseccomp can't compile the system call list ({error}); "
            "check the names under 'syscalls' in the profile",
        ) from error
