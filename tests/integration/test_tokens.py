"""Tokens of an issuer that listens on loopback, with keys of its own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import IssuerUnavailableError
from runner.model.identity import AGENT_VERBS, Identity, Verb
from runner.schema.callers import read_issuers
from runner.surfaces.http import issuer_keys
from runner.surfaces.http.issuer_keys import AGAIN_S, FRESH_S, USED_S, fetched
from runner.surfaces.http.tokens import (
    LEEWAY_S,
    TOKEN_CHARACTERS,
    RefusedToken,
    Tokens,
    Ungranted,
    identity_of_claims,
)
from runner.testing.fakes import FakeClock

RSA = rsa.generate_private_key(65537, 2048)
OTHER = rsa.generate_private_key(65537, 2048)
SMALL = rsa.generate_private_key(65537, 1024)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
RULES = [
    {"when": {"groups": "operators"}, "verbs": ["read", "approve"], "agents": ["*"],
     "tenants": ["*"]},
    {"when": {"role": "agent"}, "agent_claim": "azp", "tenant_claim": "org",
     "verbs": ["run", "read", "apply"], "profiles": ["agent"]},
    {"when": {"role": "service"}, "agents": ["ci-*"], "tenant_claim": "org", "verbs": ["read"]},
    {"when": {"everybody": "reads"}, "verbs": ["read"], "agents": ["*"], "tenants": ["*"]},
]  # fmt: skip


def public(key: Any, kid: str | None, **more: object) -> dict:
    kind = {rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm,
            ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm,
            ed25519.Ed25519PrivateKey: jwt.algorithms.OKPAlgorithm}  # fmt: skip
    made = next(algorithm for known, algorithm in kind.items() if isinstance(key, known))
    told = made.to_jwk(key.public_key(), as_dict=True)
    return {**told, **({} if kid is None else {"kid": kid}), **more}


class Site:
    """What the issuer answers, and how often it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.keys: list[dict] = [public(RSA, "r"), public(EC, "e"), public(ED, "d")]
        self.documents: dict[str, tuple[int, bytes]] = {}
        self.asked: list[str] = []

    def answer(self, path: str) -> tuple[int, bytes]:
        self.asked.append(path)
        if path in self.documents:
            return self.documents[path]
        if path == "/.well-known/openid-configuration":
            told: object = {"issuer": self.url, "jwks_uri": f"{self.url}/jwks"}
        else:
            told = {"keys": self.keys}
        return 200, json.dumps(told).encode()


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = site.answer(self.path)
            self.send_response(status)
            if status == 302:
                self.send_header("Location", f"{site.url}/elsewhere")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        site.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site()) as found:
        yield found


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def tokens(site: Site, clock: FakeClock, **more: object) -> Tokens:
    stated = {"issuer": site.url, "audience": "runner", "rules": RULES, **more}
    return Tokens(read_issuers([stated]), clock)


def claims(site: Site, **more: object) -> dict:
    now_s = int(time.time())
    told = {"iss": site.url, "aud": "runner", "sub": "alice", "iat": now_s, "exp": now_s + 600,
            "groups": ["x", "operators"], **more}  # fmt: skip
    return {name: value for name, value in told.items() if value is not None}


def signed(site: Site, key: Any = RSA, algorithm: str = "RS256", kid: str | None = "r",
           header: dict | None = None, **more: object) -> str:  # fmt: skip
    headers = {**({} if kid is None else {"kid": kid}), **(header or {})}
    return jwt.encode(claims(site, **more), key, algorithm, headers)


def raw(*parts: object) -> str:
    """A token of these parts: bytes as they are, all else as JSON."""

    def one(part: object) -> str:
        data = part if isinstance(part, bytes) else json.dumps(part).encode()
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    return ".".join(map(one, parts))


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"), [(RSA, "RS256", "r"), (EC, "ES256", "e"), (ED, "EdDSA", "d")]
)
def test_a_token_is_taken(site, clock, key, algorithm, kid) -> None:
    found = tokens(site, clock).identity(signed(site, key, algorithm, kid))
    assert found == Identity(
        f"oidc:{site.url}#alice", frozenset({Verb.READ, Verb.APPROVE}), None, ("*",), ("*",), ()
    )


def test_claims_say_which_agent_and_tenant(site, clock) -> None:
    found = tokens(site, clock).identity(
        signed(site, groups=None, role="agent", azp="bot", org="acme", aud=["x", "runner"])
    )
    assert found == Identity(
        f"oidc:{site.url}#alice", AGENT_VERBS, "bot", (), ("acme",), ("agent",)
    )


