"""The calls that the tier `process` carries out: the lists that name them agree."""

from __future__ import annotations

import errno
import platform

import pyseccomp

from runner.backends.native.launcher import metadata
from runner.syscall_process_tier import EMULATED, METADATA, process_tier_refusals
from runner.syscalls import Refusal, refusals


def test_each_emulated_call_is_carried_out_under_its_number() -> None:
    assert set(metadata.NUMBERS) == {"x86_64", "aarch64"}
    for machine, arch in (("x86_64", pyseccomp.Arch.X86_64), ("aarch64", pyseccomp.Arch.AARCH64)):
        numbers = dict(metadata.NUMBERS[machine])
        assert numbers.pop("fchmodat2") == 452  # libseccomp 2.5.4 does not know it
        for name, number in numbers.items():
            assert pyseccomp.resolve_syscall(arch, name) == number, name
        # What an architecture has not has a negative number there.
        missing = set(EMULATED) - set(metadata.NUMBERS[machine])
        for name in missing:
            assert pyseccomp.resolve_syscall(arch, name) < 0, name
    assert set(EMULATED) == set(metadata.NUMBERS["x86_64"])
    assert set(metadata.CALLS) == set(metadata.NUMBERS[platform.machine()].values())


def test_a_refusal_would_come_before_it() -> None:
    """So as a user none of them may be refused outright, unless a profile says so."""
    refused = process_tier_refusals(refusals(), own_user=False)
    outright = {one.name for one in refused if one.when is None}
    assert not outright & set(EMULATED)
    assert outright >= {*METADATA, "userfaultfd"}
    denied = (*refusals(), Refusal("chmod", errno.EPERM))
    assert Refusal("chmod", errno.EPERM) in process_tier_refusals(denied, own_user=False)


def test_as_root_nothing_of_the_kind_is_refused() -> None:
    refused = process_tier_refusals(refusals(), own_user=True)
    outright = {one.name for one in refused if one.when is None}
    assert not outright & {*EMULATED, *METADATA}
