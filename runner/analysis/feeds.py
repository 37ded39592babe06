"""Where a text that a shell runs comes from: over the network, out of an encoding, through a pipe.

It only names constructs (`shell:pipe-to-shell`, `shell:download-to-shell`,
`shell:encoded-to-shell`): nothing here makes a command known.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

from runner.analysis.context import NOTHING, Call, Collector, FileRun, Place, Readers
from runner.model.intent import Access, SimpleCommand, Word

PIPE = frozenset({"pipe"})
DOWNLOAD = frozenset({"download"})
ENCODED = frozenset({"encoded"})
SUBSTITUTION = frozenset({"substitution"})
"""A literal text with a `$(…)` in it, which runs where a subscript is evaluated."""

_DOWNLOADERS = frozenset(
    {"curl", "wget", "wget2", "fetch", "aria2c", "axel", "http", "https", "xh", "lwp-download",
     "lwp-request", "GET", "lynx", "w3m", "links", "elinks", "nc", "ncat", "netcat", "socat", "ftp",
     "tftp", "lftp", "scp", "sftp", "rsync", "ssh", "telnet", "dig", "nslookup", "host", "drill",
     "curlie", "gsutil", "s3cmd", "rclone"}
)  # fmt: skip
_DECODERS = frozenset(
    {"uudecode", "gunzip", "zcat", "bunzip2", "bzcat", "unxz", "xzcat", "unlzma", "unzstd",
     "zstdcat", "lz4cat", "brotli", "unbrotli", "uncompress", "rev", "base64dec", "unzip", "funzip"}
)  # fmt: skip
_DECODING = {
    "base64": r"-\w*[dD]\w*|--d.*", "gbase64": r"-\w*[dD]\w*|--d.*",
    "base32": r"-\w*[dD]\w*|--d.*", "basenc": r"-\w*[dD]\w*|--d.*",
    "xxd": r"-\w*r\w*", "openssl": r"-d|base64|enc", "gzip": r"-\w*d\w*|--d.*|--unc.*",
    "bzip2": r"-\w*d\w*|--d.*", "xz": r"-\w*d\w*|--d.*", "zstd": r"-\w*d\w*|--d.*",
    "lz4": r"-\w*d\w*", "gpg": r"-\w*d\w*|--d.*", "gpg2": r"-\w*d\w*|--d.*",
    "printf": r"[\s\S]*\\(?:x|u|U|[0-7])[\s\S]*", "echo": r"[\s\S]*\\(?:x|u|U|0)[\s\S]*",
    "ascii2uni": r".*", "recode": r".*", "iconv": r".*",
}  # fmt: skip
"""What undoes an encoding only when it is told to: name -> a word that tells it so."""
_VARIABLE = re.compile(r"\$\{?[!#]?([A-Za-z_]\w*)")
_OUTPUT = re.compile(r"(?:-[A-Za-z]*[oO]|--output(?:-document)?)(?:=(.+))?")


def brought(commands: Iterable[SimpleCommand], found: Collector) -> frozenset[str]:
    """What the output of these commands is."""
    sources: frozenset[str] = NOTHING
    for command in commands:
        sources |= _brought(command, found)
    return sources


def _brought(command: SimpleCommand, found: Collector) -> frozenset[str]:
    sources: frozenset[str] = NOTHING
    for use in command.redirects:
        if use.access is Access.READ:
            sources |= of_file(use.path, found)
    for word in command.words:
        sources |= of_word(word, found)
    if not command.words or command.words[0].dynamic:
        return sources
    name = posixpath.basename(command.words[0].text)
    sources |= found.brought.get(f"{name}()", NOTHING)
    if name in _DOWNLOADERS:
        sources |= DOWNLOAD
    if name in _DECODERS or _is_decoding(name, command.words[1:]):
        sources |= ENCODED
    return sources


def _is_decoding(name: str, arguments: tuple[Word, ...]) -> bool:
    if name == "tr":  # of two sets: one is written in the other's place
        sets = [w for w in arguments if w.dynamic or not w.text.startswith("-")]
        return len(sets) > 1 and sum(len(w.text) for w in sets) > 4
    pattern = _DECODING.get(name)
    return pattern is not None and any(re.fullmatch(pattern, word.text) for word in arguments)


def of_word(word: Word, found: Collector) -> frozenset[str]:
    """What a word brings by the variables in it, or as the name of a file."""
    if not word.dynamic:
        return found.brought.get(posixpath.normpath(word.text), NOTHING) if word.text else NOTHING
    sources: frozenset[str] = NOTHING
    for name in _VARIABLE.findall(word.text):
        sources |= found.brought.get(f"${name}", NOTHING)
    return sources


def of_file(path: Word, found: Collector) -> frozenset[str]:
    """What reading a file brings; bash's `/dev/tcp/HOST/PORT` is the network (bash(1))."""
    if path.text.startswith(("/dev/tcp/", "/dev/udp/")):
        return DOWNLOAD
    return of_word(path, found)


