"""Which files a command may write, by its redirections and its words."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass

from runner.analysis.context import Collector, is_glob
from runner.model.intent import Access, PathUse, SimpleCommand, Word

_OPERANDS = frozenset(
    {"cp", "mv", "ln", "link", "install", "rsync", "scp", "tee", "sponge", "dd", "truncate",
     "shred", "patch", "ed", "ex", "vi", "vim", "nvim", "nano", "emacs", "mkfifo", "mknod",
     "sftp", "dos2unix", "unix2dos", "recode", "xxd", "uudecode", "gcp", "gmv", "fallocate",
     "logsave", "pax", "csplit"}
)  # fmt: skip
"""What may write any file that it names."""
_IN_PLACE = {
    "sed": r"-[nErszu]*i.*|--in-place.*", "gsed": r"-[nErszu]*i.*|--in-place.*",
    "perl": r"-[A-Za-z0]*i.*", "ruby": r"-[A-Za-z0]*i.*", "awk": r"inplace", "gawk": r"inplace",
    "yq": r"-\w*i\w*|--inplace", "clang-format": r"-i", "black": r".*", "gofmt": r"-w",
}  # fmt: skip
"""What changes the files that it names when an option says so."""
_SED, _AWK = re.compile(r"w\s+([^\s;}]+)"), re.compile(r">\s*\"([^\"]+)\"")
_IN_TEXT = {"sed": _SED, "gsed": _SED, "awk": _AWK, "gawk": _AWK, "mawk": _AWK, "nawk": _AWK}
"""What names files to write in a text of its own."""
_PACKED = {
    "gunzip": "gz", "gzip": "gz", "bunzip2": "bz2", "bzip2": "bz2", "unxz": "xz", "xz": "xz",
    "unzstd": "zst", "zstd": "zst", "unlzma": "lzma", "uncompress": "Z", "lz4": "lz4",
    "unlz4": "lz4", "gpg": "gpg", "brotli": "br", "lzip": "lz",
}  # fmt: skip
"""What may leave the file without that ending."""
_DOWNLOADERS = {"curl": r"-[A-Za-z]*[OJ][A-Za-z]*|--remote-.*", "wget": "", "wget2": "",
                "aria2c": "", "axel": "", "lwp-download": "", "fetch": ""}  # fmt: skip
"""What writes a file named as the URL ends; a pattern: only with such an option."""
_ANY = frozenset({"rename", "prename", "mmv", "qmv", "vidir", "split", "uudecode"})
"""What writes files by names that it makes."""
_UNPACKERS = frozenset(
    {"tar", "bsdtar", "unzip", "cpio", "7z", "7za", "7zr", "unrar", "ar", "unar", "jar", "shar",
     "unsquashfs", "debugfs"}
)  # fmt: skip
"""What writes files that an archive names: a doubt, since what is in most was never here."""
_COMPILERS = re.compile(
    r"(?:.*-)?(?:cc|c\+\+|gcc|g\+\+|clang|clang\+\+|ld|as|nasm|rustc|go|javac|tsc|ghc|zig|gfortran|"
    r"dmd|fpc|nim|v|swiftc|ocamlfind|ocamlopt|mono|mcs|make|cmake)(?:-\d+)?"
)
_NO_OUTPUT = frozenset({"set", "shopt", "ps", "grep", "egrep", "fgrep", "find", "ls", "ssh", "test",
                        "[", "mount", "chown", "useradd", "bash", "sh", "echo",
                        "printf"})  # fmt: skip
"""Commands whose `-o` names no file."""
_OUTPUT = re.compile(r"(?:-[A-Za-z]*[oO]|--?out|--?output(?:-document|-file)?|-outfile)(?:=(.+))?")
_OPTION_LIMIT = 64
_ATTACHED = re.compile(r"(?s)-[A-Za-z]*?[oO](?P<short>[^=\s-].*)|(?:of|out|output)=(?P<long>.+)")
_WITH_ANY_NAME = frozenset({"curl", "wget", "wget2", "aria2c", "sort", "openssl", "gpg", "shuf"})
_DEVICES = re.compile(r"/dev/(?!shm/).*|/proc/(?:self/|\d+/)?fd/.*")


@dataclass(frozen=True, slots=True)
class Name:
    """The last name of a path: all of it, or no more than how it ends."""

    exact: str | None
    suffix: str

    @classmethod
    def of(cls, path: Word) -> Name:
        """The name at the end of a path."""
        if path.dynamic:
            _, slash, last = path.suffix.rstrip("/").rpartition("/")
            return cls(last if slash and not is_glob(path) else None, last)
        last = posixpath.basename(path.text.rstrip("/"))
        return cls(last, last)

    def may_be(self, other: Name) -> bool:
        """Whether both can be one name."""
        if self.exact is not None:
            if other.exact is not None:
                return self.exact == other.exact
            return self.exact.endswith(other.suffix)
        if other.exact is not None:
            return other.exact.endswith(self.suffix)
        return self.suffix.endswith(other.suffix) or other.suffix.endswith(self.suffix)


@dataclass(frozen=True, slots=True)
class Writer:
    """Something that may write a file of this name."""

    name: Name
    content: str | None
    """What it writes, where that is sure and all of the file."""
    redirects: tuple[PathUse, ...] = ()
    """When it is one of these: a command that has the very same ran what was there before."""
    sure: bool = True
    program: bool = False
    """It writes a program in the machine's code, most likely."""
    elsewhere: bool = False
    """Not into the folder that the text is in."""

    def is_of(self, redirects: tuple[PathUse, ...]) -> bool:
        """Whether it is one of a command's own redirections."""
        return bool(self.redirects) and self.redirects is redirects


