"""103, 104: the kernel's log, and what names the machine."""

import contextlib
import ctypes
import errno
import os
import uuid

from probe import LIBC, call, main, read

FILES = (
    "/dev/kmsg", "/proc/kmsg", "/var/log/dmesg", "/var/log/syslog", "/sys/kernel/debug",
    "/sys/class/dmi/id/product_uuid", "/sys/class/net", "/sys/fs/cgroup", "/sys/kernel/tracing",
    "/etc/machine-id", "/var/lib/dbus/machine-id", "/etc/hostid", "/proc/device-tree",
    "/sys/kernel/notes", "/sys/kernel/vmcoreinfo", "/proc/1/cgroup", "/proc/1/mountinfo",
)  # fmt: skip
GAPS = {
    "docker": {
        "/sys/fs/cgroup": "the engine's control groups and storage paths are told",
        "/proc/1/cgroup": "the engine's control groups and storage paths are told",
        "/proc/1/mountinfo": "the engine's control groups and storage paths are told",
    },
}


def filled(path):
    """What a file holds, or a folder; ValueError where it is there and holds nothing."""
    found = os.listdir(path) if os.path.isdir(path) else read(path)
    if not found:
        raise ValueError(path)
    return found


def attack(probe):
    room = ctypes.create_string_buffer(4096)
    for number in (2, 3, 4, 5, 6, 7, 8, 9, 10):
        probe.refused("syslog", lambda n=number: call("syslog", n, room, len(room)), errno.EPERM)
    for path in FILES:
        probe.refused(path, lambda path=path: filled(path))
    probe.same(
        "addresses in the symbols",
        read("/proc/kallsyms") if os.path.exists("/proc/kallsyms") else b"",
        b"",
    )
    probe.same(
        "paths of groups",
        {line.split(b":", 2)[2] for line in read("/proc/self/cgroup").splitlines()} <= {b"/"},
        True,
    )
    probe.same(
        "its name", (read("/etc/hostname"), read("/proc/sys/kernel/hostname")), (b"sandbox\n",) * 2
    )
    probe.same("its domain", read("/proc/sys/kernel/domainname"), b"(none)\n")
    with contextlib.suppress(OSError):
        probe.same("its hardware", [n for n in os.listdir("/sys/class/net") if n != "lo"], [])
    probe.same("what stands in no table", LIBC.gethostid() in (0, 0x7F0100, 0x7F000100), True)


def twin(probe):
    probe.works("a name", lambda: read("/proc/sys/kernel/ostype"))
    probe.works("a number of its own", uuid.uuid4)
    probe.works("its own groups", lambda: read("/proc/self/cgroup"))


main(attack, twin)
