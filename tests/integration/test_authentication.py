"""Who calls a server that runs: over its unix socket, with keys, and with tokens."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from runner.clock import SystemClock
from runner.errors import RunnerError, UnauthenticatedError
from runner.keys import Keys
from runner.model.api_key import written
from runner.model.event import EventKind
from runner.model.identity import AGENT_VERBS, ANY, Identity, Verb
from runner.schema.callers import read_issuers, read_peers
from runner.stores import sqlite
from runner.stores.sqlite import SqliteStore
from runner.surfaces.http.authentication import Authenticator
from runner.surfaces.http.failures import SINGLY
from runner.surfaces.http.listening import Tcp, tcp_socket, tls_options
from runner.surfaces.http.peers import peer_of

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from test_listening import make_tls
from test_tokens import OTHER, RULES, Site, serving, signed

STRANGER = 54_321
BOT = Identity("", AGENT_VERBS, "bot", (), ("acme",), ("agent",))


class Connection(HttpToolsProtocol):
    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        peer = peer_of(transport.get_extra_info("socket"))
        self.app_state = {**self.app_state, "peer": peer}


def app_of(authenticate: Authenticator) -> Starlette:
    async def who(request: Request) -> JSONResponse:
        try:
            identity = await authenticate(request)
        except RunnerError as error:
            headers = {}
            if isinstance(error, UnauthenticatedError):
                headers["WWW-Authenticate"] = error.challenge
            told = {"code": error.code, "message": str(error)}
            return JSONResponse(told, error.http_status, headers)
        return JSONResponse({"name": identity.name, "verbs": sorted(identity.verbs)})

    return Starlette(routes=[Route("/", who)])


class Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextmanager
def running(
    authenticate: Authenticator, listening: socket.socket, **options: Any
) -> Iterator[None]:
    config = uvicorn.Config(
        app_of(authenticate), http=Connection, ws="none", lifespan="off", log_config=None,
        proxy_headers=False, **options,
    )  # fmt: skip
    server = Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(sqlite.create(tmp_path / "state", SystemClock())) as store:
        yield store


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of a socket that everybody can connect to."""
    folder = Path(f"/tmp/runner-test-{os.getpid()}-{time.monotonic_ns()}")
    folder.mkdir(mode=0o755)
    yield folder / "s"
    for each in folder.iterdir():
        each.unlink()
    folder.rmdir()


@contextmanager
def at_socket(authenticate: Authenticator, path: Path) -> Iterator[httpx.Client]:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        path.chmod(0o666)
        listening.listen()
        transport = httpx.HTTPTransport(uds=str(path))
        with running(authenticate, listening), httpx.Client(transport=transport) as client:
            client.base_url = "http://runner"
            yield client


