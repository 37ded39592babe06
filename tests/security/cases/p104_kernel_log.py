"""103, 104: the kernel's log, and what names the machine."""

import contextlib
import ctypes
import errno
import os
import uuid

from probe import LIBC, call, filled, main, read

FILES = (
    "/dev/kmsg", "/proc/kmsg", "/var/log/dmesg", "/var/log/syslog", "/sys/kernel/debug",
    "/sys/class/dmi/id/product_uuid", "/sys/class/net", "/sys/fs/cgroup", "/sys/kernel/tracing",
    "/etc/machine-id", "/var/lib/dbus/machine-id", "/etc/hostid", "/proc/device-tree",
    "/sys/kernel/notes", "/sys/kernel/vmcoreinfo", "/proc/1/cgroup", "/proc/1/mountinfo",
)  # fmt: skip
GAPS = {
    "process": {
        "a name": "no settings of the kernel are shown",
        "its own groups": "no process's folder in /proc can be opened",
    },
    "docker": {
        "/sys/fs/cgroup": "the engine's control groups and storage paths are told",
        "/proc/1/cgroup": "the engine's control groups and storage paths are told",
        "/proc/1/mountinfo": "the engine's control groups and storage paths are told",
    },
}


def groups():
    return {line.split(b":", 2)[2] for line in read("/proc/self/cgroup").splitlines()}


def attack(probe):
    room = ctypes.create_string_buffer(4096)
    for number in (2, 3, 4, 5, 6, 7, 8, 9, 10):
        probe.refused("syslog", lambda n=number: call("syslog", n, room, len(room)), errno.EPERM)
    for path in FILES:
        probe.refused(path, lambda path=path: filled(path))
    for name, check in (
        ("addresses in the symbols", lambda: read("/proc/kallsyms") == b""),
        ("paths of groups", lambda: groups() <= {b"/"}),
        ("its name", lambda: read("/etc/hostname") == b"sandbox\n"),
        ("its name", lambda: read("/proc/sys/kernel/hostname") == b"sandbox\n"),
        ("its domain", lambda: read("/proc/sys/kernel/domainname") == b"(none)\n"),
    ):
        with contextlib.suppress(FileNotFoundError, PermissionError):  # not told either
            probe.same(name, check(), True)
    with contextlib.suppress(OSError):
        probe.same("its hardware", [n for n in os.listdir("/sys/class/net") if n != "lo"], [])
    probe.same("what stands in no table", LIBC.gethostid() in (0, 0x7F0100, 0x7F000100), True)


def twin(probe):
    probe.works("a name", lambda: read("/proc/sys/kernel/ostype"))
    probe.works("a number of its own", uuid.uuid4)
    probe.works("its own groups", lambda: read("/proc/self/cgroup"))


main(attack, twin)
