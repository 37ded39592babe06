"""103, 104: what /proc, /sys and /etc tell of the host."""

import contextlib
import os
import socket

from probe import main, read

EMPTY = (
    "kallsyms", "kcore", "keys", "key-users", "kmsg", "cmdline", "timer_list", "modules",
    "config.gz", "slabinfo", "vmallocinfo", "partitions", "diskstats", "sched_debug", "mdstat",
)  # fmt: skip
ABSENT = (
    "/etc/shadow", "/etc/machine-id", "/etc/hostid", "/etc/ssh", "/etc/sudoers", "/etc/fstab",
    "/etc/runner", "/etc/ssl/private", "/etc/krb5.keytab", "/var/lib/dbus", "/var/log",
    "/root/.ssh", "/home/user", "/boot", "/run/secrets", "/var/run/secrets", "/lost+found",
)  # fmt: skip
GAPS = {
    "docker": {
        "/etc/": "the image has files of its own by such names",
        "/var/log": "the image has files of its own by such names",
        "/boot": "the image has files of its own by such names",
        "users": "the image has users of its own",
        "processes": "process 1 is shown",
        "/sys [": "/sys is there, its telling parts are masked",
    },
}


def attack(probe):
    for name in EMPTY:
        if os.path.exists(f"/proc/{name}"):
            with contextlib.suppress(PermissionError):
                probe.same(f"/proc/{name}", read(f"/proc/{name}"), b"")
    for path in ABSENT:
        probe.same(path, os.path.exists(path), False)
    probe.same("/sys", os.listdir("/sys"), [])
    probe.same("name", (socket.gethostname(), os.uname().nodename), ("sandbox", "sandbox"))
    probe.same(
        "processes", [name for name in os.listdir("/proc") if name.isdigit()], [str(os.getpid())]
    )
    outside = probe.facts["outside"].encode()
    for name in ("mountinfo", "mounts", "environ", "maps", "cgroup"):
        probe.same(f"a path in {name}", outside in read(f"/proc/self/{name}", 1 << 20), False)
    users = {line.split(b":")[0] for line in read("/etc/passwd").splitlines()}
    probe.same("users", users, {b"root", b"agent", b"nobody"})
    probe.refused(
        "sockets of others", lambda: read("/proc/net/unix").index(probe.facts["abstract"].encode())
    )


def twin(probe):
    for name in ("cpuinfo", "meminfo", "stat", "uptime", "self/mountinfo", "self/status"):
        probe.works(name, lambda name=name: read(f"/proc/{name}")[0])
    for path in (
        "/etc/passwd",
        "/etc/hosts",
        "/etc/resolv.conf",
        "/etc/nsswitch.conf",
        "/etc/group",
    ):
        probe.works(path, lambda path=path: read(path)[0])


main(attack, twin)
