"""What a power cut or a failing disk does to files: each a function of a state folder and dice."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random

from _power_oracle import FRAME, PAGE, WAL_HEAD, Oracle

LOG = ("runner.db", "runner.db-wal")
_SECTOR = 512


def cut(home: Path, dice: Random, _: Oracle) -> str:
    file = _one_of(home, dice, LOG)
    size = file.stat().st_size
    if not size:
        return f"{file.name} is empty"
    at = dice.choice([dice.randrange(size + 1), _edge(file, dice), dice.randrange(min(size, 600))])
    os.truncate(file, min(at, size))
    return f"{file.name} cut at {min(at, size)} of {size}"


def pages(home: Path, dice: Random, _: Oracle) -> str:
    """Zeros, chance, or another page: a write that went astray, or one that was lost."""
    file = _one_of(home, dice, LOG)
    data = bytearray(file.read_bytes() or b"\0")
    said = []
    for _each in range(dice.randint(1, 4)):
        at = min(_edge(file, dice), max(0, len(data) - PAGE))
        length = FRAME if file.name.endswith("wal") else PAGE
        what = dice.choice(["zeros", "chance", "another"])
        other = _edge(file, dice)
        new = {
            "zeros": bytes(length),
            "chance": dice.randbytes(length),
            "another": bytes(data[other : other + length]),
        }[what]
        data[at : at + length] = new[: len(data) - at]
        said.append(f"{what} at {at}")
    file.write_bytes(data)
    return f"{file.name}: {', '.join(said)}"


def sectors(home: Path, dice: Random, _: Oracle) -> str:
    file = _one_of(home, dice, LOG)

    def place(size: int) -> tuple[int, int]:
        return dice.randrange(size) // _SECTOR * _SECTOR, _SECTOR * dice.randint(1, 20)

    return f"{file.name}: sectors, {_overwritten(file, dice, dice.randint(1, 6), place, 0.5)}"


def bits(home: Path, dice: Random, _: Oracle) -> str:
    file = _one_of(home, dice, LOG)
    data = bytearray(file.read_bytes() or b"\0")
    said = []
    for _each in range(dice.randint(1, 8)):
        # Often in the first page: the schema is there.
        at = dice.randrange(len(data) if dice.random() < 0.7 else min(len(data), PAGE))
        data[at] ^= 1 << dice.randrange(8)
        said.append(str(at))
    file.write_bytes(data)
    return f"{file.name}: bits at {', '.join(said)}"


def heads(home: Path, dice: Random, oracle: Oracle) -> str:
    """Headers: the WAL's own, or those of frames."""
    file = home / "runner.db-wal"
    if not oracle.frames:
        return pages(home, dice, oracle)

    def place(_: int) -> tuple[int, int]:
        return (0, WAL_HEAD) if dice.random() < 0.4 else (dice.choice(oracle.frames), 24)

    return f"{file.name}: headers, {_overwritten(file, dice, dice.randint(1, 3), place, 0.3)}"


def torn(home: Path, dice: Random, oracle: Oracle) -> str:
    """The last transaction was on its way to the disk, sector by sector."""
    begin, end = oracle.last_transaction()
    if not end:
        return pages(home, dice, oracle)
    file = home / "runner.db-wal"
    data = bytearray(file.read_bytes())
    how = dice.choice(["cut", "zeros", "chance"])
    at = dice.randrange(begin, end)
    if how == "cut":
        del data[at:]
    else:
        for start in range(begin // _SECTOR * _SECTOR, end, _SECTOR):
            if dice.random() < 0.5:
                low, high = max(start, begin), min(start + _SECTOR, end)
                size = high - low
                data[low:high] = bytes(size) if how == "zeros" else dice.randbytes(size)
    file.write_bytes(data)
    return f"runner.db-wal: the last transaction ({begin} to {end}), {how} from {at}"


def lost(home: Path, dice: Random, _: Oracle) -> str:
    """A file that is not there any more, or is empty."""
    names = ("runner.db", "runner.db-wal", "runner.db-shm", "search.db", "queue.lock")
    file = _one_of(home, dice, names)
    if dice.random() < 0.7:
        file.unlink()
        return f"{file.name} is gone"
    os.truncate(file, 0)
    return f"{file.name} is empty"


def beside(home: Path, dice: Random, _: Oracle) -> str:
    """What lies beside the log: its shared memory, the search index, the key."""
    keys = [f"keys/{file.name}" for file in (home / "keys").iterdir()]
    file = _one_of(home, dice, ("runner.db-shm", "search.db", *keys))
    if dice.random() < 0.5:
        size = dice.randrange(file.stat().st_size + 1)
        os.truncate(file, size)
        return f"{file.name} cut at {size}"

    def place(size: int) -> tuple[int, int]:
        return dice.randrange(size), dice.choice([1, 32, PAGE])

    return f"{file.name}: {_overwritten(file, dice, 1, place, 0.5)}"


def several(home: Path, dice: Random, oracle: Oracle) -> str:
    return "; ".join(
        dice.choice([pages, sectors, bits, heads, cut])(home, dice, oracle) for _ in range(2)
    )


DAMAGES: tuple[Callable[[Path, Random, Oracle], str], ...] = (
    cut, pages, sectors, bits, heads, torn, lost, beside, several,
)  # fmt: skip


def _overwritten(
    file: Path, dice: Random, count: int, place: Callable[[int], tuple[int, int]], zeros: float
) -> str:
    """Zeros or chance at `count` places, never more than there is; where, in words.

    `place`: from the size, at least 1, to a position and a length. `zeros`: how often it is zeros.
    """
    data = bytearray(file.read_bytes() or b"\0")
    said = []
    for _ in range(count):
        at, length = place(len(data))
        new = bytes(length) if dice.random() < zeros else dice.randbytes(length)
        data[at : at + length] = new[: max(0, len(data) - at)]
        said.append(f"{length} at {at}")
    file.write_bytes(data)
    return ", ".join(said)


def _one_of(home: Path, dice: Random, names: tuple[str, ...]) -> Path:
    there = [home / name for name in names if (home / name).exists()]
    return dice.choice([file for file in there if file.stat().st_size] or there)


def _edge(file: Path, dice: Random) -> int:
    """Where a page or a frame begins."""
    size = file.stat().st_size
    if file.name.endswith("wal"):
        return WAL_HEAD + dice.randrange(max(1, (size - WAL_HEAD) // FRAME)) * FRAME
    return dice.randrange(max(1, size // PAGE)) * PAGE
