"""76: calls of another architecture, which a filter for this one would not know."""

import ctypes
import mmap
import os
import signal

from probe import LIBC, NUMBERS, X86, call, in_child, main

X32 = 0x40000000
GETPID = 39 if X86 else 172


def machine_code(code):
    """A function of these bytes."""
    page = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 7)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    function = ctypes.CFUNCTYPE(ctypes.c_long)(address)
    function.page = page  # which is to live as long
    return function


def by_interrupt(number):
    """mov eax, number; int 0x80; ret."""
    return machine_code(b"\xb8" + number.to_bytes(4, "little") + b"\xcd\x80\xc3")


def killed(status):
    """By the filter; or, where the kernel has no such calls at all, by the instruction."""
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGSYS, signal.SIGSEGV)


def attack(probe):
    if not X86:
        probe.refused("an unknown call", lambda: call_number(X32 | GETPID))
        return
    for number in (20, 21, 26, 310):  # getpid, mount, ptrace, unshare
        probe.same("int 0x80", killed(in_child(by_interrupt(number))), True)
    for number in (GETPID, NUMBERS["mount"][0], NUMBERS["unshare"][0], 519, 521):
        made = X32 | number
        probe.same("x32", killed(in_child(lambda n=made: call_number(n))), True)


def call_number(number):
    result = LIBC.syscall(ctypes.c_long(number), 0, 0, 0, 0, 0)
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result


def twin(probe):
    probe.same("its own", call_number(GETPID), os.getpid())
    if X86:
        code = b"\xb8" + GETPID.to_bytes(4, "little") + b"\x0f\x05\xc3"
        probe.same("by its own instruction", machine_code(code)(), os.getpid())
    probe.works("personality asked", lambda: call("personality", 0xFFFFFFFF))


main(attack, twin)
