"""What is noted of a text in another language, within bounds.

A finding is a plain dict that passes through JSON: `kind` is `shell`, `argv`, `path`, `host`,
`url`, `code`, `sql` or `construct`; a word is a list of `text, dynamic, prefix, suffix`.
"""

from __future__ import annotations

import ast
from typing import Any

from runner.analysis import values as pyvalue
from runner.analysis.values import REST, Value

Finding = dict[str, Any]
Word = list[Any]

FINDINGS_LIMIT = 10_000
TEXT_TOTAL_LIMIT = 1 << 20
"""Characters of all findings together."""


class FullError(Exception):
    """More was found than is kept."""


class Notes:
    """The findings of one text."""

    def __init__(self, language: str) -> None:
        self.findings: list[Finding] = []
        self._language = language
        self._noted: set[tuple[str, int]] = set()
        self._size = 0

    def keep(self, finding: Finding, size: int) -> None:
        """Keep a finding whose texts have `size` characters. FullError: it is one too many."""
        self._size += size + 16
        if len(self.findings) >= FINDINGS_LIMIT or self._size > TEXT_TOTAL_LIMIT:
            raise FullError
        self.findings.append(finding)

    def construct(self, name: str, line: int) -> None:
        """Note a construct, once a line."""
        if (name, line) not in self._noted:
            self._noted.add((name, line))
            self.keep(
                {"kind": "construct", "name": f"{self._language}:{name}", "line": line}, len(name)
            )

    def word(self, value: Value, node: ast.AST | None) -> Word:
        """A value as a word; an unknown one is shown by the kind of its expression."""
        text = pyvalue.text_of(value)
        if isinstance(text, str):
            return [text, False, "", ""]
        if value is REST:
            return ["…", True, "", ""]
        if not text.prefix and not text.suffix:
            shown = type(node).__name__.lower() if node is not None else "…"
            return [f"<{shown}>", True, "", ""]
        return [f"{text.prefix}…{text.suffix}", True, text.prefix, text.suffix]

    def add(self, kind: str, line: int, value: Value, node: ast.AST | None, **more: str) -> None:
        """Keep a finding of one word."""
        text, dynamic, prefix, suffix = self.word(value, node)
        size = len(text) + len(prefix) + len(suffix)
        self.keep({"kind": kind, "word": [text, dynamic, prefix, suffix], "line": line, **more},
                   size)  # fmt: skip
