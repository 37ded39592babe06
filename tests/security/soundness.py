"""What runner reads in a shell text, held against what the real bash executes of it.

Texts of three sources (tests/data/nl2bash, the bash rows of tests/data/redcode, a grammar) are run
in a sandbox under a tracer of our own, with stubs for programs. Each execve(2) must be a command
of the Intent, word for word where its words are literal, or be covered by a dynamic one. One that
is not is a miss: a program ran that no rule was asked about.

`scripts/soundness` runs them all and prints a table; `test_soundness.py` runs a few.
"""

from __future__ import annotations

import argparse
import json
import os
import posixpath
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from soundness_grammar import generate
from soundness_stage import TRANSPARENT, Executed, Item, Stage

from runner.analysis import read
from runner.model.intent import Intent, SimpleCommand, Word
from runner.model.request import ShellText

DATA = Path(__file__).resolve().parents[1] / "data"
WHOLE = 20_000
"""Texts in all when run whole: what the two data sets do not hold, the grammar makes."""
BATCH = 250
HOME = "/home/agent"
SHELLS = frozenset({"bash", "sh", "dash", "zsh", "ksh", "busybox"})
COMPRESSORS = frozenset({"gzip", "bzip2", "xz", "lzip", "lzma", "lzop", "zstd", "compress"})
"""Programs that tar(1) starts for `-z` and its like."""


