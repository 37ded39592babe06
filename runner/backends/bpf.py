"""Compiles refused system calls to a BPF program with libseccomp; for any backend.

Importing pyseccomp runs ldconfig, so it is imported only where there is something to compile.
"""

from __future__ import annotations

import tempfile

from runner.errors import ProtectionMissingError
from runner.model.protection import Protection
from runner.syscall_names import NUMBERS
from runner.syscalls import Refusal


def program_for(wanted: tuple[Refusal, ...]) -> bytes:
    """The filter, 8 bytes an instruction, for the architecture of this process.

    ProtectionMissingError: libseccomp is not installed, or does not know a name of the list.
    """
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
            conditions = [
                pyseccomp.Arg(when.index, pyseccomp.MASKED_EQ, when.mask, when.value)
                for when in (refusal.when, refusal.also)
                if when is not None
            ]
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
