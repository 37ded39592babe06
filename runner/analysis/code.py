"""Commands in the text of languages that are not parsed: best effort, never complete.

Perl, Ruby, PHP, Lua and awk, and Python or JavaScript that does not parse, are cut into strings,
names and signs; a name that starts processes with strings behind it is a command, as is what stands
in backquotes or behind a pipe. Finding nothing says nothing: the sandbox is the boundary. The time
grows with the text and no faster.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from runner.analysis.context import Call, Place, Readers
from runner.model.intent import Access, PathUse, Word

TEXT_LIMIT = 64 * 1024
_ARGUMENTS_LIMIT = 256
_PRINTED_LIMIT = 64
"""Parts of one print of awk's that are looked through."""


@dataclass(frozen=True, slots=True)
class _Language:
    """How a language writes what matters here."""

    starts: frozenset[str] = frozenset()
    """Functions that start a process: of one text by a shell, of several words as they are."""
    delete: frozenset[str] = frozenset()
    write: frozenset[str] = frozenset()
    comment: str = "#"
    expands: str = ""
    """What a string in double quotes expands by; empty: nothing."""
    concatenates: frozenset[str] = frozenset({"+"})
    backquotes: bool = False
    pipes: bool = False
    """`print | "cmd"`, `"cmd" | getline`."""


