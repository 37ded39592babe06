"""What a server adds: a governed run over its API beside the library's own, on the same machine.

The library and all ways to the server take turns in one run. Behind that, how many runs a second
come through from so many clients at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import machine
import tables
from bench_start import CLI, WARM_UP, Contender
from results import destination, parser, write

import runner as library
from runner.model.identity import AGENT_VERBS, NO_TENANT, Identity

PROGRAMS = {"true": ["true"], "python3": ["python3", "-c", "print(1)"]}
CLIENTS = (1, 8, 32)
LIBRARY = "library"


@contextlib.contextmanager
def served(home: Path, listen: str) -> Iterator[str]:
    """A server there; where it listens, as `connect` takes it."""
    command = [*CLI, "serve", "--listen", listen, "--grace", "1s"]
    environment = {**os.environ, "RUNNER_HOME": str(home)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            said = "" if process.stderr is None else process.stderr.readline()
            if "listening at" not in said:
                raise SystemExit(f"bench: no server: {said}")
            yield said.split()[-1]
        finally:
            process.terminate()
            process.communicate()


def posted(client: httpx.Client, argv: list[str], folder: str | None) -> None:
    body = {"argv": argv} if folder is None else {"argv": argv, "cwd": folder}
    outcome = client.post("/v1/runs", json=body).json()
    if outcome.get("exit_code") != 0:
        raise SystemExit(f"bench: {argv} ended otherwise: {outcome}")


def ran(outcome: library.Outcome) -> None:
    if not outcome.ok:
        raise SystemExit(f"bench: a run ended as {outcome.termination}: {outcome.failure}")


def contenders(stack: contextlib.ExitStack, home: Path, work: str) -> list[Contender]:
    """Each on the same folder, in the order in which they take turns."""
    own = stack.enter_context(library.Runner(home=home / "own"))
    with library.Runner(home=home / "state") as keeper:
        who = Identity("", AGENT_VERBS, "bench", tenants=(NO_TENANT,), profiles=("agent",))
        _, key = keeper.keys.create("bench", who, "1d")
    socket = stack.enter_context(served(home / "state", f"unix:{home}/s"))
    port = stack.enter_context(served(home / "state", "127.0.0.1:0"))
    client = stack.enter_context(library.connect(socket))
    over_unix = stack.enter_context(_over_unix(socket))
    over_tcp = stack.enter_context(
        httpx.Client(base_url=f"http://{port}", headers={"Authorization": f"Bearer {key}"})
    )
    found = []
    for name, argv in PROGRAMS.items():
        ways: dict[str, Callable[[], None]] = {
            LIBRARY: lambda argv=argv: ran(own.run(argv, cwd=work)),  # type: ignore[misc]
            "its client, unix socket": lambda argv=argv: ran(client.run(argv, cwd=work)),  # type: ignore[misc]
            "httpx, unix socket": lambda argv=argv: posted(over_unix, argv, work),  # type: ignore[misc]
            "httpx, unix socket, fresh folder": lambda argv=argv: posted(over_unix, argv, None),  # type: ignore[misc]
            "httpx, TCP with a key, fresh folder": lambda argv=argv: posted(over_tcp, argv, None),  # type: ignore[misc]
        }
        found += [Contender(way, name, once) for way, once in ways.items()]
    return found


def _over_unix(socket: str) -> httpx.Client:
    transport = httpx.HTTPTransport(uds=socket.removeprefix("unix:"))
    return httpx.Client(transport=transport, base_url="http://runner", timeout=120)


def rows(found: list[Contender]) -> list[dict[str, object]]:
    """A row each, with what its median is above the library's."""
    medians = {(c.name, c.program): c.median_ms for c in found}
    return [
        {
            "contender": c.name, "program": c.program, "runs": len(c.times_ms),
            "median_ms": round(c.median_ms, 2), "p99_ms": round(c.p99_ms, 2),
            "above_library_ms": round(c.median_ms - medians[LIBRARY, c.program], 2),
        }
        for c in found
    ]  # fmt: skip


def rates(home: Path, seconds: float) -> list[dict[str, object]]:
    """Runs of `true` a second from so many clients, each with a connection of its own."""
    found: list[dict[str, object]] = []
    with served(home / "state", f"unix:{home}/s") as socket:
        for count in CLIENTS:
            took_ms: list[float] = []
            end_s = time.perf_counter() + seconds

            def work(took_ms: list[float] = took_ms, end_s: float = end_s) -> None:
                with _over_unix(socket) as client:
                    while not took_ms or time.perf_counter() < end_s:
                        began_s = time.perf_counter()
                        posted(client, PROGRAMS["true"], None)
                        took_ms.append((time.perf_counter() - began_s) * 1e3)

            began_s = time.perf_counter()
            threads = [threading.Thread(target=work) for _ in range(count)]
            for each in threads:
                each.start()
            for each in threads:
                each.join()
            passed_s = time.perf_counter() - began_s
            took_ms.sort()
            found.append(
                {
                    "clients": count,
                    "runs_a_second": round(len(took_ms) / passed_s, 1),
                    "median_ms": round(statistics.median(took_ms), 1),
                    "p99_ms": round(took_ms[min(len(took_ms) - 1, int(len(took_ms) * 0.99))], 1),
                }
            )
    return found


def main() -> int:
    options_of = parser("api", __doc__)
    options_of.add_argument("--runs", type=int, default=100, metavar="N", help="turns; default 100")
    options_of.add_argument(
        "--seconds", type=float, default=10, metavar="S", help="of each number of clients"
    )
    options = options_of.parse_args()
    if options.show:
        print(tables.api_markdown(json.loads(options.show.read_text())))
        return 0
    described = machine.describe()
    out = destination("api", options.out, described)
    with tempfile.TemporaryDirectory(prefix="runner-bench-") as folder:
        home, work = Path(folder), f"{folder}/work"
        Path(work).mkdir()
        with contextlib.ExitStack() as stack:
            found = contenders(stack, home, work)
            for turn in range(-WARM_UP, options.runs):
                for each in found:
                    if turn < 0:
                        each.once()
                    else:
                        each.measure()
        document: dict[str, object] = {
            "command": f"scripts/bench api --runs {options.runs} --seconds {options.seconds:g}",
            "machine": described,
            "rows": rows(found),
            "rates": rates(home, options.seconds),
        }
    described["load_1m_after"] = os.getloadavg()[0]
    write(out, document)
    print(f"{tables.api_markdown(document)}\n\nwritten to {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
