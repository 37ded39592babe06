"""SQL text cut into tokens, as the dialect of its client does: strings, names, comments.

A tokenizer and no parser: what a statement does stands in its leading keywords, in every dialect.
Each character is looked at a bounded number of times.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

TEXT_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Dialect:
    """Where dialects differ in what is a string, a name or a comment."""

    backslash: bool = False
    """A backslash in a string escapes (MySQL, ClickHouse, BigQuery)."""
    dollar: bool = False
    """`$$…$$`, `$tag$…$tag$` are strings (PostgreSQL, DuckDB)."""
    hash_comment: bool = False
    executable_comment: bool = False
    """`/*! … */` is no comment (MySQL)."""
    nested_comment: bool = False
    double_is_string: bool = False
    brackets: bool = False
    """`[name]` (SQLite, SQL Server)."""
    triple: bool = False
    """Triple quotes, and strings with `r` and `b` in front (BigQuery)."""
    dashes_need_blank: bool = False
    """`--` opens a comment only with a blank behind it (MySQL)."""
    dot_commands: bool = False
    backslash_commands: bool = False
    words_commands: frozenset[str] = frozenset()
    """First words of a line that the client takes itself (mysql)."""


DIALECTS = {
    "psql": Dialect(dollar=True, nested_comment=True, backslash_commands=True),
    "mysql": Dialect(
        backslash=True, hash_comment=True, executable_comment=True, double_is_string=True,
        dashes_need_blank=True, backslash_commands=True,
        words_commands=frozenset({"SYSTEM", "SOURCE", "TEE", "PAGER", "EDIT"}),
    ),
    "sqlite3": Dialect(brackets=True, dot_commands=True),
    "duckdb": Dialect(dollar=True, nested_comment=True, dot_commands=True),
    "clickhouse": Dialect(backslash=True, hash_comment=True, nested_comment=True),
    "bq": Dialect(backslash=True, hash_comment=True, double_is_string=True, triple=True),
    "sqlcmd": Dialect(brackets=True, nested_comment=True),
    "sql": Dialect(brackets=True, dollar=True),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Token:
    """`word` (in capitals), `string`, `name` (quoted), `sign`, `end`, `hole` or `client`."""

    kind: str
    text: str
    depth: int = 0
    """Parentheses around it."""


@dataclass(slots=True)
class Tokens:
    """The tokens of a text."""

    tokens: list[Token]
    open_end: bool = False
    """It ends inside a string or a comment."""


_WORD = re.compile(r"[A-Za-z_\u0080-\uffff][\w$]*")
_NUMBER = re.compile(r"\d[\w.]*")
_DOLLAR = re.compile(r"\$(?:[A-Za-z_\u0080-\uffff]\w*)?\$")
_HOLE = re.compile(r"\$(?:[A-Za-z_]\w*|\d|[@*#?$!-]|\{[^}]*\}|\()|`")
_DELIMITER = re.compile(r"DELIMITER[ \t]+(\S{1,16})[^\n]*", re.IGNORECASE)
_COMMENT_MARK = re.compile(r"/\*|\*/")
_BLANK = re.compile(r"\s+")


class _Cutter:
    def __init__(self, text: str, dialect: Dialect, expanded: bool) -> None:
        self.text = text
        self.dialect = dialect
        self.expanded = expanded
        self.found = Tokens([])
        self.position = 0
        self.depth = 0
        self.fresh = True
        """Nothing of a statement stands here yet."""
        self.delimiter = ""

    def run(self) -> Tokens:
        while self.position < len(self.text):
            self._step()
        return self.found

    def _add(self, kind: str, text: str) -> None:
        self.found.tokens.append(Token(kind, text, self.depth))
        self.fresh = kind in ("end", "client")

    def _step(self) -> None:
        text, at = self.text, self.position
        blank = _BLANK.match(text, at)
        if blank is not None:
            self.position = blank.end()
        elif self._comment() or self._command() or self._quoted():
            return
        elif self.delimiter and text.startswith(self.delimiter, at):
            self.position += len(self.delimiter)
            self._end()
        elif self.expanded and (hole := _HOLE.match(text, at)):
            self.position = self._behind_hole(hole)
            self._add("hole", hole[0])
        elif word := _WORD.match(text, at):
            self.position = word.end()
            self._add("word", word[0].upper())
        elif number := _NUMBER.match(text, at):
            self.position = number.end()
            self._add("sign", number[0])
        else:
            self._sign(text[at])

    def _sign(self, sign: str) -> None:
        self.position += 1
        if sign == ";" and not self.delimiter:
            self._end()
            return
        if sign == ")":
            self.depth = max(self.depth - 1, 0)
        self._add("sign", sign)
        if sign == "(":
            self.depth += 1

    def _end(self) -> None:
        self.depth = 0
        self._add("end", ";")

    def _behind_hole(self, hole: re.Match[str]) -> int:
        close = {"$(": ")", "`": "`"}.get(hole[0])
        end = self.text.find(close, hole.end()) if close else -1
        return end + 1 if end >= 0 else hole.end()

    def _comment(self) -> bool:
        text, at, dialect = self.text, self.position, self.dialect
        if text.startswith("--", at):
            after = text[at + 2 : at + 3]
            if dialect.dashes_need_blank and after and not after.isspace():
                return False
            self._to_line_end()
        elif text.startswith("#", at) and dialect.hash_comment:
            self._to_line_end()
        elif text.startswith("/*", at):
            if dialect.executable_comment and text[at + 2 : at + 3] in ("!", "M"):
                mark = re.compile(r"/\*M?!\d*").match(text, at)
                if mark is not None:
                    self.position = mark.end()  # what stands in it is run
                    return True
            self._block_comment()
        elif text.startswith("*/", at) and dialect.executable_comment:
            self.position += 2
        else:
            return False
        return True

    def _to_line_end(self) -> None:
        end = self.text.find("\n", self.position)
        self.position = len(self.text) if end < 0 else end

    def _block_comment(self) -> None:
        depth = 0
        for mark in _COMMENT_MARK.finditer(self.text, self.position):
            depth += 1 if mark[0] == "/*" and (self.dialect.nested_comment or depth == 0) else 0
            depth -= 1 if mark[0] == "*/" else 0
            if depth <= 0:
                self.position = mark.end()
                return
        self.position = len(self.text)
        self.found.open_end = True

    def _command(self) -> bool:  # noqa: PLR0911
        """What the client itself takes: `\\! ls`, `.shell ls`, `system ls`, `DELIMITER //`."""
        text, at, dialect = self.text, self.position, self.dialect
        if dialect.backslash_commands and text[at] == "\\":
            end = text.find("\n", at)
            end = len(text) if end < 0 else end
            if text[at + 1 : at + 2] in "gG" and text[at + 1 : end].strip() in ("g", "G", "gx"):
                self.position = end
                self._end()
                return True
            self.position = end
            self._add("client", text[at:end])
            return True
        if not self.fresh or not self._at_line_start():
            return False
        if dialect.dot_commands and text[at] == ".":
            self._to_line_end()
            self._add("client", text[at : self.position])
            return True
        if dialect.words_commands and (word := _WORD.match(text, at)):
            delimiter = _DELIMITER.match(text, at)
            if delimiter is not None:
                self.delimiter = "" if delimiter[1] == ";" else delimiter[1]
                self.position = delimiter.end()
                return True
            if word[0].upper() in dialect.words_commands:
                self._to_line_end()
                self._add("client", text[at : self.position])
                return True
        return False

    def _at_line_start(self) -> bool:
        before = self.position - 1
        while before >= 0 and self.text[before] in " \t" and self.position - before < 64:
            before -= 1
        return before < 0 or self.text[before] in "\n;"

    def _quoted(self) -> bool:
        text, at, dialect = self.text, self.position, self.dialect
        mark = text[at]
        if dialect.dollar and mark == "$" and (tag := _DOLLAR.match(text, at)):
            self._until(tag[0], at + len(tag[0]))
        elif mark in "eE" and text.startswith("'", at + 1) and dialect.dollar:
            self._string("'", at + 2, backslash=True, kind="string")
        elif dialect.triple and text.startswith(('"""', "'''"), at):
            self._until(mark * 3, at + 3)
        elif dialect.triple and mark in "rRbB" and text[at + 1 : at + 2] in ("'", '"'):
            raw = mark in "rR"
            self._string(text[at + 1], at + 2, backslash=not raw, kind="string")
        elif mark == "'":
            self._string("'", at + 1, backslash=dialect.backslash, kind="string")
        elif mark == '"':
            kind = "string" if dialect.double_is_string else "name"
            self._string('"', at + 1, backslash=dialect.backslash, kind=kind)
        elif mark == "`" and not self.expanded:
            self._string("`", at + 1, backslash=False, kind="name")
        elif mark == "[" and dialect.brackets:
            self._string("]", at + 1, backslash=False, kind="name")
        else:
            return False
        return True

    def _until(self, close: str, start: int) -> None:
        end = self.text.find(close, start)
        if end < 0:
            self.found.open_end = True
            end = len(self.text)
        self.position = min(end + len(close), len(self.text))
        self._add("string", self.text[start:end])

    def _string(self, quote: str, start: int, *, backslash: bool, kind: str) -> None:
        pieces = []
        at = start
        marks = re.compile(rf"[{re.escape(quote)}\\]" if backslash else re.escape(quote))
        while True:
            mark = marks.search(self.text, at)
            if mark is None:
                self.found.open_end = True
                pieces.append(self.text[at:])
                self.position = len(self.text)
                break
            pieces.append(self.text[at : mark.start()])
            after = self.text[mark.end() : mark.end() + 1]
            if mark[0] == "\\":
                pieces.append({"n": "\n", "t": "\t", "r": "\r", "0": "\0"}.get(after, after))
                at = mark.end() + 1
            elif after == quote:  # doubled: one of it
                pieces.append(quote)
                at = mark.end() + 1
            else:
                self.position = mark.end()
                break
        self._add(kind, "".join(pieces))


def cut(text: str, dialect: Dialect, *, expanded: bool = False) -> Tokens:
    """The tokens of `text`; `expanded`: a shell puts something where `$x` stands."""
    return _Cutter(text, dialect, expanded).run()