_LANGUAGES = {
    "perl": _Language(
        starts=frozenset({"system", "exec", "popen2", "popen3", "open2", "open3"}),
        delete=frozenset({"unlink", "rmdir", "rmtree", "remove_tree"}),
        write=frozenset({"mkdir", "truncate"}),
        expands="$@", concatenates=frozenset({"."}), backquotes=True,
    ),
    "ruby": _Language(
        starts=frozenset({"system", "exec", "spawn", "popen", "capture2", "capture2e", "capture3",
                         "popen2", "popen2e", "popen3", "pipeline"}),
        delete=frozenset({"delete", "unlink", "rm", "rm_rf", "rm_r", "rm_f", "rmtree", "rmdir",
                          "remove_dir", "remove_entry", "remove_entry_secure"}),
        write=frozenset({"write", "binwrite", "mkdir_p", "mkdir", "touch"}),
        expands="#", backquotes=True,
    ),
    "php": _Language(
        starts=frozenset({"system", "exec", "passthru", "shell_exec", "popen", "proc_open",
                         "pcntl_exec"}),
        delete=frozenset({"unlink", "rmdir"}), write=frozenset({"file_put_contents", "touch"}),
        expands="$", concatenates=frozenset({"."}), backquotes=True,
    ),
    "lua": _Language(
        starts=frozenset({"execute", "popen"}), delete=frozenset({"remove"}), comment="--",
        concatenates=frozenset({".."}),
    ),
    "awk": _Language(starts=frozenset({"system"}), concatenates=frozenset(), pipes=True),
    "r": _Language(
        starts=frozenset({"system", "system2", "shell", "pipe"}),
        delete=frozenset({"unlink", "remove"}), write=frozenset({"writeLines"}),
    ),
    "julia": _Language(backquotes=True),
    "applescript": _Language(starts=frozenset({"script", "system"}), comment="--"),
    "elisp": _Language(
        starts=frozenset({"command", "process", "term", "compile", "file"}), comment=";",
    ),
    "vim": _Language(
        starts=frozenset({"system", "systemlist", "termopen", "jobstart", "term_start",
                         "job_start"}),
        delete=frozenset({"delete"}), write=frozenset({"writefile"}), comment='\n"',
    ),
    "octave": _Language(starts=frozenset({"system", "unix", "popen", "exec"}), comment="%"),
    "node": _Language(
        starts=frozenset({"exec", "execSync", "spawn", "spawnSync", "execFile", "execFileSync",
                         "fork"}),
        delete=frozenset({"unlink", "unlinkSync", "rmSync", "rmdirSync"}),
        write=frozenset({"writeFileSync", "appendFileSync"}), comment="//",
    ),
    "python": _Language(
        starts=frozenset({"system", "popen", "run", "call", "check_call", "check_output", "Popen",
                         "getoutput", "getstatusoutput"}),
        delete=frozenset({"rmtree", "unlink", "remove"}),
    ),
}  # fmt: skip
_TOKEN = re.compile(
    r"(?P<space>[ \t\r]+)|(?P<line>\n)|(?P<name>[A-Za-z_][\w]*[!?]?)"
    r"|(?P<quote>[\"'`])|(?P<sign>\.\.|\|&|\|\||[^\w\s])|(?P<other>\w+)"
)
_BODIES = {quote: re.compile(rf"(?:[^{quote}\\]|\\.)*", re.DOTALL) for quote in "\"'`"}
_PAIRS = {"(": ")", "[": "]", "{": "}", "<": ">"}
_PERL_QUOTES = frozenset({"q", "qq", "qx", "qw"})
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "e": "\x1b"}
_CHARACTER = re.compile(
    r"\\(?:x([0-9A-Fa-f]{2})|x\{([0-9A-Fa-f]{1,5})\}|([0-7]{3})|(.))", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    """`string`, `command` (in backquotes), `name`, `sign`, `line` or `other`."""
    text: str
    line: int
    dynamic: int = -1
    """Where a string expands something; -1: it does not."""


def read_code(readers: Readers, language: str, text: Word, place: Place) -> None:
    """Note what the text of a language of `_LANGUAGES` is seen to do."""
    if text.dynamic:
        readers.found.construct(f"{language}:dynamic-code", replace(place, advice=True))
    read_calls(readers, language, text, place)


def read_calls(readers: Readers, language: str, text: Word, place: Place) -> None:
    """Note calls of a text as patterns find them."""
    known = _LANGUAGES.get(language)
    if known is None or not readers.found.affords(text.text[:TEXT_LIMIT]):
        return
    noting = _Noting(readers, language, replace(place, advice=True, language="sh"))
    if len(text.text) > TEXT_LIMIT:
        readers.found.construct(f"{language}:unreadable", noting.place)
    tokens = list(_tokens(text.text[:TEXT_LIMIT], language, known))
    for index, token in enumerate(tokens):
        if token.kind == "command":
            noting.shell(_word(token), token.line)
        elif token.kind == "name":
            _name(noting, known, tokens, index)
        elif token.kind == "sign" and known.pipes and token.text in ("|", "|&"):
            _pipe(noting, tokens, index)
        elif token.kind == "sign" and known.pipes and token.text == ">":
            _printed(noting, tokens, index)


class _Noting:
    """Where findings go."""

    def __init__(self, readers: Readers, language: str, place: Place) -> None:
        self.readers = readers
        self.language = language
        self.label = "javascript" if language == "node" else language
        self.place = place

    def at(self, line: int) -> Place:
        return replace(self.place, line=line) if self.place.depth <= 1 else self.place

    def construct(self, what: str, line: int) -> None:
        self.readers.found.construct(f"{self.label}:{what}", self.at(line))

    def shell(self, text: Word, line: int) -> None:
        self.construct("process", line)
        if text.dynamic and not re.match(r"\s*[\w./-]+\s", text.prefix):
            self.construct("dynamic-process", line)
        if text.text.strip():
            self.readers.shell(text, self.at(line))

    def words(self, words: list[Word], line: int) -> None:
        self.construct("process", line)
        self.readers.command(Call(tuple(words), self.at(line)))

    def path(self, path: Word, what: str, line: int) -> None:
        self.construct(what, line)
        self.readers.found.paths.append(PathUse(path, Access.WRITE))


def _name(noting: _Noting, known: _Language, tokens: list[_Token], index: int) -> None:
    token = tokens[index]
    if token.text == "open" and noting.language in ("perl", "ruby"):
        _open(noting, known, tokens, index)
        return
    used = token.text in known.starts or token.text in known.delete or token.text in known.write
    if not used:
        return
    if noting.language == "lua" and (index < 1 or tokens[index - 1].text != "."):
        return  # os.execute, os.remove
    words, complete = _arguments(known, tokens, index + 1)
    if not words:
        if token.text in known.starts and not complete:
            noting.construct("process", token.line)
            noting.construct("dynamic-process", token.line)
        return
    if token.text in known.delete | known.write:
        for word in words if token.text in known.delete else words[:1]:
            noting.path(word, "delete" if token.text in known.delete else "write", token.line)
    elif len(words) == 1 and complete:
        noting.shell(words[0], token.line)
    else:
        if not complete:
            # `exec("cmd", $output)` of PHP takes one text all the same.
            noting.shell(words[0], token.line)
        noting.words(words if complete else [*words, Word("…", dynamic=True)], token.line)


def _open(noting: _Noting, known: _Language, tokens: list[_Token], index: int) -> None:
    """`open(F, "cmd |")`, `open(F, "-|", "cmd", …)` of Perl; `open("| cmd")` of Ruby."""
    limit = min(len(tokens), index + 24)
    start = next((i for i in range(index + 1, limit) if tokens[i].kind == "string"), None)
    if start is None:
        return
    words, complete = _arguments(known, tokens, start)
    mode = words[0].text.strip() if words else ""
    if mode in ("-|", "|-"):
        rest = words[1:] if complete else [*words[1:], Word("…", dynamic=True)]
        if len(rest) == 1:
            noting.shell(rest[0], tokens[index].line)
        elif rest:
            noting.words(rest, tokens[index].line)
    elif mode.startswith("|"):
        noting.shell(_cut(words[0], words[0].text.index("|") + 1), tokens[index].line)
    elif mode.endswith("|") and not words[0].dynamic:
        noting.shell(Word(mode[:-1].strip()), tokens[index].line)
    elif mode in (">", ">>", "+<", "+>") and len(words) > 1:
        noting.path(words[1], "write", tokens[index].line)
    elif mode.startswith(">") and not words[0].dynamic:
        noting.path(Word(mode.lstrip(">").strip()), "write", tokens[index].line)


def _cut(word: Word, length: int) -> Word:
    if not word.dynamic:
        return Word(word.text[length:].strip())
    return replace(word, text=word.text[length:], prefix=word.prefix[length:].lstrip())


def _pipe(noting: _Noting, tokens: list[_Token], index: int) -> None:
    """awk: `print x | "cmd"`, `"cmd" | getline` (POSIX awk, "Output Statements")."""
    before = tokens[index - 1] if index else None
    after = tokens[index + 1] if index + 1 < len(tokens) else None
    if after is not None and after.kind == "string":
        noting.shell(_word(after), after.line)
    elif after is not None and after.text == "getline":
        if before is not None and before.kind == "string":
            noting.shell(_word(before), before.line)
        else:
            noting.construct("process", after.line)
            noting.construct("dynamic-process", after.line)


def _printed(noting: _Noting, tokens: list[_Token], index: int) -> None:
    """awk: `print x > "file"`; elsewhere than behind a print it compares."""
    after = next((t for t in tokens[index + 1 : index + 3] if t.text != ">"), None)
    if after is None or after.kind != "string":
        return
    for token in reversed(tokens[max(index - _PRINTED_LIMIT, 0) : index]):
        if token.kind == "line" or (token.kind == "sign" and token.text in ("{", "}", ";")):
            return
        if token.kind == "name" and token.text in ("print", "printf"):
            noting.path(_word(after), "write", after.line)
            return


def _arguments(known: _Language, tokens: list[_Token], index: int) -> tuple[list[Word], bool]:
    """Literal arguments from here on, and whether these are all."""
    words: list[Word] = []
    opened = False
    while (
        index < len(tokens)
        and tokens[index].text in ("(", "[", "{")
        and (tokens[index].kind == "sign")
    ):
        opened, index = True, index + 1
    while len(words) < _ARGUMENTS_LIMIT:
        while opened and index < len(tokens) and tokens[index].kind == "line":
            index += 1
        if index >= len(tokens) or tokens[index].kind != "string":
            nothing = index >= len(tokens) or tokens[index].text in (")", "]", ";", "\n", "}")
            return words, nothing and (bool(words) or opened)
        word, index, whole = _operand(known, tokens, index)
        words.append(word)
        if not whole:
            return words, False
        while opened and index < len(tokens) and tokens[index].kind == "line":
            index += 1
        if index < len(tokens) and tokens[index].text == "]" and opened:
            index += 1
        if index >= len(tokens) or tokens[index].text not in (",", "["):
            return words, True
        index += 1
        if index < len(tokens) and tokens[index].text == "[":
            index += 1
    return words, False


def _operand(known: _Language, tokens: list[_Token], index: int) -> tuple[Word, int, bool]:
    """Strings put together; False where something that is none is a part."""
    word = _word(tokens[index])
    index += 1
    while index < len(tokens):
        token = tokens[index]
        joins = token.kind == "sign" and token.text in known.concatenates
        if joins:
            index += 1
        elif not (token.kind == "string" and known.pipes):
            break  # only awk joins strings that stand side by side
        if index >= len(tokens) or tokens[index].kind != "string":
            prefix = word.prefix if word.dynamic else word.text
            return Word(prefix + "…", True, prefix, "", many=False), index, False
        word = _joined(word, _word(tokens[index]))
        index += 1
    return word, index, True


def _joined(left: Word, right: Word) -> Word:
    if not left.dynamic and not right.dynamic:
        return Word(left.text + right.text)
    prefix = left.prefix if left.dynamic else left.text + (
        right.prefix if right.dynamic else right.text)  # fmt: skip
    return Word(prefix + "…", True, prefix, "", many=False)


def _word(token: _Token) -> Word:
    if token.dynamic < 0:
        return Word(token.text)
    prefix = token.text[: token.dynamic]
    return Word(prefix + "…", True, prefix, "", many=False)


def _tokens(text: str, language: str, known: _Language) -> Iterator[_Token]:
    position, line = 0, 1
    # A quote that is not closed from one place on is not closed from any place behind it.
    open_quotes: set[str] = set()
    while position < len(text):
        if text.startswith(known.comment, position) and (
            position == 0 or text[position - 1] in " \t\n;{}("
        ):
            end = text.find("\n", position)
            position = len(text) if end < 0 else end
            continue
        match = _TOKEN.match(text, position)
        if match is None:
            position += 1
            continue
        kind = match.lastgroup or ""
        start, position = position, match.end()
        if kind == "quote":
            token, position = _quoted(text, start, line, language, known, open_quotes)
        else:
            token, position = _special(text, match, line, language, known, open_quotes)
        if token is not None:
            yield token
        line += text.count("\n", start, position)


def _quoted(  # noqa: PLR0917
    text: str, start: int, line: int, language: str, known: _Language, open_quotes: set[str]
) -> tuple[_Token | None, int]:
    quote = text[start]
    if quote in open_quotes or (quote == "'" and language == "awk"):
        return None, start + 1
    body = _BODIES[quote].match(text, start + 1)
    end = body.end() if body is not None else len(text)
    if end >= len(text):
        open_quotes.add(quote)
        return None, start + 1
    content = text[start + 1 : end]
    if quote == "`":
        if not known.backquotes:
            return _string("string", content, line, "$"), end + 1
        return _string("command", content, line, known.expands), end + 1
    return _string("string", content, line, known.expands if quote == '"' else ""), end + 1


def _special(  # noqa: PLR0917
    text: str,
    match: re.Match[str],
    line: int,
    language: str,
    known: _Language,
    open_quotes: set[str],
) -> tuple[_Token | None, int]:
    """Names and signs, and the quotes that are written with them."""
    found, kind, end = match[0], match.lastgroup or "", match.end()
    opening = -1
    command = False
    if language == "perl" and found in _PERL_QUOTES:
        opening, command = end, found == "qx"
    elif language == "ruby" and found == "%" and text[end : end + 1] in ("x", "q", "Q", "w"):
        opening, command = end + 1, text[end] == "x"
    elif language == "lua" and found == "[" and text.startswith("[", end):
        close = _closing(text, "]]", end, open_quotes)
        if close >= 0:
            return _Token("string", text[end + 1 : close].removeprefix("\n"), line), close + 2
    mark = text[opening : opening + 1] if opening >= 0 else ""
    if mark and not mark.isalnum() and mark not in " \t\n=,;_)":
        close = _closing(text, _PAIRS.get(mark, mark), opening + 1, open_quotes)
        if close >= 0:
            kind = "command" if command else "string"
            expands = "" if found == "q" else known.expands
            return _string(kind, text[opening + 1 : close], line, expands), close + 1
    if kind == "space":
        return None, end
    return _Token(kind, found, line), end


def _closing(text: str, mark: str, start: int, open_quotes: set[str]) -> int:
    """Where `mark` stands from `start` on; -1: nowhere, which is then so for all that follows."""
    close = -1 if f"close {mark}" in open_quotes else text.find(mark, start)
    if close < 0:
        open_quotes.add(f"close {mark}")
    return close


def _string(kind: str, content: str, line: int, expands: str) -> _Token:
    """A string's value; what it expands makes it dynamic from there on."""
    dynamic = -1
    pieces: list[str] = []
    size = position = 0
    for match in _CHARACTER.finditer(content):
        plain = content[position : match.start()]
        at = _expansion(plain, expands)
        if at >= 0:
            dynamic = size + at
            break
        value = _escaped(match)
        pieces += [plain, value]
        size += len(plain) + len(value)
        position = match.end()
    else:
        at = _expansion(content[position:], expands)
        dynamic = size + at if at >= 0 else -1
    text = "".join(pieces) + content[position:]
    return _Token(kind, text, line, dynamic)


def _expansion(text: str, expands: str) -> int:
    marks = {"#": r"#[{@$]", "$": r"\$[\w{(]", "$@": r"[$@][\w{]"}.get(expands)
    found = re.search(marks, text) if marks else None
    return found.start() if found else -1


def _escaped(match: re.Match[str]) -> str:
    if match[1] or match[2]:
        value = int(match[1] or match[2], 16)
        return chr(value) if value < 0xD800 else "?"
    if match[3]:
        return chr(int(match[3], 8))
    return _ESCAPES.get(match[4], match[4])
