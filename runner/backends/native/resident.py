"""How much memory a process holds, when what it shares with others must not count many times."""

from __future__ import annotations

from pathlib import Path


def proportional_bytes(pid: int, resident_bytes: int) -> int:
    """The process's proportional set size: a page that n processes map counts as its nth part.

    From /proc/PID/smaps_rollup (proc_pid_smaps(5)), which walks the process's page tables: dearer
    than the resident size, so it is for when that one says too much. A process that closed itself
    to being looked at (prctl(2), PR_SET_DUMPABLE) counts in full, so nothing is won by that; one
    that has ended holds nothing.
    """
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    except OSError:
        return resident_bytes
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == "Pss":
            return int(value.split()[0]) * 1024  # in kB, by which the kernel means 1024 bytes
    return resident_bytes