@pytest.mark.parametrize(
    "more",
    [
        {"role": "other"}, {"role": ["agents"]}, {"role": None}, {"role": {"agent": 1}},
        {"role": "agent", "org": "acme"}, {"role": "agent", "azp": "bot"},
        {"role": "agent", "azp": "", "org": "acme"}, {"role": "agent", "azp": 1, "org": "acme"},
        {"role": "agent", "azp": ["bot"], "org": "acme"},
        {"role": "agent", "azp": "b\0t", "org": "acme"},
        {"role": "agent", "azp": "bot", "org": "*"}, {"role": "agent", "azp": "bot", "org": ""},
        {"role": "agent", "azp": "bot", "org": "a?"}, {"role": "service", "org": "*"},
        {"role": "service", "org": "[a]"}, {"role": "service", "org": None},
        # No later rule gives what the first one that fits does not.
        {"role": "agent", "org": "acme", "everybody": "reads"},
        {"role": "service", "org": "*", "everybody": "reads"},
        {"sub": "a\nb", "everybody": "reads"},
    ],
)  # fmt: skip
def test_a_token_that_no_rule_gives_anything(site, clock, more) -> None:
    found = tokens(site, clock).identity(signed(site, **{"groups": None, **more}))
    assert isinstance(found, Ungranted)


NOW_S = int(time.time())
FAR_S = int(LEEWAY_S) + 600


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"exp": NOW_S - FAR_S}, "ended"),
        ({"nbf": NOW_S + FAR_S}, "early"),
        ({"iat": NOW_S + FAR_S}, "early"),
        ({"exp": None}, "malformed"),
        ({"iat": None}, "malformed"),
        ({"sub": None}, "malformed"),
        ({"aud": None}, "malformed"),
        ({"iss": None}, "issuer"),
        ({"exp": "soon"}, "malformed"),
        ({"exp": float("nan")}, "malformed"),
        ({"exp": float("inf")}, "malformed"),
        ({"exp": [1]}, "malformed"),
        ({"aud": "other"}, "audience"),
        ({"aud": ["other"]}, "audience"),
        ({"aud": {"runner": 1}}, "audience"),
        ({"iss": "https://other.example.org"}, "issuer"),
    ],
)
def test_claims_that_are_not_right(site, clock, more, why) -> None:
    assert tokens(site, clock).identity(signed(site, **more)) == RefusedToken(why)
    assert isinstance(tokens(site, clock).identity(signed(site)), Identity)


def test_clocks_may_differ_a_little(site, clock) -> None:
    now_s = int(time.time())
    close = signed(site, iat=now_s + int(LEEWAY_S) - 15, exp=now_s + 600)
    assert isinstance(tokens(site, clock).identity(close), Identity)


def test_algorithms_are_those_of_the_list(site, clock) -> None:
    verified = tokens(site, clock)
    body = claims(site)
    pem = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert verified.identity(raw({"alg": "none"}, body, b"")) == RefusedToken("algorithm")
    assert verified.identity(raw({"alg": "None", "kid": "r"}, body, b"")).why == "algorithm"
    # The public key as a shared secret: what a verifier falls for that believes the header.
    head = raw({"alg": "HS256", "kid": "r", "typ": "JWT"}, body)
    mac = hmac.new(pem, head.encode(), hashlib.sha256).digest()
    assert verified.identity(f"{head}.{raw(mac)}") == RefusedToken("algorithm")
    for algorithm in ("RS384", "RS512", "PS256"):
        assert verified.identity(signed(site, RSA, algorithm)) == RefusedToken("algorithm")
    # A key signs by its own algorithm, whatever the header says.
    assert verified.identity(signed(site, EC, "ES256", "r")) == RefusedToken("key")
    only = tokens(site, clock, algorithms=["EdDSA"])
    assert only.identity(signed(site)) == RefusedToken("algorithm")
    assert isinstance(only.identity(signed(site, ED, "EdDSA", "d")), Identity)


