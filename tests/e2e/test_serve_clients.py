"""`runner serve` and clients that are slow, cut off, hostile, or in a sandbox."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time

import pytest
from serving import serving

pytestmark = pytest.mark.usefixtures("native")

HEAD = "POST /v1/runs HTTP/1.1\r\nHost: r\r\nContent-Type: application/json\r\n"


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


def answered(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body of what comes until the server closes; 0: nothing came."""
    read = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            read += piece
    head, _, body = read.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, body


def pushed(connection: socket.socket, piece: bytes, times: int) -> None:
    """As often as it is taken."""
    with contextlib.suppress(OSError):
        for _ in range(times):
            connection.sendall(piece)


def test_bodies_and_headers_have_an_end(home):
    with serving(home, "--body", "64KiB") as (server, client):
        large = json.dumps({"shell": "#" * 70_000})
        for headers in (
            f"Content-Length: {len(large)}\r\n\r\n{large}",
            f"Transfer-Encoding: chunked\r\n\r\n{len(large):x}\r\n{large}\r\n0\r\n\r\n",
        ):
            with server.raw() as connection:
                connection.sendall(f"{HEAD}{headers}".encode())
                status, body = answered(connection)
                assert (status, json.loads(body)["error"]["code"]) == (413, "too_large")
        endless = (
            (f"{HEAD}Transfer-Encoding: chunked\r\n\r\n", b"400\r\n" + b" " * 1024 + b"\r\n"),
            (f"{HEAD}Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: " + b"x" * 1024 + b"\r\n"),
            (HEAD, b"X: " + b"x" * 1024 + b"\r\n"),
            (f"{HEAD}X: ", b"x" * 1024),
            ("GET /", b"x" * 1024),
        )
        for begin, piece in endless:
            with server.raw() as connection:
                connection.sendall(begin.encode())
                pushed(connection, piece, 100_000)
                assert answered(connection)[0] in (0, 413, 431), begin
        for nonsense in (b"\0" * 100, b"GET / HTTP/9.9\r\n\r\n", b"GET \xff HTTP/1.1\r\n\r\n"):
            with server.raw() as connection:
                connection.sendall(nonsense)
                status, body = answered(connection)
                assert (status, json.loads(body)["error"]["code"]) == (400, "bad_request")
        smuggled = f"{HEAD}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        with server.raw() as connection:
            connection.sendall(smuggled.encode())
            assert answered(connection)[0] == 400
        # The allowed twin.
        assert client.post("/v1/runs", json={"shell": "#" * 60_000}).status_code == 200


def test_who_never_ends_a_request_is_not_waited_for(home):
    with serving(home) as (server, client):
        with server.raw() as silent, server.raw() as begun, server.raw() as idle:
            begun.sendall(b"GET /v1/r")
            idle.sendall(b"\r\n")
            for connection in (silent, begun, idle):
                assert answered(connection)[0] == 408
        assert client.get("/healthz").status_code == 200


def test_who_leaves_at_any_moment_leaves_nothing(home):
    body = json.dumps({"argv": ["true"]})
    text = f"{HEAD}Content-Length: {len(body)}\r\n\r\n{body}".encode()
    with serving(home) as (server, client):

        def held() -> int:
            return len(os.listdir(f"/proc/{server.process.pid}/fd"))

        for _ in range(8):  # threads and what they open once are there then
            client.post("/v1/runs", json={"argv": ["true"]})
            client.get("/v1/audit/events")
        before = held()
        for cut in range(0, len(text) + 1, 7):
            with server.raw() as leaving:
                leaving.sendall(text[:cut])
        for _ in range(5):
            with server.raw() as leaving:
                leaving.sendall(b"GET /v1/audit/events HTTP/1.1\r\nHost: r\r\n\r\n")
        while client.get("/v1/runs?status=running").json()["runs"]:
            pass
        while client.get("/v1/runs?status=queued").json()["runs"]:
            pass
        assert client.post("/v1/runs", json={"argv": ["true"]}).json()["exit_code"] == 0
        left = held()
        for _ in range(100):
            if (left := held()) <= before:
                break
            time.sleep(0.1)
        assert left <= before


CALL = """
import socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(sys.argv[1])
    connection.sendall(b"GET /v1/runs HTTP/1.1\\r\\nHost: r\\r\\nConnection: close\\r\\n\\r\\n")
    print(connection.recv(100).split()[1].decode())
"""


def test_a_program_in_a_sandbox_is_not_its_user(home, tmp_path, monkeypatch):
    """The profile shows the socket, and the program has its user's uid."""
    shown = tmp_path / "shown"
    shown.mkdir()
    monkeypatch.setenv("RUNNER_PROFILE_DIRS", str(tmp_path))
    profile = f"extends: agent\ndescription: d\nread: [{shown}]\n"
    (tmp_path / "shows.yaml").write_text(profile)
    with serving(home) as (server, client):
        place = str(shown / "s")
        os.link(server.path, place)
        asked = {"code": CALL, "language": "python", "args": [place], "profile": "shows"}
        outcome = client.post("/v1/runs", json=asked).json()
        if os.geteuid() == 0:  # root's runs are another user's
            assert "PermissionError" in outcome["stderr"]
        else:
            assert outcome["stdout"] == "401\n", outcome["stderr"]
        # The allowed twin: the same program, of the same user, outside.
        outside = subprocess.run(
            [sys.executable, "-c", CALL, place], capture_output=True, text=True, check=True
        )
        assert outside.stdout == "200\n"
