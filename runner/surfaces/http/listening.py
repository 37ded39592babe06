"""Where a server listens, whether it may, and its TLS.

On a unix socket the kernel says who calls. On TCP nobody does, so every call there has a key or a
token, on loopback as well; and beyond loopback these are seen by whoever is on the way, so there is
no listening there without TLS.
"""

from __future__ import annotations

import socket
import ssl
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from runner.errors import RequestError, SettingsError

_SOCKET_PATH_BYTES = 107
"""`sun_path` of unix(7) has 108, with a zero at its end."""
BACKLOG = 128
_FORMS = "unix:PATH, HOST:PORT or [ADDRESS]:PORT"


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """A socket in the file system."""

    path: Path
    """Absolute."""

    def __str__(self) -> str:
        """As `--listen` takes it."""
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class Tcp:
    """A port."""

    host: str
    """An address, or a name."""
    port: int
    """0: one that is free."""

    @property
    def is_loopback(self) -> bool:
        """Whether nobody but this machine can connect; a name may be any address."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        """As `--listen` takes it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Listen = UnixSocket | Tcp


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Files in PEM."""

    cert: Path
    """The certificate, and those that lead to the root behind it."""
    key: Path
    """Its private key, without a passphrase."""
    client_ca: Path | None = None
    """Who connects has to have a certificate of this authority; it is not an identity."""


def parse_listen(text: str) -> Listen:
    """`unix:PATH`, `HOST:PORT` or `[ADDRESS]:PORT`. RequestError: it is none of them."""
    if "\0" in text or not text.isprintable():
        raise RequestError(f"--listen {text!r} is not {_FORMS}")
    kind, colon, rest = text.partition(":")
    if kind == "unix" and colon:
        return _unix(rest)
    if text.startswith("["):
        address, bracket, port = text[1:].partition("]:")
        if not bracket or not _is_address(address, 6):
            raise RequestError(f"--listen {text!r}: in brackets stands an IPv6 address: [::1]:8443")
        return Tcp(address, _port(port, text))
    host, colon, port = text.rpartition(":")
    if not colon or not host or ":" in host or "/" in host or " " in host:
        raise RequestError(f"--listen {text!r} is not {_FORMS}")
    # The name is not looked up: what it stands for is settled here, and not by /etc/hosts.
    return Tcp("127.0.0.1" if host == "localhost" else host, _port(port, text))


def tls_files(cert: str | None, key: str | None, client_ca: str | None = None) -> TlsFiles | None:
    """The options `--tls-cert`, `--tls-key` and `--tls-client-ca`; None: no TLS. RequestError."""
    if cert is None and key is None and client_ca is None:
        return None
    if cert is None or key is None:
        raise RequestError("TLS needs both --tls-cert FILE and --tls-key FILE")
    return TlsFiles(Path(cert), Path(key), Path(client_ca) if client_ca is not None else None)


def check_listening(listen: Listen, tls: TlsFiles | None, *, proves_callers: bool) -> None:
    """SettingsError: it must not listen there, and what would let it.

    `proves_callers`: whether there is a key in force, or an issuer of tokens. Files of TLS are
    looked at, so that a wrong one is found before anything listens.
    """
    if isinstance(listen, UnixSocket):
        if tls is not None:
            raise SettingsError(f"{listen} has no use for TLS: leave out --tls-cert and --tls-key")
        return
    if tls is not None:
        _check_tls(tls)
    if listen.is_loopback:
        return
    if tls is None:
        raise SettingsError(
            f"{listen} is beyond this machine, where keys would be seen on their way: give "
            "--tls-cert and --tls-key, or listen at 127.0.0.1, or at unix:PATH"
        )
    if not proves_callers:
        raise SettingsError(
            f"{listen} is beyond this machine, and nobody could prove who they are: make a key "
            "(`runner keys create`), or state an issuer of tokens (server_issuers)"
        )


def tls_options(tls: TlsFiles | None) -> dict[str, Any]:
    """Arguments of `uvicorn.Config`."""
    if tls is None:
        return {}
    options: dict[str, Any] = {
        "ssl_certfile": str(tls.cert),
        "ssl_keyfile": str(tls.key),
        # What RFC 9325, 4.2 recommends, which TLS before 1.2 does not have.
        "ssl_ciphers": "ECDHE+AESGCM:ECDHE+CHACHA20",
    }
    if tls.client_ca is not None:
        options.update(ssl_ca_certs=str(tls.client_ca), ssl_cert_reqs=ssl.CERT_REQUIRED)
    return options


@contextmanager
def tcp_socket(listen: Tcp) -> Iterator[socket.socket]:
    """A listening socket there, of all addresses of a name the first. RequestError: it can't be."""
    try:
        found = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        made = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise RequestError(f"can't listen at {listen}: {_why(error)}") from None
    with made:
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:  # `::` is what was asked for, and not 0.0.0.0 as well
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind(address)
            made.listen(BACKLOG)
        except OSError as error:
            raise RequestError(f"can't listen at {listen}: {_why(error)}") from None
        yield made


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _unix(text: str) -> UnixSocket:
    if not text:
        raise RequestError("--listen unix: needs a path, like unix:/run/runner/api.sock")
    path = Path(text).absolute()
    if len(bytes(path)) > _SOCKET_PATH_BYTES:
        raise RequestError(
            f"--listen unix:{text}: the path of a socket has at most {_SOCKET_PATH_BYTES} bytes "
            "(unix(7)): take a shorter one"
        )
    return UnixSocket(path)


def _port(text: str, whole: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and int(text) <= 65535):
        raise RequestError(f"--listen {whole!r}: the port is a number up to 65535")
    return int(text)


def _is_address(text: str, version: int) -> bool:
    try:
        return ip_address(text).version == version
    except ValueError:
        return False


def _check_tls(tls: TlsFiles) -> None:
    """SettingsError: a file can't be used, or others can read the private key."""
    try:
        mode = tls.key.stat().st_mode
    except OSError as error:
        raise SettingsError(f"--tls-key {tls.key}: {error.strerror}") from None
    if mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
        raise SettingsError(
            f"--tls-key {tls.key} can be read by everybody or written by others: "
            f"`chmod go-w,o-r {tls.key}`"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def no_passphrase() -> str:
        raise SettingsError(f"--tls-key {tls.key} has a passphrase: give one without")

    try:
        context.load_cert_chain(tls.cert, tls.key, no_passphrase)
        if tls.client_ca is not None:
            context.load_verify_locations(tls.client_ca)
            if not context.get_ca_certs():
                raise SettingsError(f"--tls-client-ca {tls.client_ca} holds no authority")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        files = " ".join(str(each) for each in (tls.cert, tls.key, tls.client_ca) if each)
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise SettingsError(
            f"the files of TLS can't be used ({files}): {reason}; each holds PEM, and the key is "
            "the certificate's"
        ) from None