def test_what_another_signed_is_refused(site, clock) -> None:
    verified = tokens(site, clock)
    assert verified.identity(signed(site, OTHER)) == RefusedToken("signature")
    head, body, signature = signed(site).split(".")
    other = raw(claims(site, sub="mallory"))
    assert verified.identity(f"{head}.{other}.{signature}") == RefusedToken("signature")
    assert verified.identity(f"{head}.{body}.") == RefusedToken("signature")
    # Where the header says that a key is to be found, nobody looks.
    for header in (
        {"jku": f"{site.url}/evil"}, {"x5u": f"{site.url}/evil"}, {"jwk": public(OTHER, "r")}
    ):  # fmt: skip
        assert verified.identity(signed(site, OTHER, header=header)) == RefusedToken("signature")
    assert "/evil" not in site.asked
    assert verified.identity(signed(site, header={"crit": ["x"], "x": 1})).why in (
        "algorithm", "malformed"
    )  # fmt: skip


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "a.b.c", "\u00e9.a.b", "x" * (TOKEN_CHARACTERS + 1), raw([], [], b""),
     raw({"alg": "RS256"}, b"[" * 6000, b""), raw({"alg": 1}, {"iss": 1}, b""),
     raw({"alg": "RS256", "kid": ["r"]}, {"iss": "x"}, b""), raw({"alg": "RS256"}, b"\xff", b"")],
)  # fmt: skip
def test_what_is_no_token_is_refused(site, clock, token) -> None:
    assert isinstance(tokens(site, clock).identity(token), RefusedToken)
    assert site.asked == []


@given(st.text(max_size=60), st.dictionaries(st.text(max_size=4), st.integers() | st.text()))
def test_whatever_is_sent_is_answered(text, body) -> None:
    stated = {"issuer": "https://i.example", "audience": "runner", "rules": RULES, "keys": "/x"}
    verified = Tokens(read_issuers([stated]), FakeClock(), lambda _: b'{"keys": []}')
    ours = raw({"alg": "RS256"}, {**body, "iss": stated["issuer"]}, b"x")
    for token in (text, raw(body, body, b"x"), ours):
        assert isinstance(verified.identity(token), RefusedToken)


JSON = st.recursive(
    st.none() | st.booleans() | st.text(max_size=5) | st.sampled_from(["agent", "*", "bot"]),
    lambda inner: st.lists(inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from(["role", "azp", "org", "groups", "sub"]), JSON))
def test_no_claims_make_an_agent_more_than_itself(told) -> None:
    stated = {"issuer": "https://i.example", "audience": "runner", "rules": RULES[1:2]}
    (issuer,) = read_issuers([stated])
    found = identity_of_claims(told, issuer)
    if isinstance(found, Identity):
        assert found.verbs <= AGENT_VERBS
        assert found.agent == told["azp"]
        assert found.tenants == (told["org"],)
        assert not found.reaches(found.agent, None)
        assert not found.reaches(found.agent, told["org"] + "x")


# --- the issuer's keys


def test_keys_are_fetched_once_and_kept(site, clock) -> None:
    verified = tokens(site, clock)
    for _ in range(50):
        assert isinstance(verified.identity(signed(site)), Identity)
    assert site.asked == ["/.well-known/openid-configuration", "/jwks"]
    clock.advance(FRESH_S)
    assert isinstance(verified.identity(signed(site)), Identity)
    assert len(site.asked) == 4


def test_a_new_key_is_found_and_looked_for_seldom(site, clock) -> None:
    verified = tokens(site, clock, keys=f"{site.url}/jwks")
    new = signed(site, OTHER, kid="new")
    assert verified.identity(new) == RefusedToken("key")
    site.keys.append(public(OTHER, "new"))
    for _ in range(50):
        assert verified.identity(new) == RefusedToken("key")
    assert len(site.asked) == 1
    clock.advance(AGAIN_S)
    assert isinstance(verified.identity(new), Identity)
    assert len(site.asked) == 2
    for n in range(50):
        assert verified.identity(signed(site, OTHER, kid=f"guess{n}")) == RefusedToken("key")
    assert len(site.asked) == 2


def test_a_withdrawn_key_ends(site, clock) -> None:
    verified = tokens(site, clock)
    assert isinstance(verified.identity(signed(site)), Identity)
    site.keys = [public(OTHER, "o")]
    clock.advance(FRESH_S)
    assert verified.identity(signed(site)) == RefusedToken("key")


