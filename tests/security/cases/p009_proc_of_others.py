"""9, 11, 84: the host by /proc, and by process 1, which stands outside of the walls."""

import os

from probe import main, read

GAPS = {
    "process": {
        "environ": "no process's folder in /proc can be opened",
        "parent": "there is no PID namespace",
        "a child's": "no process's folder in /proc can be opened",
    },
    "docker": {
        "read cmdline of init": "process 1 is shown; its words are the same for every run",
    },
}


def attack(probe):
    for name in ("root", "cwd", "exe", "ns/net", "ns/mnt", "ns/user"):
        probe.refused(f"readlink {name} of init", lambda name=name: os.readlink(f"/proc/1/{name}"))
        probe.refused(
            f"open {name} of init", lambda name=name: os.open(f"/proc/1/{name}", os.O_RDONLY)
        )
    for name in ("fd", "map_files", "task/1/fd", "root/etc"):
        probe.refused(f"list {name} of init", lambda name=name: os.listdir(f"/proc/1/{name}"))
    for name in ("environ", "mem", "maps", "cmdline", "auxv", "stack", "syscall", "io"):
        probe.refused(f"read {name} of init", lambda name=name: read(f"/proc/1/{name}"))
    for name in ("mem", "oom_score_adj", "comm", "clear_refs"):
        probe.refused(
            f"write {name} of init", lambda name=name: os.open(f"/proc/1/{name}", os.O_WRONLY)
        )
    probe.refused("the caller's process", lambda: os.listdir(f"/proc/{probe.facts['pid']}"))
    for path in (
        "/proc/self/root",
        "/proc/self/cwd/..",
        "/proc/thread-self/root",
        "/proc/self/root/..",
    ):
        probe.refused(path, lambda path=path: read(path + probe.facts["secret"]))
        probe.refused(path, lambda path=path: read(f"{path}/outside/secret"))


def twin(probe):
    for name in ("root", "cwd", "exe", "ns/net"):
        probe.works(name, lambda name=name: os.readlink(f"/proc/self/{name}"))
    probe.works("environ", lambda: read("/proc/self/environ"))
    probe.works("the tree by root", lambda: read("/proc/self/root/etc/passwd"))
    probe.same("parent", os.getppid(), 1)
    child = os.fork()
    if child == 0:
        os.read(os.pipe()[0], 1)
    probe.works("a child's", lambda: os.listdir(f"/proc/{child}/fd"))
    os.kill(child, 9)


main(attack, twin)
