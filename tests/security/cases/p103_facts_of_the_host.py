"""103, 104: what /proc, /sys and /etc tell of the host."""

import contextlib
import os
import socket

from probe import filled, main, read

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
    "process": {
        "/etc/": "that a path exists is told, not what is in it",
        "/var/": "that a path exists is told, not what is in it",
        "/root/": "that a path exists is told, not what is in it",
        "/home/": "that a path exists is told, not what is in it",
        "/boot": "that a path exists is told, not what is in it",
        "/run/": "that a path exists is told, not what is in it",
        "/lost+found": "that a path exists is told, not what is in it",
        "name": "there is no UTS namespace: the machine's name is told",
        "users": "the machine's users are told",
        "self/": "no process's folder in /proc can be opened",
        "/etc/resolv.conf": "there is no network to resolve names by",
    },
    "docker": {
        "content of": "the image has files of its own by such names",
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
        probe.refused(f"content of {path}", lambda path=path: filled(path))
    with contextlib.suppress(PermissionError):  # where it is the host's, and closed
        probe.same("/sys", os.listdir("/sys"), [])
    probe.same("name", (socket.gethostname(), os.uname().nodename), ("sandbox", "sandbox"))
    with contextlib.suppress(PermissionError):
        numbers = [name for name in os.listdir("/proc") if name.isdigit()]
        probe.same("processes", numbers, [str(os.getpid())])
    outside = probe.facts["outside"].encode()
    for name in ("mountinfo", "mounts", "environ", "maps", "cgroup"):
        with contextlib.suppress(PermissionError):
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