@pytest.mark.parametrize(
    "answer",
    [
        (500, b""), (302, b""), (200, b""), (200, b"[]"), (200, b'{"keys": 5}'), (200, b"{"),
        (200, b'{"keys": [' + b"{}," * 100 + b"{}]}"), (200, b" " * (1 << 20) + b'{"keys": []}'),
    ],
)  # fmt: skip
def test_an_issuer_that_does_not_answer_right_lets_nobody_in(site, clock, answer) -> None:
    verified = tokens(site, clock)
    site.documents["/jwks"] = answer
    for _ in range(20):
        with pytest.raises(IssuerUnavailableError, match="could not be fetched") as caught:
            verified.identity(signed(site))
        assert caught.value.http_status == 503
    assert site.asked.count("/jwks") == 1
    assert "/elsewhere" not in site.asked
    del site.documents["/jwks"]
    clock.advance(AGAIN_S)
    assert isinstance(verified.identity(signed(site)), Identity)


def test_known_keys_outlast_an_issuer_for_an_hour(site, clock) -> None:
    verified = tokens(site, clock)
    assert isinstance(verified.identity(signed(site)), Identity)
    site.documents["/jwks"] = (503, b"")
    clock.advance(FRESH_S)
    assert isinstance(verified.identity(signed(site)), Identity)
    clock.advance(USED_S)
    with pytest.raises(IssuerUnavailableError):
        verified.identity(signed(site))


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://other.example", "jwks_uri": "URL/jwks"}, {"jwks_uri": "URL/jwks"},
        {"issuer": "URL", "jwks_uri": "http://192.0.2.1/jwks"}, {"issuer": "URL"}, [],
        {"issuer": "URL", "jwks_uri": "file:///etc/passwd"},
        {"issuer": "URL", "jwks_uri": "/etc/passwd"},
    ],
)  # fmt: skip
def test_a_discovery_document_that_is_wrong(site, clock, document) -> None:
    told = json.dumps(document).replace("URL", site.url).encode()
    site.documents["/.well-known/openid-configuration"] = (200, told)
    with pytest.raises(IssuerUnavailableError):
        tokens(site, clock).identity(signed(site))
    assert site.asked == ["/.well-known/openid-configuration"]


def test_keys_that_must_not_verify_are_left_out(site, clock) -> None:
    private = {**public(OTHER, "p"), "d": "AQAB"}
    site.keys = [
        public(RSA, "r"), public(RSA, "enc", use="enc"), public(RSA, "ops", key_ops=["encrypt"]),
        public(SMALL, "s"), {"kty": "oct", "k": "c2VjcmV0", "kid": "o"}, private, {"kty": "RSA"},
        public(RSA, "ps", alg="PS256"), {}, {"kty": 5}, public(RSA, "twice"),
        public(OTHER, "twice"),
    ]  # fmt: skip
    verified = tokens(site, clock)
    assert isinstance(verified.identity(signed(site)), Identity)
    for key, kid in ((RSA, "enc"), (RSA, "ops"), (OTHER, "p"), (RSA, "ps"), (RSA, "twice")):
        assert verified.identity(signed(site, key, kid=kid)) == RefusedToken("key")
    small = jwt.encode(claims(site), SMALL, "RS256", {"kid": "s"})
    assert verified.identity(small) == RefusedToken("key")


def test_a_token_need_not_name_the_only_key(site, clock) -> None:
    site.keys = [public(RSA, None), public(EC, "e")]
    verified = tokens(site, clock)
    assert isinstance(verified.identity(signed(site, kid=None)), Identity)
    assert verified.identity(signed(site)) == RefusedToken("key")
    site.keys.append(public(OTHER, None))
    assert tokens(site, clock).identity(signed(site, kid=None)) == RefusedToken("key")


def test_keys_of_a_file(site, clock, tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": site.keys}))
    verified = tokens(site, clock, keys=str(file))
    assert isinstance(verified.identity(signed(site)), Identity)
    assert site.asked == []
    file.unlink()
    with pytest.raises(IssuerUnavailableError):
        tokens(site, clock, keys=str(file)).identity(signed(site))


def test_who_drips_bytes_holds_nobody_up_for_ever(monkeypatch) -> None:
    monkeypatch.setattr(issuer_keys, "FETCH_S", 0.3)
    stop = threading.Event()

    def drip(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while not stop.wait(0.05):
                try:
                    connection.sendall(b" ")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,))
        thread.start()
        try:
            with pytest.raises(TimeoutError, match=r"within 0\.3 s"):
                fetched(f"http://127.0.0.1:{server.getsockname()[1]}/")
        finally:
            stop.set()
            thread.join()


def test_threads_wait_for_one_fetch(site, clock) -> None:
    verified = tokens(site, clock)
    found: list[object] = []
    token = signed(site)
    threads = [
        threading.Thread(target=lambda: found.append(verified.identity(token))) for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(each, Identity) for each in found)
    assert len(site.asked) == 2