@contextmanager
def at_port(authenticate: Authenticator, **options: Any) -> Iterator[httpx.Client]:
    with tcp_socket(Tcp("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with running(authenticate, listening, **options), httpx.Client() as client:
            client.base_url = f"http://127.0.0.1:{port}"
            yield client


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def failed(store: SqliteStore) -> list[dict]:
    found = (json.loads(e.body) for e in store.events() if e.kind == EventKind.AUTH_FAILED)
    return [each["data"] for each in found]


CURL = """
import http.client, os, socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
connection = http.client.HTTPConnection("runner")
connection.sock = sock
connection.request("GET", "/", headers=dict(a.split("=", 1) for a in sys.argv[2:]))
answer = connection.getresponse()
print(answer.status, answer.read().decode())
"""


def call_as(uid: int, path: Path, *headers: str, **more: Any) -> tuple[int, dict]:
    # Not the interpreter of the environment: it may stand where that user can't look.
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-c", CURL, str(path), *headers],
        user=uid, group=uid, extra_groups=more.get("groups", []), cwd="/",
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    status, _, body = done.stdout.partition(" ")
    return int(status), json.loads(body)


def test_the_servers_own_user_may_do_all(store, place) -> None:
    with at_socket(Authenticator(store, SystemClock()), place) as client:
        answer = client.get("/")
        assert answer.json() == {"name": f"uid:{os.geteuid()}", "verbs": sorted(Verb)}
    assert failed(store) == []


@pytest.mark.root
def test_others_are_who_the_settings_say(store, place) -> None:
    peers = read_peers(
        {f"uid:{STRANGER}": {"agent": "bot", "verbs": ["run"], "profiles": ["agent"]},
         "gid:54000": {"agents": ["*"], "verbs": ["read"]}}
    )  # fmt: skip
    with at_socket(Authenticator(store, SystemClock(), peers), place):
        found = call_as(STRANGER, place)
        assert found == (200, {"name": f"uid:{STRANGER}", "verbs": ["run"]})
        found = call_as(STRANGER + 1, place, groups=[54000])
        assert found == (200, {"name": f"uid:{STRANGER + 1}", "verbs": ["read"]})
        status, told = call_as(STRANGER + 2, place)
        assert (status, told["code"]) == (401, "unauthenticated")
        # Nothing that is sent changes what the kernel says.
        for header in ("X-Forwarded-For=127.0.0.1", "Forwarded=for=uid:0", "Remote-User=root"):
            assert call_as(STRANGER + 2, place, header)[0] == 401
    assert {each["peer"] for each in failed(store)} == {f"uid:{STRANGER + 2}"}
    assert {tuple(each["why"]) for each in failed(store)} == {("peer unknown",)}


@pytest.mark.root
def test_a_confined_program_of_root_is_not_root(store, place) -> None:
    """As one in a container, or in a sandbox of runner's."""
    with at_socket(Authenticator(store, SystemClock()), place) as client:
        words = ["unshare", "--user", "--map-root-user", "/usr/bin/python3", "-I", "-c", CURL]
        done = subprocess.run(
            [*words, str(place)], capture_output=True, text=True, cwd="/", check=False
        )
        if done.returncode != 0:
            pytest.skip(f"no user namespace can be made here: {done.stderr}")
        assert done.stdout.startswith("401 ")
        assert client.get("/").status_code == 200


def test_a_key_is_who_calls_whoever_the_peer_is(store, place) -> None:
    key, text = Keys(store, SystemClock()).create("bot", BOT, "1d")
    with at_socket(Authenticator(store, SystemClock()), place) as client:
        for header in (bearer(text), {"authorization": f"bearer  {text}"}):
            answer = client.get("/", headers=header).json()
            assert answer == {"name": f"key:{key.id}", "verbs": ["apply", "read", "run"]}
        # The peer could do all; a credential that is not taken does not fall back to that.
        for wrong in ("x", "Bearer", "Basic cm9vdDo=", f"Bearer x{text}",
                      f"Bearer {text},{text}", f"Token {text}", f"Bearer {text}\u00e9",
                      f"bearer\t{text}"):  # fmt: skip
            raw = [(b"authorization", wrong.encode("latin-1"))]
            assert client.get("/", headers=raw).status_code == 401
        twice = [("authorization", f"Bearer {text}")] * 2
        assert client.get("/", headers=twice).status_code == 401


def test_at_a_port_a_key_is_always_needed(store) -> None:
    _, text = Keys(store, SystemClock()).create("bot", BOT, "1d")
    with at_port(Authenticator(store, SystemClock())) as client:
        answer = client.get("/")
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == 'Bearer realm="runner"'
        assert "runner keys create" in answer.json()["message"]
        assert client.get("/", headers=bearer(text)).status_code == 200
        assert client.get("/", headers={"X-Forwarded-For": "127.0.0.1"}).status_code == 401


def test_over_tls(store, tmp_path) -> None:
    import ssl

    tls = make_tls(tmp_path)
    _, text = Keys(store, SystemClock()).create("bot", BOT, "1d")
    with at_port(Authenticator(store, SystemClock()), **tls_options(tls)) as plain:
        url = str(plain.base_url).replace("http:", "https:")
        context = ssl.create_default_context(cafile=str(tls.cert))
        with httpx.Client(base_url=url, verify=context) as client:
            assert client.get("/", headers=bearer(text)).status_code == 200
            assert client.get("/").status_code == 401
        with pytest.raises(httpx.HTTPError):
            plain.get("/", headers=bearer(text))


def test_unknown_revoked_and_ended_look_alike(store) -> None:
    keys = Keys(store, SystemClock())
    ended, ended_text = keys.create("ended", BOT, "2s")
    revoked, revoked_text = keys.create("revoked", BOT, "1d")
    keys.revoke("revoked")
    never = written("rnk_" + "a" * 12, "B" * 32)
    wrong = written(revoked.id, "B" * 32)
    while keys.state(ended) == "in force":
        time.sleep(0.05)
    with at_port(Authenticator(store, SystemClock())) as client:
        answers = [
            client.get("/", headers=bearer(text))
            for text in (never, wrong, ended_text, revoked_text, "rnk_x", "a.b.c")
        ]
        told = {(a.status_code, a.text, a.headers["www-authenticate"]) for a in answers}
        assert len(told) == 1
        assert 'error="invalid_token"' in answers[0].headers["www-authenticate"]
    assert [next(iter(each["why"])) for each in failed(store)] == [
        "key unknown", "key wrong", "key ended", "key revoked", "key malformed", "key malformed"
    ]  # fmt: skip
    assert [each["key"] for each in failed(store)] == [
        None, revoked.id, ended.id, revoked.id, None, None
    ]  # fmt: skip
    log = json.dumps(failed(store))
    assert not re.search("|".join(t.split("_")[2] for t in (never, ended_text, revoked_text)), log)


def test_another_process_revokes_while_a_server_runs(store, monkeypatch) -> None:
    with at_port(Authenticator(store, SystemClock())) as client:
        command = [
            sys.executable, "-c",
            "import sys; from runner.surfaces.cli.main import main; sys.exit(main())", "keys",
        ]  # fmt: skip
        environment = {**os.environ, "RUNNER_HOME": str(store.home)}
        words = ["create", "bot", "--agent", "bot", "--profile", "agent"]
        made = subprocess.run(
            [*command, *words], env=environment, capture_output=True, text=True, check=True
        )
        text = made.stdout.strip()
        assert client.get("/", headers=bearer(text)).status_code == 200
        subprocess.run([*command, "revoke", "bot"], env=environment, check=True)
        calls = 0
        while client.get("/", headers=bearer(text)).status_code == 200:
            calls += 1
            assert calls < 100_000
        assert client.get("/", headers=bearer(text)).status_code == 401


def test_a_stranger_does_not_fill_the_log(store) -> None:
    authenticate = Authenticator(store, SystemClock())
    before = store.head().size
    with at_port(authenticate) as client:
        for n in range(300):
            client.get("/", headers=bearer(written("rnk_" + "a" * 12, f"{n:032}")))
    assert store.head().size == before + SINGLY
    authenticate.failures.finish()
    assert store.head().size == before + SINGLY + 1
    assert sum(each["count"] for each in failed(store)) == 300


def test_tokens_of_an_issuer(store) -> None:
    _, text = Keys(store, SystemClock()).create("bot", BOT, "1d")
    with serving(Site()) as site:
        stated = {"issuer": site.url, "audience": "runner", "rules": RULES}
        issuers = read_issuers([stated])
        with at_port(Authenticator(store, SystemClock(), (), issuers)) as client:
            answer = client.get("/", headers=bearer(signed(site)))
            assert answer.json() == {"name": f"oidc:{site.url}#alice", "verbs": ["approve", "read"]}
            assert client.get("/", headers=bearer(text)).status_code == 200
            refused = client.get("/", headers=bearer(signed(site, OTHER)))
            assert refused.status_code == 401
            assert 'error="invalid_token"' in refused.headers["www-authenticate"]
            nobody = client.get("/", headers=bearer(signed(site, groups=None)))
            assert (nobody.status_code, nobody.json()["code"]) == (403, "forbidden")
            both = [("authorization", f"Bearer {t}") for t in (text, signed(site))]
            assert client.get("/", headers=both).status_code == 401
        site.documents["/jwks"] = (500, b"")
        with at_port(Authenticator(store, SystemClock(), (), issuers)) as client:
            answer = client.get("/", headers=bearer(signed(site)))
            assert (answer.status_code, answer.json()["code"]) == (503, "issuer_unavailable")
            assert client.get("/", headers=bearer(text)).status_code == 200
    assert [next(iter(each["why"])) for each in failed(store)] == ["token signature", "malformed"]


def test_a_log_that_can_not_be_read_lets_nobody_in(store) -> None:
    _, text = Keys(store, SystemClock()).create("bot", BOT, "1d")
    authenticate = Authenticator(store, SystemClock())
    scope = {"type": "http", "headers": [(b"authorization", f"Bearer {text}".encode())]}
    assert asyncio.run(authenticate(HTTPConnection(scope))).agent == "bot"
    time.sleep(0.3)  # until it asks again
    store.close()
    with pytest.raises(RunnerError) as caught:
        asyncio.run(authenticate(HTTPConnection(scope)))
    assert caught.value.http_status == 503


def test_everybody_who_is_served_is_told_by_one_identity(store) -> None:
    """What a scope of any kind gives: nothing where nothing is there."""
    authenticate = Authenticator(store, SystemClock())
    for scope in (
        {"type": "http", "headers": []}, {"type": "websocket", "headers": [], "state": {}},
        {"type": "http", "headers": [], "state": {"peer": None}, "client": ("127.0.0.1", 1)},
    ):  # fmt: skip
        with pytest.raises(UnauthenticatedError):
            asyncio.run(authenticate(HTTPConnection(scope)))
    assert Identity("x", frozenset(Verb), agents=ANY).reaches("a", "b") is False