def writers(found: Collector) -> list[Writer]:
    """All of a request."""
    every = [
        Writer(Name.of(use.path), None, elsewhere=True, sure=_known(use.path))
        for use in found.paths
        if use.access is Access.WRITE
    ]
    for command in found.commands:
        for use in command.redirects:
            if use.access is Access.WRITE and _is_file(use.path):
                key = (command.via, command.words, command.redirects)
                every.append(_writer(use.path, command, found.contents.get(key), own=True))
        if command.words and not command.words[0].dynamic:
            every += _of_words(command)
    return every


def _known(path: Word) -> bool:
    return not path.dynamic or bool(path.suffix)


def _is_file(path: Word) -> bool:
    return bool(path.text) and not (not path.dynamic and _DEVICES.fullmatch(path.text))


def _writer(
    path: Word,
    command: SimpleCommand,
    content: str | None = None,
    *,
    program: bool = False,
    own: bool = False,
) -> Writer:
    return Writer(
        Name.of(path),
        content,
        redirects=command.redirects if own else (),
        sure=not command.doubtful,
        program=program,
        elsewhere=path.dynamic or "/" in path.text,
    )


def _of_words(command: SimpleCommand) -> Iterator[Writer]:
    base = posixpath.basename(command.words[0].text)
    words = command.words[1:]
    for path, program in _outputs(base, words):
        if _is_file(path):
            yield _writer(path, command, program=program)
    if base in _ANY and not any(word.text.startswith("--filter") for word in command.words):
        yield Writer(Name(None, ""), None)
    elif base in _UNPACKERS or (base == "git" and any(w.text == "clone" for w in words)):
        yield Writer(Name(None, ""), None, sure=False)


def _outputs(base: str, words: tuple[Word, ...]) -> Iterator[tuple[Word, bool]]:
    """What a command's words name as its output; whether that is a program."""
    operands = [w for w in words if w.dynamic or not w.text.startswith("-")]
    pattern = _IN_PLACE.get(base)
    if base in _OPERANDS or (pattern and _has(words, pattern)):
        yield from ((_without(word, "of="), False) for word in operands)
    yield from ((name, False) for name in _in_text(base, words))
    if base == "script":
        yield from ((word, False) for word in operands[-1:])
    if base in _PACKED:
        yield from ((_stripped(word, "." + _PACKED[base]), False) for word in operands)
    if base in _DOWNLOADERS:
        pattern = _DOWNLOADERS[base]
        named = any(_OUTPUT.fullmatch(w.text) and "o" in w.text.lower() for w in words)
        if _has(words, pattern) if pattern else not named:
            yield from ((_last(word), False) for word in operands)
    if base in _NO_OUTPUT:
        return
    program = _COMPILERS.fullmatch(base) is not None
    for word, following in zip(words, (*words[1:], None), strict=False):
        if word.dynamic:
            continue
        option, attached = _OUTPUT.fullmatch(word.text), _ATTACHED.fullmatch(word.text)
        if option and option[1]:
            yield Word(option[1]), program
        elif option and following is not None and (not following.dynamic or base in _WITH_ANY_NAME):
            yield following, program
        elif attached:
            yield Word(attached["short"] or attached["long"]), program


def _has(words: tuple[Word, ...], pattern: str) -> bool:
    """Whether an option is among the words; a long one is none, and would take a pattern's time."""
    return any(len(w.text) <= _OPTION_LIMIT and re.fullmatch(pattern, w.text) for w in words)


def _in_text(base: str, words: tuple[Word, ...]) -> Iterator[Word]:
    """Files that a text among the words names."""
    pattern = _IN_TEXT.get(base)
    if pattern is None:
        return
    for word in words:
        yield from (Word(name) for name in pattern.findall(word.text))


def _without(word: Word, head: str) -> Word:
    return word if word.dynamic else Word(word.text.removeprefix(head).rpartition(":")[2])


def _stripped(word: Word, ending: str) -> Word:
    if word.dynamic:
        return Word(word.text, dynamic=True)
    return Word(word.text.removesuffix(ending))


def _last(url: Word) -> Word:
    # A `?` is a glob of one character to the shell; as good as never does it match.
    return url if url.dynamic and not is_glob(url) else Word(re.split("[?#]", url.text)[0])
