"""Where a server may listen, and with what."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import RequestError, SettingsError
from runner.surfaces.http.listening import (
    Tcp,
    TlsFiles,
    UnixSocket,
    check_listening,
    parse_listen,
    tcp_socket,
    tls_files,
    tls_options,
)


def make_tls(folder: Path, name: str = "127.0.0.1") -> TlsFiles:
    """A certificate that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(name))]), False
        )
        .sign(key, hashes.SHA256())
    )
    files = TlsFiles(folder / "cert.pem", folder / "key.pem")
    files.cert.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    files.key.touch(0o600)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unix:/run/runner/api.sock", UnixSocket(Path("/run/runner/api.sock"))),
        ("unix:/a:b", UnixSocket(Path("/a:b"))),
        ("127.0.0.1:8443", Tcp("127.0.0.1", 8443)),
        ("localhost:0", Tcp("127.0.0.1", 0)),
        ("0.0.0.0:443", Tcp("0.0.0.0", 443)),
        ("api.example.org:443", Tcp("api.example.org", 443)),
        ("[::1]:8443", Tcp("::1", 8443)),
        ("[::]:8443", Tcp("::", 8443)),
    ],
)
def test_where(text, expected) -> None:
    assert parse_listen(text) == expected
    assert parse_listen(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    ["", ":", "unix:", "unix", "8443", ":8443", "::1:8443", "[::1]", "[::1]8443", "[127.0.0.1]:1",
     "host:", "host:65536", "host:-1", "host:+1", "host: 1", "host:\u0661", "host:1e3", "a/b:1",
     "host\0:1", "unix:/a\0b", "unix:/" + "x" * 107, "http://host:1", "a:b:1", "[::1%]:1:"],
)  # fmt: skip
def test_what_is_nowhere(text) -> None:
    with pytest.raises(RequestError, match="--listen"):
        parse_listen(text)


@given(st.text(max_size=20))
def test_any_text_is_somewhere_or_refused(text) -> None:
    try:
        found = parse_listen(text)
    except RequestError:
        return
    assert parse_listen(str(found)) == found


def test_loopback_is_what_only_this_machine_reaches() -> None:
    for host in ("127.0.0.1", "127.9.9.9", "::1"):
        assert Tcp(host, 1).is_loopback
    for host in ("0.0.0.0", "::", "10.0.0.1", "127.1", "localhost.example.org", "2130706433", ""):
        assert not Tcp(host, 1).is_loopback


BEYOND = [Tcp("0.0.0.0", 1), Tcp("::", 1), Tcp("10.0.0.1", 1), Tcp("example.org", 1)]


@pytest.mark.parametrize("listen", BEYOND, ids=str)
def test_beyond_this_machine_needs_tls_and_somebody_who_can_prove(listen, tmp_path) -> None:
    tls = make_tls(tmp_path)
    for proves in (False, True):
        with pytest.raises(SettingsError, match="--tls-cert"):
            check_listening(listen, None, proves_callers=proves)
    with pytest.raises(SettingsError, match="runner keys create"):
        check_listening(listen, tls, proves_callers=False)
    check_listening(listen, tls, proves_callers=True)


def test_on_this_machine_no_tls_is_needed(tmp_path) -> None:
    for listen in (UnixSocket(Path("/x")), Tcp("127.0.0.1", 1), Tcp("::1", 1)):
        check_listening(listen, None, proves_callers=False)
    check_listening(Tcp("::1", 1), make_tls(tmp_path), proves_callers=False)
    with pytest.raises(SettingsError, match="no use for TLS"):
        check_listening(UnixSocket(Path("/x")), make_tls(tmp_path), proves_callers=True)


def test_tls_takes_both_files() -> None:
    assert tls_files(None, None) is None
    assert tls_files("c", "k", "a") == TlsFiles(Path("c"), Path("k"), Path("a"))
    for given_ in (("c", None), (None, "k"), (None, None, "a")):
        with pytest.raises(RequestError, match="both --tls-cert FILE and --tls-key FILE"):
            tls_files(*given_)


def test_files_that_can_not_be_used_are_found_before(tmp_path) -> None:
    here = Tcp("127.0.0.1", 1)
    tls = make_tls(tmp_path)
    (tmp_path / "other").mkdir()
    other = make_tls(tmp_path / "other")
    (tmp_path / "empty").touch()
    wrong = {
        "No such file": TlsFiles(tls.cert, tmp_path / "missing"),
        "can't be used": TlsFiles(tmp_path / "missing", tls.key),
        "KEY_VALUES_MISMATCH": TlsFiles(tls.cert, other.key),
        "can't be used ": TlsFiles(tls.cert, tls.key, tmp_path / "empty"),
    }
    for match, files in wrong.items():
        with pytest.raises(SettingsError, match=match):
            check_listening(here, files, proves_callers=True)
    tls.key.chmod(0o604)
    with pytest.raises(SettingsError, match="chmod go-w,o-r"):
        check_listening(here, tls, proves_callers=True)
    tls.key.chmod(0o640)
    check_listening(here, tls, proves_callers=True)
    private = serialization.load_pem_private_key(tls.key.read_bytes(), None)
    tls.key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"x"),
        )
    )
    with pytest.raises(SettingsError, match="passphrase"):
        check_listening(here, tls, proves_callers=True)


def test_uvicorn_takes_the_options(tmp_path) -> None:
    import uvicorn

    tls = make_tls(tmp_path)
    assert tls_options(None) == {}
    config = uvicorn.Config("x:y", **tls_options(TlsFiles(tls.cert, tls.key, tls.cert)))
    config.load_app = lambda: None
    config.load()
    assert config.ssl.verify_mode is ssl.CERT_REQUIRED
    assert all(each["aead"] for each in config.ssl.get_ciphers())
    plain = uvicorn.Config("x:y", **tls_options(tls))
    plain.load_app = lambda: None
    plain.load()
    assert plain.ssl.verify_mode is ssl.CERT_NONE


def test_a_port_is_listened_at() -> None:
    with tcp_socket(Tcp("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        thread = threading.Thread(target=server.accept)
        thread.start()
        socket.create_connection(("127.0.0.1", port), timeout=30).close()
        thread.join()
        with pytest.raises(RequestError, match="in use"), tcp_socket(Tcp("127.0.0.1", port)):
            pass
    with pytest.raises(RequestError, match="can't listen at"), tcp_socket(Tcp("192.0.2.1", 1)):
        pass
