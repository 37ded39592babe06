"""75: characters put into the caller's terminal, also with bits that the kernel cuts off."""

import contextlib
import ctypes
import errno
import os

from probe import call, main

TERMINAL = True
TIOCSTI, TIOCLINUX, TIOCGWINSZ = 0x5412, 0x541C, 0x5413
GAPS = {
    "process": {
        "name": "the machine's terminals are others', so none is opened or named",
        "its name": "the machine's terminals are others', so none is opened or named",
        "its own by name": "the machine's terminals are others', so none is opened or named",
        "some more": "the machine's terminals are others', so none is opened or named",
    },
    "docker": {
        "all terminals": "only descriptors bound the number of terminals",
    },
}


def attack(probe):
    one = ctypes.create_string_buffer(b"x")
    fds = [0, 1, 2]
    with contextlib.suppress(PermissionError):  # in the lesser tier it is given one, and no more
        fds += os.openpty()[1:]
    for fd in fds:
        for command in (TIOCSTI, TIOCLINUX):
            for high in (0, 1 << 32, 1 << 63):
                probe.refused(
                    "ioctl", lambda f=fd, c=command | high: call("ioctl", f, c, one), errno.EPERM
                )
    with contextlib.suppress(PermissionError):
        probe.same("terminals", sorted(os.listdir("/dev/pts")), ["0", "1", "ptmx"])
    probe.refused("all terminals", lambda: [os.openpty() for _ in range(100)])


def twin(probe):
    probe.same("name", probe.works("its name", lambda: os.ttyname(0)), "/dev/pts/0")
    size = ctypes.create_string_buffer(8)
    probe.works("its size", lambda: call("ioctl", 0, TIOCGWINSZ, size))
    probe.works("its own by name", lambda: os.open("/dev/tty", os.O_RDWR))
    probe.works("some more", lambda: [os.openpty() for _ in range(10)])


main(attack, twin)
