"""The examples of the exec API do what they say, against a real server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from serving import Server, serving

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "api"
pytestmark = pytest.mark.usefixtures("native")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    with serving(tmp_path_factory.mktemp("served") / "home") as (server, _):
        yield server


def said(server: Server, *command: str) -> list[str]:
    root = str(EXAMPLES.parents[1])
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    kinds = {
        row["event"]["kind"] for row in server.client().get("/v1/audit/events").json()["events"]
    }
    assert "run.ended" in kinds
    return done.stdout.splitlines()


def test_curl(server):
    lines = said(server, str(EXAMPLES / "curl.sh"), str(server.path))
    parts = "\n".join(lines).split("\n")
    steps = [n for n, line in enumerate(parts) if line[:2] in {f"{k}." for k in range(1, 7)}]
    run, events, decided, denied, keyed, session = (
        parts[a + 1 : b] for a, b in zip(steps, [*steps[1:], None], strict=True)
    )
    assert [line for line in run if line] == ["777"]
    assert events[0] == "event: decision"
    assert events[-1] == "event: outcome"
    assert "event: output" in events
    assert decided == ["deny"]
    assert denied[0] == "denied"
    assert len(denied) > 1
    assert all(denied)
    assert len(keyed) == 2
    assert len(set(keyed)) == 1
    assert session == ["exited", "42", "exited"]


def test_python(server):
    lines = said(server, sys.executable, str(EXAMPLES / "client.py"), f"unix:{server.path}")
    told = dict(line.split(": ", 1) for line in lines if not line.startswith("came"))
    assert told["output"] == "777"
    assert told["ended"] == "exited"
    assert told["denied"].startswith("True | ")
    assert told["would be"] == "deny"
    assert told["in the session"] == "42"
    assert any(line.startswith("came: ") for line in lines)


def test_agent(server):
    lines = said(server, sys.executable, str(EXAMPLES / "agent.py"), f"unix:{server.path}")
    asked = lines.index("$ sudo cat shop.py")
    assert lines[asked + 1].startswith("denied: ")
    assert "$ cat shop.py" in lines[asked:]
    assert "exited 0: holds" in lines
    assert lines[-1] == "    return a + b"
    # The session is ended with the program.
    assert server.client().get("/v1/sessions").json()["sessions"] == []


def test_the_agents_budget_is_kept(server, tmp_path):
    """The same loop, with next to nothing left: the first command is ended by its limit."""
    text = (EXAMPLES / "agent.py").read_text()
    assert "BUDGET_S = 60.0" in text
    (tmp_path / "agent.py").write_text(text.replace("BUDGET_S = 60.0", "BUDGET_S = 0.3"))
    (tmp_path / "answers.json").write_text(
        '[{"thought": "wait", "command": "sleep 1000"}, {"thought": "more", "command": "ls"}]'
    )
    lines = said(server, sys.executable, str(tmp_path / "agent.py"), f"unix:{server.path}")
    assert any(line.startswith("limit ") for line in lines)
    assert "# the budget is used up" in lines
    assert "$ ls" not in lines