def nl2bash() -> list[str]:
    """Everyday commands, one a line."""
    path = DATA / "nl2bash" / "commands.txt"
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def redcode() -> list[str]:
    """Harmful scripts."""
    lines = (DATA / "redcode" / "bash.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["code"] for line in lines]


def covered(intent: Intent, file: str, words: Sequence[str]) -> bool:
    """Whether a program that was executed is a command of the Intent, or may be a dynamic one."""
    return any(_is_command(command, file, words) for command in intent.commands)


def _is_command(command: SimpleCommand, file: str, words: Sequence[str]) -> bool:
    if not command.words:
        return False
    first, rest = command.words[0], command.words[1:]
    if first.dynamic and first.many:
        return _matches(command.words, words) or _matches((Word("", True), *rest), words)
    names = {file, posixpath.basename(file), words[0] if words else ""}
    if not first.dynamic:
        names |= {posixpath.basename(words[0])} if words else set()
        if not names & {first.text, posixpath.basename(first.text)} | _homes(names, first.text):
            return False
    elif not any(_is_word(first, name) for name in names):
        return False
    return _matches(rest, words[1:])


def _homes(names: Iterable[str], text: str) -> set[str]:
    return {name for name in names if _is_literal(text, name)}


def _matches(pattern: Sequence[Word], words: Sequence[str]) -> bool:
    """Whether the pattern's words can become these; in O(len(pattern) * len(words))."""
    reachable = {0}
    for word in pattern:
        following: set[int] = set()
        if word.dynamic and word.many:
            if not word.prefix and not word.suffix:
                following = set(range(min(reachable), len(words) + 1)) if reachable else set()
            else:
                following = set(reachable)
                for start in reachable:
                    position = start
                    while position < len(words):
                        position += 1
                        following.add(position)
        else:
            following = {n + 1 for n in reachable if n < len(words) and _is_word(word, words[n])}
        reachable = following
    return len(words) in reachable


def _is_word(word: Word, real: str) -> bool:
    if not word.dynamic:
        return _is_literal(word.text, real)
    fits = len(real) >= len(word.prefix) + len(word.suffix)
    if fits and real.startswith(word.prefix) and real.endswith(word.suffix):
        return True
    known = HOME + word.prefix[1:] if word.prefix.startswith("~") else word.prefix
    return real.startswith(known) and real.endswith(word.suffix)


def _is_literal(text: str, real: str) -> bool:
    if text == real:
        return True
    if text.startswith("~"):  # of a home folder; which one is the run's own matter
        user, slash, tail = text[1:].partition("/")
        home = HOME if not user else None
        return real == f"{home}{slash}{tail}" if home else real.endswith(slash + tail)
    if text == "." or text.startswith("./"):  # `$PWD`
        return posixpath.isabs(real) and real.endswith(text[1:])
    return "=" in text and "~" in text and real == text.replace("~", HOME, 1)


@dataclass
class Tally:
    """Counts of one source."""

    texts: int = 0
    unreadable: int = 0
    dynamic: int = 0
    """Texts in which the name of some command could not be told."""
    needed: int = 0
    """Of these, texts of which a program ran that no literal name covers."""
    doubtful: int = 0
    """Others in which something may run that could not be told."""
    commands: int = 0
    unknown: int = 0
    """Commands of a dynamic name."""
    executed: int = 0
    literal: int = 0
    """Programs executed that a command of a literal name covers."""
    cut: int = 0
    """Texts that reached a limit, or ended their tracer."""
    misses: list[str] = field(default_factory=list)

    def add(self, item: Item, intent: Intent, done: Executed) -> None:
        """One text; if the reader could not read it, it would never run."""
        self.texts += 1
        self.commands += len(intent.commands)
        unknown = [c for c in intent.commands if c.words and c.words[0].dynamic]
        self.unknown += len(unknown)
        self.cut += done.end != "exited"
        if intent.unreadable is not None:
            self.unreadable += 1
            return
        if unknown:
            sure = any(not c.doubtful for c in unknown)
            self.dynamic += sure
            self.doubtful += not sure
        named = [c for c in intent.commands if c.words and not c.words[0].dynamic]
        plain = Intent(intent.language, tuple(named))
        needed = False
        for each in done.ran[1:]:  # the first is the text's own shell
            if each["by"] not in TRANSPARENT or _is_own(each, done.ran):
                continue  # a program whose language is not read, or no command of the text's
            self.executed += 1
            if covered(plain, each["file"], each["words"]):
                self.literal += 1
                continue
            needed = True
            if not covered(intent, each["file"], each["words"]):
                self.misses.append(_miss(item, intent, each))
        self.needed += needed and any(not c.doubtful for c in unknown)


def _is_own(each: dict, ran: Sequence[dict]) -> bool:
    """Whether a wrapper started it for itself: the shell of system(3), or tar(1) a compressor.

    What that shell executes is checked like everything else.
    """
    text = each["words"][1:]
    if each["by"] not in SHELLS and each["file"] == "/bin/sh" and text[:1] == ["-c"]:
        return True
    if posixpath.basename(each["file"]) not in COMPRESSORS:
        return False
    tar = ("/bin/sh", "tar", each["file"].rpartition("/")[2])
    return each["by"] == "tar" or (
        each["by"] == "sh" and any((r["file"], r["by"], r["words"][-1]) == tar for r in ran)
    )


def _miss(item: Item, intent: Intent, ran: dict) -> str:
    lines = [
        f"MISS ({item.source}): {ran['by']} executed {ran['file']} {ran['words']!r}",
        *(f"  | {line}" for line in item.text.split("\n")),
    ]
    for command in intent.commands:
        words = " ".join(("?" if w.dynamic else "") + repr(w.text) for w in command.words)
        via = f" via {'/'.join(command.via)}" if command.via else ""
        lines.append(f"  read: {words}{via}{' (in doubt)' if command.doubtful else ''}")
    return "\n".join(lines)


def items(limit: int, seed: int) -> list[Item]:
    """`limit` texts of all sources: both data sets if they fit, the grammar's for the rest."""
    known = [Item(text, "redcode") for text in redcode()]
    known += [Item(text, "nl2bash") for text in nl2bash()]
    if len(known) > limit // 2:
        known = random.Random(seed).sample(known, limit // 2)
    made = [Item(text, "grammar") for text in generate(limit - len(known), seed)]
    # Every other time the stubs fail, so that what stands behind `||` runs as well.
    return [Item(i.text, i.source, fail=n % 2 == 1) for n, i in enumerate([*known, *made])]


def check(stage: Stage, todo: Sequence[Item], tallies: dict[str, Tally]) -> Iterator[int]:
    """Run and compare; yields how many texts are done after each batch."""
    for start in range(0, len(todo), BATCH):
        batch = todo[start : start + BATCH]
        for item, done in zip(batch, stage.run(batch), strict=True):
            tally = tallies.setdefault(item.source, Tally())
            tally.add(item, read(ShellText(item.text)), done)
        yield start + len(batch)


def table(tallies: dict[str, Tally]) -> str:
    """What was found, a line for each source.

    `dynamic`: texts that hold a command whose name can't be told; `needed`: those of them of which
    a program ran that no literal name covers, so that a perfect reader, too, would need to know
    more than the text, or this one could read better.
    """
    heads = ("source", "texts", "unreadable", "dynamic", "needed", "in doubt", "commands",
             "dynamic", "executed", "literal", "cut", "misses")  # fmt: skip
    rows = [heads]
    for source, t in sorted(tallies.items()):
        rows.append(
            (source, str(t.texts), _share(t.unreadable, t.texts), _share(t.dynamic, t.texts),
             _share(t.needed, t.texts), _share(t.doubtful, t.texts), str(t.commands),
             _share(t.unknown, t.commands), str(t.executed), _share(t.literal, t.executed),
             str(t.cut), str(len(t.misses)))
        )  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


@cache
def _terminal() -> bool:
    return sys.stderr.isatty()


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/soundness", description=__doc__)
    parser.add_argument("--texts", type=int, default=WHOLE, help=f"in all; default: {WHOLE}")
    parser.add_argument("--seed", type=int, default=1, help="of the grammar; default: 1")
    parser.add_argument("--wall", type=float, default=1.0, help="seconds a text may run; default 1")
    parser.add_argument("--show", type=int, default=40, help="misses that are shown; default: 40")
    words = parser.parse_args()
    began = time.monotonic()
    todo = items(words.texts, words.seed)
    tallies: dict[str, Tally] = {}
    shown = 0
    with tempfile.TemporaryDirectory(prefix="soundness-") as folder:
        os.chmod(folder, 0o711)  # the sandbox's own user must get through
        stage = Stage(Path(folder, "stage"), words.wall)
        try:
            for done in check(stage, todo, tallies):
                found = [miss for tally in tallies.values() for miss in tally.misses]
                for miss in found[shown : words.show]:
                    print(miss, flush=True)  # at once: the whole takes a while
                shown = max(shown, len(found))
                print(
                    f"{done} of {len(todo)}, {len(found)} misses, {time.monotonic() - began:.0f} s",
                    end="\r" if _terminal() else "\n", file=sys.stderr, flush=True,
                )  # fmt: skip
        finally:
            stage.close()
    print(table(tallies))
    misses = sum(len(tally.misses) for tally in tallies.values())
    print(f"{misses} misses in {len(todo)} texts; {time.monotonic() - began:.0f} s")
    return 1 if misses else 0


if __name__ == "__main__":
    raise SystemExit(main())
