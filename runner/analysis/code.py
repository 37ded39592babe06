"""Commands in the text of languages that are not read: best effort, never complete.

`system("…")`, `exec('…')`, backquotes and awk's pipes with a literal command are found in Perl,
Ruby, JavaScript, PHP, Lua and awk. Finding nothing says nothing: the sandbox is the boundary.
"""

from __future__ import annotations

import re

# Bounds and possessive repeats keep the time in proportion to the text.
_STRING = r"""("(?:[^"\\]|\\.){0,2048}+"|'(?:[^'\\]|\\.){0,2048}+')"""
_CALL = re.compile(
    r"\b(?:system|exec|execSync|popen|passthru|shell_exec|proc_open|spawnSync?|qx)\s*+\(?+\s*+"
    + _STRING
)
_BACKQUOTE = re.compile(
    r"`([^`]{1,4096})`|%x[\[({]([^\])}]{1,4096})[\])}]|\bqx[\[({]([^\])}]{1,4096})[\])}]"
)
_PIPE = re.compile(r"\|\s*" + _STRING + r"|" + _STRING + r"\s*\|\s*getline")
_LIMIT = 64 * 1024


def commands(text: str, *, backquotes: bool) -> list[str]:
    """Literal shell commands in `text`; `backquotes`: whether they run something (Perl, Ruby)."""
    text = text[:_LIMIT]
    found = [_unquoted(match[1]) for match in _CALL.finditer(text)]
    if backquotes:
        found += [match[1] or match[2] or match[3] for match in _BACKQUOTE.finditer(text)]
    found += [_unquoted(match[1] or match[2]) for match in _PIPE.finditer(text)]
    return [command for command in found if command.strip()]


def _unquoted(literal: str) -> str:
    return re.sub(r"\\(.)", r"\1", literal[1:-1])
