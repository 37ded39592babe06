"""`runner serve` and clients that cut, repeat, overfill and never read."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import tempfile
from pathlib import Path

import pytest
from serving import serving

pytestmark = pytest.mark.usefixtures("native")

HEAD = "POST /v1/runs HTTP/1.1\r\nHost: r\r\nContent-Type: application/json\r\n"
BODY = json.dumps({"argv": ["true"]})
WHOLE = f"{HEAD}Content-Length: {len(BODY)}\r\n\r\n{BODY}".encode()


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


def settled(client) -> int:
    """How many runs there were, once none goes on."""
    for status in ("queued", "running"):
        while client.get(f"/v1/runs?status={status}").json()["runs"]:
            pass
    return len(client.get("/v1/runs?limit=200").json()["runs"])


def read_all(connection: socket.socket) -> bytes:
    read = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            read += piece
    return read


def test_a_request_that_is_cut_anywhere_runs_nothing(home):
    with serving(home) as (server, client):
        for cut in range(len(WHOLE)):
            with server.raw() as leaving:
                leaving.sendall(WHOLE[:cut])
        assert settled(client) == 0
        # The allowed twin: all of it; it runs, and once, whether anybody is there at its end.
        with server.raw() as leaving:
            leaving.sendall(WHOLE)
            while not client.get("/v1/runs").json()["runs"]:
                pass
        assert settled(client) == 1
        assert client.get("/v1/runs").json()["runs"][0]["termination"] == "exited"


def test_requests_behind_each_other_run_once_each_and_in_order(home):
    with serving(home) as (server, client):
        texts = [json.dumps({"shell": f"echo {n}"}) for n in range(5)]
        asked = "".join(f"{HEAD}Content-Length: {len(t)}\r\n\r\n{t}" for t in texts)
        last = "GET /healthz HTTP/1.1\r\nHost: r\r\nConnection: close\r\n\r\n"
        with server.raw() as connection:
            connection.sendall((asked + last).encode())
            read = read_all(connection)
        assert read.count(b"HTTP/1.1 200 OK") == 6
        places = [read.index(f'"stdout":"{n}\\n"'.encode()) for n in range(5)]
        assert places == sorted(places)
        assert settled(client) == 5
        # A second one that is cut runs nothing; the first one may be seen to be gone too.
        with server.raw() as connection:
            connection.sendall(asked[: len(asked) // 5].encode() + WHOLE[:-1])
            connection.shutdown(socket.SHUT_WR)
            read_all(connection)
        assert settled(client) in (5, 6)


def test_chunks_that_lie_run_nothing(home):
    chunked = f"{HEAD}Transfer-Encoding: chunked\r\n\r\n"
    size = f"{len(BODY):x}"
    lies = (
        f"{chunked}{len(BODY) - 1:x}\r\n{BODY}\r\n0\r\n\r\n",
        f"{chunked}-1\r\n{BODY}\r\n0\r\n\r\n",
        f"{chunked}0x{size}\r\n{BODY}\r\n0\r\n\r\n",
        f"{chunked}{'f' * 17}\r\n{BODY}\r\n0\r\n\r\n",
        f"{chunked}{size} \r\n{BODY}x0\r\n\r\n",
        f"{HEAD}Transfer-Encoding: chunked, chunked\r\n\r\n{BODY}",
        f"{HEAD}Transfer-Encoding: gzip\r\n\r\n{BODY}",
        f"{HEAD}Content-Length: +{len(BODY)}\r\n\r\n{BODY}",
        f"{HEAD}Content-Length: {len(BODY)}\r\nContent-Length: 1\r\n\r\n{BODY}",
        f"{HEAD}Content-Length: {len(BODY)}, {len(BODY)}\r\n\r\n{BODY}",
    )
    with serving(home) as (server, client):
        for lie in lies:
            with server.raw() as connection:
                connection.sendall(lie.encode())
                connection.shutdown(socket.SHUT_WR)
                read = read_all(connection)
                assert read[:12] in (b"", b"HTTP/1.1 400", b"HTTP/1.1 411"), (lie, read)
        assert settled(client) == 0
        with server.raw() as connection:
            asked = chunked.replace("chunked\r\n", "chunked\r\nConnection: close\r\n")
            connection.sendall(f"{asked}{size}\r\n{BODY}\r\n0\r\n\r\n".encode())
            assert read_all(connection).startswith(b"HTTP/1.1 200")
        assert settled(client) == 1


def test_a_huge_body_is_not_taken_in(home):
    with serving(home) as (server, client):
        with server.raw() as connection:
            connection.sendall(f"{HEAD}Content-Length: {100 << 20}\r\n\r\n".encode())
            taken = 0
            with contextlib.suppress(OSError):
                for _ in range(100):
                    connection.sendall(b" " * (1 << 20))
                    taken += 1
            assert taken < 40
        assert client.post("/v1/runs", json={"argv": ["true"]}).json()["exit_code"] == 0


def test_more_connections_than_are_taken_are_told_so_and_do_no_harm(home):
    with serving(home) as (server, client), contextlib.ExitStack() as stack:
        assert client.get("/healthz").status_code == 200  # and its connection stays
        refused = 0
        for _ in range(600):
            each = stack.enter_context(server.raw())
            with contextlib.suppress(OSError):  # it is refused, and closed, before that
                each.sendall(b"GET /healthz HTTP/1.1\r\nHost: r\r\n\r\n")
            refused += each.recv(12) == b"HTTP/1.1 503"
        assert refused >= 600 - 512
        assert client.post("/v1/runs", json={"argv": ["true"]}).json()["exit_code"] == 0
        stack.close()
        with server.client() as another:
            while another.get("/healthz").status_code != 200:
                pass


def test_who_never_reads_a_stream_holds_nobody_up(home):
    with serving(home) as (server, client), contextlib.ExitStack() as stack:
        body = {"shell": "yes | head -c 8000000", "wait": False}
        run_id = client.post("/v1/runs", json=body).json()["id"]
        deaf = [stack.enter_context(server.raw()) for _ in range(50)]
        for each in deaf:
            each.sendall(f"GET /v1/runs/{run_id}/events HTTP/1.1\r\nHost: r\r\n\r\n".encode())
        select.select(deaf, [], [], 60)
        while client.get(f"/v1/runs/{run_id}").json()["status"] != "ended":
            pass
        assert client.post("/v1/runs", json={"argv": ["true"]}).json()["exit_code"] == 0
        with client.stream("GET", f"/v1/runs/{run_id}/events") as stream:
            assert "event: outcome" in list(stream.iter_lines())


@pytest.mark.root
def test_another_user_can_not_take_all_connections(home, monkeypatch):
    peers = {"uid:54321": {"agent": "bot", "verbs": ["read"]}}
    monkeypatch.setenv("RUNNER_SERVER_PEERS", json.dumps(peers))
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        with serving(Path(folder) / "state") as (server, client):
            told, tell = os.pipe()
            goes_on, end = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(end)
                os.setgroups([])
                os.setgid(54_322)
                os.setuid(54_322)  # whom no rule lets do anything
                held = [server.raw() for _ in range(600)]
                refused = sum(bool(select.select([each], [], [], 0.05)[0]) for each in held[128:])
                os.write(tell, str(refused).encode())
                os.read(goes_on, 1)
                os._exit(0)
            os.close(tell)
            try:
                refused = int(os.read(told, 100))
                with server.client() as another:  # while they are held
                    assert another.get("/v1/runs").status_code == 200
                assert client.get("/healthz").status_code == 200
            finally:
                os.close(end)
                os.waitpid(child, 0)
                os.close(told)
                os.close(goes_on)
            assert refused == 600 - 128