def keep(found: Collector, name: str, sources: frozenset[str]) -> None:
    """Remember what a variable (`$x`), a function (`f()`) or a file brings."""
    if sources:
        found.brought[name] = found.brought.get(name, NOTHING) | sources


def keep_files(found: Collector, call: Call, sources: frozenset[str]) -> None:
    """Remember what the files and variables are that a command writes from what it was given."""
    for use in call.redirects:
        if use.access is Access.WRITE and not use.path.dynamic:
            keep(found, posixpath.normpath(use.path.text), sources)
    if not call.words or call.words[0].dynamic:
        return
    name = posixpath.basename(call.words[0].text)
    operands = [w for w in call.words[1:] if not w.dynamic and not w.text.startswith("-")]
    if name in ("tee", "sponge", "dd"):
        for word in operands:
            keep(found, posixpath.normpath(word.text.removeprefix("of=")), call.place.feed)
    elif name in _DOWNLOADERS:
        _keep_downloads(found, call, operands)
    elif name in ("cp", "mv", "ln", "install") and len(operands) > 1:
        copied = frozenset().union(*(of_word(word, found) for word in operands[:-1]))
        keep(found, posixpath.normpath(operands[-1].text), copied)
    elif name in ("read", "mapfile", "readarray"):
        fed = (call.place.feed - PIPE) | call.place.holds
        fed |= frozenset().union(*(of_file(use.path, found) for use in call.redirects))
        for word in operands or [Word("REPLY")]:
            keep(found, f"${word.text}", fed)


def _keep_downloads(found: Collector, call: Call, operands: list[Word]) -> None:
    for word, following in zip(call.words[1:], (*call.words[2:], Word("")), strict=False):
        option = _OUTPUT.fullmatch(word.text)
        target = option[1] or following.text if option and not word.dynamic else ""
        if target and "://" not in target:
            keep(found, posixpath.normpath(target), DOWNLOAD)
    for word in operands:  # `curl -O URL`, `wget URL`, `scp HOST:FILE .`
        last = posixpath.basename(word.text.partition("?")[0])
        if last and ":" in word.text:
            keep(found, last, DOWNLOAD)


def run_text(readers: Readers, text: Word, place: Place) -> None:
    """A text that can't be told is run: note what it is made of."""
    appended = "…" in text.text or "xargs" in place.via or "parallel" in place.via
    fed = place.feed if appended else NOTHING
    _note(readers.found, place, fed | place.holds | of_word(text, readers.found))


def run_input(readers: Readers, call: Call, place: Place, kind: str = "") -> None:
    """A shell or an interpreter runs what stands on its input."""
    files = [use.path for use in call.redirects if use.access is Access.READ]
    if files:
        sources: frozenset[str] = place.holds
        for path in files:
            sources |= of_file(path, readers.found)
            readers.found.runs.append(FileRun(path, place, kind, call.redirects))
    else:
        sources = place.feed | place.holds
    _note(readers.found, place, sources)


def run_file(readers: Readers, path: Word, call: Call, place: Place, kind: str = "") -> None:
    """A shell or the system runs a file as a `kind`: note what it is when this text wrote it."""
    readers.found.runs.append(FileRun(path, place, kind, call.redirects))
    substitution = path.text.lstrip("\"'").startswith("<(")
    held = place.holds if path.dynamic or substitution else NOTHING
    _note(readers.found, place, of_word(path, readers.found) | held)


def _note(found: Collector, place: Place, sources: frozenset[str]) -> None:
    for source, name in (("pipe", "pipe"), ("download", "download"), ("encoded", "encoded")):
        if source in sources:
            found.construct(f"shell:{name}-to-shell", place)
