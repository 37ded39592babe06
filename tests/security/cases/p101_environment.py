"""101, 105: what whoever started this has in its environment and its memory, looked for."""

import contextlib
import os
import re

from probe import main, read

GAPS = {
    "process": {
        "its memory looked at": "no process's folder in /proc can be opened",
    },
}


def pids():
    with contextlib.suppress(PermissionError):  # where /proc is closed
        return [name for name in os.listdir("/proc") if name.isdigit()]
    return [str(number) for number in range(1, 1000)]


def attack(probe):
    for name, value in os.environ.items():
        print(name, value)
    for pid in pids():
        for file in ("environ", "cmdline", "auxv"):
            with contextlib.suppress(OSError):
                print(read(f"/proc/{pid}/{file}", 1 << 16))
    for pid in range(1, 40):
        if pid != os.getpid():
            probe.refused(f"environment of {pid}", lambda pid=pid: read(f"/proc/{pid}/environ"))
            probe.refused(f"memory of {pid}", lambda pid=pid: read(f"/proc/{pid}/mem"))
    probe.refused("a core", lambda: os.stat("core"))
    # All that this process can read of itself: nothing of the launcher's is left behind an exec.
    probe.works("its memory looked at", lambda: search(probe))


def search(probe):
    seen = 0
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb") as memory:
        for line in maps.readlines():
            start, end = (int(part, 16) for part in re.match(r"(\w+)-(\w+)", line).groups())
            if "r" not in line.split()[1] or "[v" in line:
                continue
            memory.seek(start)
            with contextlib.suppress(OSError):
                seen += 1
                for found in re.findall(rb"RUNNER_CASE_\w*", memory.read(end - start)):
                    if found != b"RUNNER_CASE_":
                        probe.wrong("left in memory", found)
    probe.same("memory was looked at", seen > 10, True)


def twin(probe):
    probe.works("its own", lambda: os.environ["HOME"])
    os.environ["MINE"] = "x"
    with os.popen("echo $MINE") as said:
        probe.same("given on", said.read(), "x\n")


main(attack, twin)
