"""What SQL statements do, told by their keywords, whatever the dialect."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from runner.analysis.sql.tokens import Token

_VERBS = frozenset(
    {"SELECT", "INSERT", "REPLACE", "UPDATE", "DELETE", "MERGE", "UPSERT", "TRUNCATE", "DROP",
     "ALTER", "CREATE", "GRANT", "REVOKE", "COPY", "LOAD", "ATTACH", "DETACH", "PRAGMA", "SET",
     "RESET", "SHOW", "DESCRIBE", "DESC", "USE", "VACUUM", "ANALYZE", "REINDEX", "OPTIMIZE",
     "LOCK", "UNLOCK", "BEGIN", "START", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "KILL",
     "SHUTDOWN", "EXECUTE", "EXEC", "PREPARE", "DEALLOCATE", "CALL", "DO", "DECLARE", "FETCH",
     "VALUES", "TABLE", "RENAME", "INSTALL", "EXPORT", "IMPORT", "BACKUP", "RESTORE", "FLUSH",
     "PURGE", "COMMENT", "REFRESH", "CLUSTER", "NOTIFY", "LISTEN", "DISCARD", "REASSIGN",
     "SECURITY", "HANDLER", "CHECKPOINT", "SYSTEM", "UNDROP", "PERFORM"}
)  # fmt: skip
_NO_COLUMN = frozenset(
    {"CONSTRAINT", "INDEX", "KEY", "PRIMARY", "FOREIGN", "CHECK", "DEFAULT", "NOT", "EXPRESSION",
     "IDENTITY", "PROJECTION", "TRIGGER", "STATISTICS", "PERIOD", "SYSTEM"}
)  # fmt: skip
_KINDS_OF_OBJECT = frozenset(
    {"TABLE", "DATABASE", "SCHEMA", "VIEW", "INDEX", "USER", "ROLE", "FUNCTION", "PROCEDURE",
     "TRIGGER", "EXTENSION", "SEQUENCE", "TYPE", "DOMAIN", "POLICY", "SERVER", "TABLESPACE",
     "PUBLICATION", "SUBSCRIPTION", "EVENT", "LANGUAGE", "AGGREGATE", "OWNED", "DICTIONARY",
     "RULE", "OPERATOR", "CAST", "COLLATION", "CONVERSION", "SYSTEM", "LOGIN", "MODEL",
     "SNAPSHOT", "PARTITION", "KEYSPACE", "MACRO", "SECRET", "GROUP", "ROUTINE"}
)  # fmt: skip
_FILE_FUNCTIONS = {
    "PG_READ_FILE": "read", "PG_READ_BINARY_FILE": "read", "PG_LS_DIR": "read",
    "PG_STAT_FILE": "read", "LO_IMPORT": "read", "LO_EXPORT": "write", "LOAD_FILE": "read",
    "LOAD_EXTENSION": "load", "READFILE": "read", "WRITEFILE": "write", "READ_CSV": "read",
    "READ_CSV_AUTO": "read", "READ_PARQUET": "read", "READ_JSON": "read", "READ_TEXT": "read",
    "READ_BLOB": "read", "PARQUET_SCAN": "read", "FILE": "read", "SYS_EXEC": "shell",
    "SYS_EVAL": "shell", "XP_CMDSHELL": "shell", "EXECUTABLE": "shell",
}  # fmt: skip
"""Functions by whose first text a file is read or written, or a command run."""
_UNTRUSTED_LANGUAGE = re.compile(r"PL(?:PYTHON[23]?U|PERLU|TCLU|SH|RUBY|JAVAU?|R)|C|INTERNAL")
_NESTED_IN = frozenset({"(", "THEN", "ELSE", "LOOP", "BEGIN", "DO", "AS"})
_OF_ROWS = {"INSERT": "DO", "MERGE": "THEN"}
"""`ON CONFLICT DO UPDATE`, `WHEN MATCHED THEN DELETE`: of the rows that were found, not of all."""
_NESTED_LIMIT = 256
"""Statements inside one statement."""


class Statements:
    """Reads statements; what is found goes where who inherits from this puts it."""

    def construct(self, what: str, *, sure: bool = True) -> None:
        """Note what a statement does; not `sure`: as advice."""
        raise NotImplementedError

    def nested(self, text: str) -> None:
        """Read a text that is run as SQL."""
        raise NotImplementedError

    def python(self, text: str) -> None:
        """Read the Python text of a function."""
        raise NotImplementedError

    def command(self, text: str | None) -> None:
        """Note a command that the server runs; None: it can't be told."""
        raise NotImplementedError

    def path(self, text: str, use: str) -> None:
        """Note a path that the server reads or writes."""
        raise NotImplementedError

    def file(self, rest: list[Token], use: str) -> None:
        """Note the first string of what follows as a path, and that it is used."""
        text = text_of(rest)
        self.construct(f"{use}-file")
        if text is not None:
            self.path(text, use)

    def statement(self, tokens: list[Token]) -> None:
        """Read one statement."""
        if not tokens:
            return
        start = self._start(tokens)
        if start < len(tokens) and tokens[start].text == "WITH":
            start = _main_verb(tokens, start)
        if start >= len(tokens):
            return
        if tokens[start].kind == "hole":
            self.construct("dynamic", sure=False)
            return
        self._verb(tokens, start)
        nested = 0
        for index, token in enumerate(tokens[1:], start=1):
            before = tokens[index - 1]
            if token.kind != "word" or index == start:
                continue
            if token.text in ("DELETE", "UPDATE", "INSERT", "MERGE") and (
                before.text in _NESTED_IN
                and before.kind in ("sign", "word")
                and before.text != _OF_ROWS.get(tokens[start].text)
            ):
                # Inside another: `WITH a AS (DELETE …)`, the body of a trigger.
                nested += 1
                if nested > _NESTED_LIMIT:
                    self.construct("unreadable")
                    break
                self._verb(tokens, index)
            elif token.text in ("EXECUTE", "IMMEDIATE"):
                self._executed(tokens, index)
        self._functions(tokens)

    def _start(self, tokens: list[Token]) -> int:
        """Where the statement's verb stands, behind `EXPLAIN ANALYZE` and parentheses."""
        index = 0
        while index < len(tokens) and (
            tokens[index].text in ("(", "EXPLAIN", "VERBOSE", "ANALYZE", "BEGIN", "ATOMIC", ":")
            or (index and tokens[index - 1].text == "EXPLAIN" and tokens[index].text == "QUERY")
            or (index and tokens[index - 1].text == "QUERY" and tokens[index].text == "PLAN")
        ):
            if tokens[index].text == "ANALYZE" and index == 0:
                return 0
            index += 1
        return index if index < len(tokens) else 0

    def _verb(self, tokens: list[Token], index: int) -> None:
        verb = tokens[index].text if tokens[index].kind == "word" else ""
        rest = _inside(tokens, index)
        words = [token.text if token.kind == "word" else "" for token in rest]
        step = self._STEPS.get(verb)
        if step is not None:
            step(self, rest, words)
        elif verb in _VERBS:
            self.construct(verb.lower())
        elif verb == "END":
            return  # of a block
        else:
            self.construct("other")

    def _select(self, rest: list[Token], words: list[str]) -> None:
        self.construct("select")
        for index, word in enumerate(words):
            if word in ("OUTFILE", "DUMPFILE"):
                self.file(rest[index + 1 :], "write")

    def _replace(self, rest: list[Token], words: list[str]) -> None:  # noqa: ARG002
        self.construct("insert")

    def _delete(self, rest: list[Token], words: list[str]) -> None:
        self._changes("delete", rest, words)

    def _update(self, rest: list[Token], words: list[str]) -> None:
        self._changes("update", rest, words)

    def _changes(self, what: str, rest: list[Token], words: list[str]) -> None:
        """A `WHERE` that is always true is none."""
        self.construct(what)
        depth = rest[0].depth
        where = next(
            (i for i, w in enumerate(words) if w == "WHERE" and rest[i].depth == depth), None
        )
        if where is not None:
            if _always_true(rest[where + 1 :], depth):
                self.construct(f"{what}-without-where")
        elif not any(token.kind == "hole" for token in rest):
            self.construct(f"{what}-without-where")

    def _drop(self, rest: list[Token], words: list[str]) -> None:  # noqa: ARG002
        self.construct(f"drop-{_object(words)}")

    def _create(self, rest: list[Token], words: list[str]) -> None:
        kind = _object(words)
        self.construct(f"create-{kind}")
        if kind not in ("function", "procedure", "trigger", "event"):
            return
        places = [i for i, word in enumerate(words[:-1]) if word == "LANGUAGE"]
        language = rest[places[-1] + 1].text.upper() if places else "SQL"
        if _UNTRUSTED_LANGUAGE.fullmatch(language):
            self.construct("untrusted-language")
        read = self.nested if language in ("SQL", "PLPGSQL") else None
        if language.startswith("PLPYTHON"):
            read = self.python
        for token in rest:
            if token.kind == "string" and len(token.text) > 6 and read is not None:
                read(token.text)

    def _alter(self, rest: list[Token], words: list[str]) -> None:
        kind = _object(words)
        self.construct(f"alter-{kind}")
        if kind != "table":
            return
        for index, word in enumerate(words):
            following = words[index + 1] if index + 1 < len(words) else ""
            if word == "DROP" and following == "PARTITION":
                self.construct("alter-drop-partition")
            elif word == "DROP" and index > 1 and following not in _NO_COLUMN:
                self.construct("alter-drop-column")
            elif word in ("DELETE", "UPDATE") and index > 1:
                self._changes(word.lower(), rest[index:], words[index:])  # ClickHouse
                return

    def _copy(self, rest: list[Token], words: list[str]) -> None:
        self.construct("copy")
        depth = rest[0].depth
        for index, word in enumerate(words[:-1]):
            if rest[index].depth != depth or word not in ("TO", "FROM"):
                continue
            if words[index + 1] == "PROGRAM":
                self.construct("copy-program")
                self.command(text_of(rest[index + 2 :]))
            elif rest[index + 1].kind == "string":
                self.construct("write-file" if word == "TO" else "read-file")
                self.path(rest[index + 1].text, "write" if word == "TO" else "read")

    def _load(self, rest: list[Token], words: list[str]) -> None:
        if "INFILE" in words:
            self.construct("load")
            self.file(rest[words.index("INFILE") + 1 :], "read")
        else:
            self.construct("load-extension")

    def _attach(self, rest: list[Token], words: list[str]) -> None:  # noqa: ARG002
        self.construct("attach")
        self.file(rest, "write")

    def _vacuum(self, rest: list[Token], words: list[str]) -> None:
        self.construct("vacuum")
        if "INTO" in words:
            self.file(rest[words.index("INTO") :], "write")

    def _do(self, rest: list[Token], words: list[str]) -> None:  # noqa: ARG002
        self.construct("do")
        for token in rest:
            if token.kind == "string":
                self.nested(token.text)

    def _execute(self, rest: list[Token], words: list[str]) -> None:
        self.construct("execute")
        if "XP_CMDSHELL" in words:
            self.command(text_of(rest))
        else:
            self._executed(rest, 0)

    def _executed(self, tokens: list[Token], index: int) -> None:
        """Text that is run as SQL: read where it is a constant."""
        following = tokens[index + 1 : index + 4]
        if following and following[0].text in ("FUNCTION", "PROCEDURE", "ON"):
            return  # of a trigger, of a grant
        text = next((token for token in following if token.kind == "string"), None)
        if text is not None:
            self.nested(text.text)
        if text is None or any(token.text == "|" for token in tokens[index : index + 6]):
            self.construct("dynamic", sure=False)

    def _prepare(self, rest: list[Token], words: list[str]) -> None:
        self.construct("prepare")
        for mark in ("AS", "FROM"):
            if mark in words:
                index = words.index(mark)
                text = text_of(rest[index + 1 : index + 2])
                if text is not None:
                    self.nested(text)
                elif mark == "AS":
                    self.statement(rest[index + 1 :])
                return

    _STEPS: ClassVar[dict[str, Any]] = {
        "SELECT": _select, "DELETE": _delete, "UPDATE": _update, "DROP": _drop,
        "CREATE": _create, "ALTER": _alter, "COPY": _copy, "LOAD": _load, "ATTACH": _attach,
        "VACUUM": _vacuum, "DO": _do, "EXECUTE": _execute, "EXEC": _execute,
        "PREPARE": _prepare, "REPLACE": _replace,
    }  # fmt: skip

    def _functions(self, tokens: list[Token]) -> None:
        for index, token in enumerate(tokens[:-1]):
            if token.kind != "word" or tokens[index + 1].text != "(":
                continue
            what = _FILE_FUNCTIONS.get(token.text)
            if what is None:
                continue
            argument = tokens[index + 2 : index + 3]
            if token.text == "LO_EXPORT":
                argument = [t for t in tokens[index + 2 : index + 8] if t.kind == "string"]
            text = text_of(argument)
            if what == "shell":
                self.command(text)
            elif what == "load":
                self.construct("load-extension")
            elif text is not None:
                self.construct(f"{what}-file")
                self.path(text, what)


