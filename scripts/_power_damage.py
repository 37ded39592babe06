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
    data = bytearray(file.read_bytes() or b"\0")
    said = []
    for _each in range(dice.randint(1, 6)):
        at = dice.randrange(len(data)) // _SECTOR * _SECTOR
        length = _SECTOR * dice.randint(1, 20)
        new = bytes(length) if dice.random() < 0.5 else dice.randbytes(length)
        data[at : at + length] = new[: len(data) - at]
        said.append(f"{length} at {at}")
    file.write_bytes(data)
    return f"{file.name}: sectors {', '.join(said)}"


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
    data = bytearray(file.read_bytes() or b"\0")
    said = []
    for _each in range(dice.randint(1, 3)):
        at, size = (0, WAL_HEAD) if dice.random() < 0.4 else (dice.choice(oracle.frames), 24)
        data[at : at + size] = bytes(size) if dice.random() < 0.3 else dice.randbytes(size)
        said.append(f"{size} bytes at {at}")
    file.write_bytes(data)
    return f"runner.db-wal: headers, {', '.join(said)}"


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
    data = bytearray(file.read_bytes() or b"\0")
    if dice.random() < 0.5:
        del data[dice.randrange(len(data) + 1) :]
    else:
        at = dice.randrange(len(data))
        size = dice.choice([1, 32, PAGE])
        new = bytes(size) if dice.random() < 0.5 else dice.randbytes(size)
        data[at : at + size] = new[: len(data) - at]
    file.write_bytes(data)
    return f"{file.name} is spoiled"


def several(home: Path, dice: Random, oracle: Oracle) -> str:
    return "; ".join(
        dice.choice([pages, sectors, bits, heads, cut])(home, dice, oracle) for _ in range(2)
    )


DAMAGES: tuple[Callable[[Path, Random, Oracle], str], ...] = (
    cut, pages, sectors, bits, heads, torn, lost, beside, several,
)  # fmt: skip


def _one_of(home: Path, dice: Random, names: tuple[str, ...]) -> Path:
    there = [home / name for name in names if (home / name).exists()]
    return dice.choice([file for file in there if file.stat().st_size] or there)


def _edge(file: Path, dice: Random) -> int:
    """Where a page or a frame begins."""
    size = file.stat().st_size
    if file.name.endswith("wal"):
        return WAL_HEAD + dice.randrange(max(1, (size - WAL_HEAD) // FRAME)) * FRAME
    return dice.randrange(max(1, size // PAGE)) * PAGE
