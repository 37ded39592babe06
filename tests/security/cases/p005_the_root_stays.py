"""5 to 7, 10, 12: what is shown can't be renamed, replaced, cut, removed or changed."""

import os

from probe import PLACES, main, read, write

SHOWN = (
    "/",
    "/usr",
    "/usr/bin",
    "/etc",
    "/dev",
    "/run",
    "/run/runner",
    "/proc",
    "/sys",
    "/home",
    "/var",
)
FILES = ("/usr/bin/env", "/etc/passwd", "/etc/hosts", "/bin/sh", "/usr/bin/python3")
SETTINGS = (
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/hostname",
    "/proc/sys/fs/binfmt_misc/register",
    "/proc/sys/vm/drop_caches",
    "/proc/sysrq-trigger",
    "/proc/irq/default_smp_affinity",
    "/proc/self/setgroups",
    "/proc/self/uid_map",
)
GAPS = {
    "process": {
        "its removal": "the run's copy of a script is its own to change once it runs",
        "a setting": "no settings of the kernel are shown",
        "its own name": "no process's folder in /proc can be opened",
    },
    "docker": {
        "its own name": "Landlock keeps all of /proc from being written there",
    },
}


def attack(probe):
    for folder in SHOWN:
        probe.refused(f"file in {folder}", lambda f=folder: write(f"{f}/new", b"x"))
        probe.refused(f"folder in {folder}", lambda f=folder: os.mkdir(f"{f}/new"))
        probe.refused(f"link in {folder}", lambda f=folder: os.symlink("/tmp", f"{f}/new"))
        probe.refused(f"rename {folder}", lambda f=folder: os.rename(f, f"{f}.old"))
        probe.refused(f"mode of {folder}", lambda f=folder: os.chmod(f, 0o777))
    for path in FILES:
        probe.refused(f"open {path}", lambda p=path: write(p, b"x", 0))
        probe.refused(f"truncate {path}", lambda p=path: os.truncate(p, 0))
        probe.refused(f"unlink {path}", lambda p=path: os.unlink(p))
        probe.refused(f"rename onto {path}", lambda p=path: os.rename("old", p))
        probe.refused(f"times of {path}", lambda p=path: os.utime(p))
        probe.refused(f"attribute of {path}", lambda p=path: os.setxattr(p, "user.x", b"x"))
        held = os.open(path, os.O_RDONLY)
        probe.refused(f"reopen {path}", lambda h=held: os.open(f"/proc/self/fd/{h}", os.O_RDWR))
        probe.refused(f"mode by descriptor of {path}", lambda h=held: os.fchmod(h, 0o777))
    for path in SETTINGS:
        probe.refused(f"set {path}", lambda p=path: write(p, b"1", 0))
    probe.refused("its own program", lambda: write("/proc/self/exe", b"x", 0))
    script = "/proc/self/root" + os.path.abspath(__file__)
    probe.refused("the script that was decided about", lambda: write(script, b"x", 0))
    probe.refused("its removal", lambda: os.unlink(script))


def twin(probe):
    for folder in PLACES:
        probe.works(f"file in {folder}", lambda f=folder: write(f"{f}/new", b"x"))
        probe.works(f"folder in {folder}", lambda f=folder: os.mkdir(f"{f}/newer"))
        probe.works(f"rename in {folder}", lambda f=folder: os.rename(f"{f}/new", f"{f}/newer/old"))
        probe.works(f"mode in {folder}", lambda f=folder: os.chmod(f"{f}/newer", 0o700))
    for path in FILES:
        probe.works(f"read {path}", lambda p=path: read(p))
    held = os.open("old", os.O_RDONLY)
    probe.works("reopen", lambda: os.open(f"/proc/self/fd/{held}", os.O_RDWR))
    probe.works("a setting", lambda: read("/proc/sys/kernel/ostype"))
    probe.works("its own name", lambda: write("/proc/self/comm", b"name", 0))


main(attack, twin)
