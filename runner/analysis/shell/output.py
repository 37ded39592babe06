"""What `echo`, `printf` and `cat` of a heredoc write, byte for byte, or nothing.

`runner.analysis.shell.fed` guesses, for advice. What is told here is what every shell that may run
the text writes; where they differ, or an escape is a rare one, nothing is told.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from runner.analysis.shell.shfmt import Node
from runner.model.intent import Word

WRITERS = frozenset({"echo", "printf", "cat"})
"""The commands that are understood: a function of such a name makes all of it unsure."""
_TEXT_LIMIT = 4096
"""Characters that a builtin writes at once, so that nobody can read half of them (setvbuf(3))."""
_FED_LIMIT = 64 * 1024
"""The same of cat(1), which copies blocks of 128 KiB, from a pipe of 64 KiB (pipe(7))."""
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\"}
_DIRECTIVE = re.compile(r"%(.?)", re.DOTALL)
_STDOUT, _STDERR, _STDIN = (None, "1"), ("2",), (None, "0")


def exact(words: Sequence[Word], stdin: Word | None, language: str) -> str | None:
    """What a command writes to its output, newline and all; None: it can't be told for sure."""
    if not words or any(word.dynamic for word in words):
        return None
    name, rest = words[0].text, [word.text for word in words[1:]]
    if name == "cat":
        known = stdin.text if stdin is not None and not stdin.dynamic else None
        return known if rest in ([], ["-"]) and len(known or "") <= _FED_LIMIT else None
    text = _echo(rest, language) if name == "echo" else _printf(rest) if name == "printf" else None
    return text if text is not None and text.isascii() and len(text) <= _TEXT_LIMIT else None


def _echo(words: list[str], language: str) -> str | None:
    end, escapes = "\n", False
    if words[:1] == ["-n"]:
        end, words = "", words[1:]
    elif words[:1] == ["-e"] and language == "bash":
        escapes, words = True, words[1:]
    text = " ".join(words)
    if words and words[0].startswith("-") and len(words[0]) > 1:
        return None  # an option to one shell and a word to another
    if "\\" not in text:
        return text + end
    return _unescaped(text + end) if escapes else None


def _printf(words: list[str]) -> str | None:
    """printf(1): the format is used again while there are arguments."""
    if words[:1] == ["--"]:
        words = words[1:]
    if not words or words[0].startswith("-"):
        return None
    form = _unescaped(words[0])
    arguments = words[1:]
    if form is None:
        return None
    directives = _DIRECTIVE.findall(form)
    if set(directives) - {"s", "%"}:
        return None
    taken = directives.count("s")
    rounds = -(-len(arguments) // taken) if taken and arguments else 1
    if rounds * len(form) > _TEXT_LIMIT:
        return None
    left = iter(arguments)
    return "".join(
        _DIRECTIVE.sub(lambda found: "%" if found[1] == "%" else next(left, ""), form)
        for _ in range(rounds)
    )


def _unescaped(text: str) -> str | None:
    """Without its escapes; None: one is not known, or would mean something else elsewhere."""
    if "\\" in _ESCAPE.sub("", text) or set(_ESCAPE.findall(text)) - set(_ESCAPES):
        return None
    return _ESCAPE.sub(lambda found: _ESCAPES[found[1]], text)


def written(redirects: Sequence[Node]) -> bool:
    """Whether a command writes all of its output, and nothing else, to one file made anew."""
    files = 0
    for each in redirects:
        operator, descriptor = each.get("Op"), (each.get("N") or {}).get("Value")
        if operator in (">", ">|") and descriptor in _STDOUT:
            files += 1
        elif not (operator in ("<<", "<<-", "<<<") and descriptor in _STDIN) and not (
            operator in (">", ">>", ">&") and descriptor in _STDERR
        ):
            return False
    return files == 1
