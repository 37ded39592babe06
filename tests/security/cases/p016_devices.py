"""16, 17: devices made, the machine's own, and the nodes that are shown."""

import os
import stat

from probe import main, read, write

NODES = (
    "mem", "kmem", "port", "kmsg", "sda", "vda", "nvme0n1", "loop-control", "loop0", "fuse", "kvm",
    "net/tun", "vsock", "vhost-net", "userfaultfd", "mapper/control", "console", "tty0", "tty1",
    "hpet", "cpu/0/msr", "input/event0", "dri/card0", "snapshot",
)  # fmt: skip
GAPS = {
    "process": {
        "times of": "times of files that all may write can be set",
        "a terminal of its own": "the machine's terminals are others', so none can be opened",
    },
    "docker": {
        "times of": "times of the container's own device nodes can be set",
    },
}


def attack(probe):
    for folder in (".", "/tmp", "/dev/shm", "/home/agent", "/dev"):
        for kind, number in (
            (stat.S_IFCHR, (1, 1)),
            (stat.S_IFBLK, (8, 0)),
            (stat.S_IFCHR, (10, 229)),
        ):
            device = os.makedev(*number)
            probe.refused(
                "mknod", lambda f=folder, k=kind, d=device: os.mknod(f"{f}/d", k | 0o666, d)
            )
    for name in NODES:
        probe.refused(f"open {name}", lambda n=name: os.open(f"/dev/{n}", os.O_RDONLY))
    probe.refused("a terminal of the caller", lambda: os.open("/dev/tty", os.O_RDWR))
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        path = f"/dev/{name}"
        probe.refused(f"times of {path}", lambda p=path: os.utime(p))
        probe.refused(f"mode of {path}", lambda p=path: os.chmod(p, 0o777))
        probe.refused(f"removal of {path}", lambda p=path: os.unlink(p))


def twin(probe):
    probe.same("zero", read("/dev/zero", 3), bytes(3))
    probe.same("null", write("/dev/null", b"x", 0), 1)
    probe.same("random", len(read("/dev/urandom", 8)), 8)
    probe.works("a FIFO", lambda: os.mkfifo("mine"))
    probe.works("a terminal of its own", os.openpty)


main(attack, twin)
