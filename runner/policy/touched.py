"""What a command touches, as far as its words tell: the files that it writes, and the hosts."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

import yaml

from runner.model.intent import SimpleCommand, Word
from runner.policy.folders import base_name


@dataclass(frozen=True, slots=True)
class Written:
    """What a known command writes to, by the argument (from 0) that names it."""

    words: tuple[tuple[int, Word], ...] = ()
    only: bool = True
    """Whether it reads nothing of what it writes."""


_NOTHING = Written()


def written(command: SimpleCommand) -> Written:
    """The files that a command writes, creates, changes or removes, if it is a known one."""
    if not command.words or command.words[0].dynamic:
        return _NOTHING
    row = _writers().get(base_name(command))
    if row is None:
        return _NOTHING
    words = [*enumerate(command.words[1:])]
    only = row.get("only")
    if only and not any(_has_option(word, only) for _, word in words):
        return _NOTHING
    found = _option_values(words, row.get("values", ()))
    has_target = bool(found) and row.get("last")  # cp -t FOLDER FILE…
    for prefix in row.get("prefix", ()):
        for index, word in words:
            known = word.prefix if word.dynamic else word.text
            if known.startswith(prefix):
                found.append((index, _tail(word, len(prefix))))
    operands = [(i, w) for i, w in words if w.dynamic or w.text == "-" or w.text[:1] != "-"]
    if row.get("all"):
        found += operands
    elif row.get("rest"):
        found += operands[1:]
    elif row.get("last") and not has_target:
        found += operands[-1:] if len(operands) > 1 else operands
    alone = row.get("last") and len(operands) == 1  # split FILE, install FILE
    return Written(tuple(found), only=not (row.get("reads") or alone))


def _has_option(word: Word, names: Iterable[str]) -> bool:
    text = word.text
    for name in names:
        if text == name or text.startswith(name + "=") or word.dynamic:
            return True
        if not name.startswith("--") and re.match(r"-[A-Za-z0-9]*" + name[1], text):
            return True
    return False


def _option_values(words: list[tuple[int, Word]], names: Iterable[str]) -> list[tuple[int, Word]]:
    values = []
    for index, word in words:
        known = word.prefix if word.dynamic else word.text
        following = words[index + 1 : index + 2]
        for name in names:
            long = name.startswith("--")
            if known == name and not word.dynamic:
                values += following
            elif known.startswith(name + "="):
                values.append((index, _tail(word, len(name) + 1)))
            elif not long and known.startswith(name) and len(known) > len(name):
                values.append((index, _tail(word, len(name))))
            elif (
                not long
                and not word.dynamic
                and re.fullmatch(r"-[A-Za-z0-9]+" + name[1], known) is not None
            ):
                values += following  # -sSfo FILE
    return values


def _tail(word: Word, length: int) -> Word:
    if word.dynamic:
        return Word(word.text, True, word.prefix[length:], word.suffix, word.many)
    return Word(word.text[length:])


@functools.cache
def _writers() -> Mapping[str, Mapping[str, Any]]:
    source = resources.files("runner.policy").joinpath("writers.yaml").read_bytes()
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    table: dict[str, Mapping[str, Any]] = yaml.load(source, Loader=loader)  # noqa: S506
    return table


_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s'\"/]*(?=[/?#]|$)")
_REMOTE = re.compile(r"[\w.-]+@([\w.-]+)(?::|$)|([\w-]+(?:\.[\w-]+)+):(?!\d)")
_HOST = re.compile(r"(?!-)\[?[\w.:-]+(?:\](?::\d*)?)?(?:/.*)?")
_CLIENTS = frozenset(
    {"nc", "ncat", "netcat", "telnet", "ping", "ftp", "ssh", "nslookup", "dig", "host", "curl",
     "wget", "http", "https"}
)  # fmt: skip
"""Commands whose operands are hosts."""
_WITH_PORT = frozenset({"nc", "ncat", "netcat", "telnet", "ftp", "ssh"})
"""Those in which a port may stand behind the host, as a word of its own."""
_PORT_LIMIT = 65535


def hosts(command: SimpleCommand) -> list[Word]:
    """Hosts that a command names: URLs, `user@host:path`, operands of clients."""
    found: list[Word] = []
    name = base_name(command)
    client = name in _CLIENTS
    words = command.words[1:]
    if not client:
        words = tuple([w for w in words if w.dynamic or ":" in w.text or "@" in w.text])
    for word in words:
        known = word.prefix if word.dynamic else word.text
        urls = _URL.findall(known) if "://" in known else ()
        found += [Word(host) for url in urls if (host := _url_host(url))]
        if word.dynamic:
            # Of a dynamic URL the host is known once its literal head reaches past it.
            if not (urls and not word.many) and (client or "://" in word.text):
                found.append(Word(word.text, dynamic=True))
        elif urls:
            continue
        elif ("@" in known or ":" in known) and (match := _REMOTE.match(known)):
            found.append(Word(match[1] or match[2]))
        elif found and name in _WITH_PORT and _is_port(known):
            continue
        elif client and _HOST.fullmatch(known):
            place = known.partition("/")[0]
            host, _, port = place.rpartition(":")
            # More colons outside of brackets are an IPv6 address alone (RFC 3986, section 3.2.2).
            apart = host and (port.isdigit() or not port) and (":" not in host or host[-1] == "]")
            found.append(Word(host if apart else place))
    for use in command.redirects:
        device = re.match(r"/dev/(?:tcp|udp)/([^/]+)/", use.path.text)
        if device:
            found.append(Word(device[1], use.path.dynamic))
    return [w if w.dynamic else Word(clean_host(w.text)) for w in found] if found else found


def _is_port(text: str) -> bool:
    """Whether it is a number up to 65535; a larger one can be an address (inet_aton(3)).

    As an address such a number would be of 0.0.0.0/16, which leads nowhere but to this machine.
    """
    return re.fullmatch(r"[0-9]{1,5}", text) is not None and int(text) <= _PORT_LIMIT


def clean_host(host: str) -> str:
    """A host name as rules see it: lower case, no dot at the end, no brackets."""
    return host.strip("[]").rstrip(".").lower()


def _url_host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