def _main_verb(tokens: list[Token], start: int) -> int:
    """Where the verb behind `WITH a AS (…), b AS (…)` stands."""
    depth = tokens[start].depth
    for index in range(start + 1, len(tokens)):
        token = tokens[index]
        if token.depth == depth and token.kind == "word" and token.text in (
            "SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "VALUES", "TABLE", "REPLACE"
        ):  # fmt: skip
            return index
    return len(tokens)


def _inside(tokens: list[Token], start: int) -> list[Token]:
    """From a verb to the end of the parentheses that it stands in."""
    depth = tokens[start].depth
    for index in range(start + 1, len(tokens)):
        if tokens[index].depth < depth:
            return tokens[start:index]
    return tokens[start:]


def _object(words: list[str]) -> str:
    """The kind of thing that `DROP`, `CREATE` or `ALTER` is about."""
    for word in words[1:8]:
        if word in _KINDS_OF_OBJECT:
            return word.lower()
        if word in ("AS", "SELECT", "("):
            break
    return "other"


def _always_true(condition: list[Token], depth: int) -> bool:
    texts = []
    for token in condition:
        if token.depth <= depth and token.text in ("LIMIT", "ORDER", "RETURNING"):
            break
        if token.text not in ("(", ")"):
            texts.append((token.kind, token.text))
    if len(texts) == 1:
        kind, text = texts[0]
        return text == "TRUE" or (kind == "sign" and text.isdigit() and int(text[:20]) != 0)
    if len(texts) == 3 and texts[1][1] in ("=", "LIKE", "IS"):
        return texts[0] == texts[2]
    return False


def text_of(tokens: list[Token]) -> str | None:
    """The first string among tokens."""
    return next((token.text for token in tokens if token.kind == "string"), None)
