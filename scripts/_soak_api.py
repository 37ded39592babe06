"""Many clients at once on a running exec API: what was accepted is recorded once, and ends.

Told by `scripts/soak-api`. Clients wait for runs, follow, cancel, are denied, send again, and leave
in the middle. Ends with 1 where a run that was accepted has not exactly one beginning and one end
in the log, an answer was none that is promised, the server's memory grew, or the log does not
verify.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psutil

from runner import Runner

COMMAND = (
    sys.executable, "-c", "import sys; from runner.surfaces.cli.main import main; sys.exit(main())"
)  # fmt: skip
LOOK_S = 5.0
GROWTH = 0.10
GROWTH_BLOCKS = 20_000
"""Between the middle and the end: what is remembered is bounded, and full by the middle."""
KEYS_SHARE = 0.01
"""Of requests with an Idempotency-Key, of which ten thousand are kept."""


class Soak:
    """What clients did, and what came of it."""

    def __init__(self, path: Path, seconds: float) -> None:
        self.path = path
        self.end_s = time.monotonic() + seconds
        self.did: Counter[str] = Counter()
        self.accepted: set[str] = set()
        self.wrong: list[str] = []
        self.samples: list[tuple[float, float, float]] = []
        """Seconds, blocks in use, resident bytes."""

    def client(self) -> httpx.AsyncClient:
        transport = httpx.AsyncHTTPTransport(uds=str(self.path))
        return httpx.AsyncClient(transport=transport, base_url="http://runner", timeout=300)

    def fault(self, what: str) -> None:
        self.did["faults"] += 1
        if len(self.wrong) < 20:
            self.wrong.append(what)

    async def begun(self, client: httpx.AsyncClient, **body: Any) -> httpx.Response | None:
        """An answer that began a run; None: the server was busy, and said when to come back."""
        key = {"Idempotency-Key": random.randbytes(8).hex()} if random.random() < KEYS_SHARE else {}
        answer = await client.post("/v1/runs", json=body, headers=key)
        if answer.status_code in (429, 503) and "retry-after" in answer.headers:
            self.did[f"told to come back ({answer.status_code})"] += 1
            await asyncio.sleep(float(answer.headers["retry-after"]) * random.random())
            return None
        if answer.status_code not in (200, 202):
            self.fault(f"POST /v1/runs: {answer.status_code} {answer.text[:300]}")
            return None
        told = answer.json()
        self.accepted.add(told.get("run_id") or told["id"])
        if key:
            again = await client.post("/v1/runs", json=body, headers=key)
            self.did["sent again"] += 1
            second = again.json()
            if (second.get("run_id") or second.get("id")) != (told.get("run_id") or told["id"]):
                self.fault(f"sent again, another answer: {again.status_code} {again.text[:300]}")
        return answer

    async def wait(self, client: httpx.AsyncClient) -> None:
        answer = await self.begun(client, argv=["true"])
        if answer is not None and answer.json()["exit_code"] != 0:
            self.fault(f"true: {answer.text[:300]}")

    async def deny(self, client: httpx.AsyncClient) -> None:
        answer = await self.begun(client, shell="sudo ls")
        if answer is not None and answer.json()["termination"] != "denied":
            self.fault(f"sudo: {answer.text[:300]}")

    async def follow(self, client: httpx.AsyncClient) -> None:
        answer = await self.begun(client, shell="echo one; echo two > new", wait=False)
        if answer is None:
            return
        place = f"/v1/runs/{answer.json()['id']}"
        async with client.stream("GET", f"{place}/events") as stream:
            kinds = [kind async for kind in _kinds(stream)]
        if kinds[:1] != ["decision"] or kinds[-1:] != ["outcome"]:
            self.fault(f"{place}: {kinds}")

    async def cancel(self, client: httpx.AsyncClient) -> None:
        answer = await self.begun(client, argv=["sleep", "1000"], wait=False)
        if answer is None:
            return
        place = f"/v1/runs/{answer.json()['id']}"
        await asyncio.sleep(random.random())
        told = await client.delete(place)
        if told.status_code != 202:
            self.fault(f"DELETE {place}: {told.status_code} {told.text[:300]}")
        while (told := await client.get(place)).json().get("status") in ("queued", "running"):
            await asyncio.sleep(0.2)
        outcome = told.json().get("outcome") or {}
        if outcome.get("termination") != "cancelled":
            self.fault(f"{place}: {told.status_code} {outcome or told.text[:300]}")

    async def leave(self, client: httpx.AsyncClient) -> None:
        try:
            async with asyncio.timeout(random.random() * 0.3):
                await self.begun(client, argv=["true"], cancel_on_disconnect=random.random() < 0.5)
        except TimeoutError:
            await client.aclose()

    async def look(self, client: httpx.AsyncClient) -> None:
        path = random.choice(("/v1/runs", "/v1/audit/events?newest_first=true", "/v1/budgets"))
        told = await client.get(path)
        if told.status_code != 200:
            self.fault(f"GET {path}: {told.status_code} {told.text[:300]}")

    async def one(self) -> None:
        """One client, until the end."""
        deeds = (self.wait, self.wait, self.deny, self.follow, self.cancel, self.leave, self.look)
        client = self.client()
        try:
            while time.monotonic() < self.end_s:
                deed = random.choice(deeds)
                try:
                    await deed(client)
                except (httpx.HTTPError, KeyError, ValueError) as error:
                    self.fault(f"{deed.__name__}: {type(error).__name__}: {error}")
                self.did[deed.__name__] += 1
                if client.is_closed:
                    client = self.client()
        finally:
            await client.aclose()

    async def watch(self, process: psutil.Process) -> None:
        began_s = time.monotonic()
        async with self.client() as client:
            while time.monotonic() < self.end_s:
                told = (await client.get("/metrics")).text
                blocks = float(told.partition("\nrunner_memory_blocks ")[2].partition("\n")[0])
                now_s = time.monotonic() - began_s
                self.samples.append((now_s, blocks, process.memory_info().rss))
                await asyncio.sleep(LOOK_S)

    async def all_of_it(self, clients: int, process: psutil.Process) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.watch(process))
            for _ in range(clients):
                group.create_task(self.one())
        async with self.client() as client:
            for status in ("queued", "running"):
                while (await client.get(f"/v1/runs?status={status}")).json()["runs"]:
                    await asyncio.sleep(0.2)

    def check_memory(self) -> None:
        third = len(self.samples) // 3
        if third < 3:
            print("too short to tell of memory")
            return
        for name, column in (("blocks in use", 1), ("resident bytes", 2)):
            values = [sample[column] for sample in self.samples]
            middle, last = (statistics.median(v) for v in (values[third:-third], values[-third:]))
            print(f"{name}: {values[0]:.0f} at first, {middle:.0f} then, {last:.0f} at the end")
            if column == 1 and last > middle * (1 + GROWTH) + GROWTH_BLOCKS:
                self.fault(f"{name} grew from {middle:.0f} to {last:.0f}")

    def check_log(self, home: Path) -> None:
        found: dict[str, Counter[str]] = {}
        with Runner(home=home) as runner:
            for event in runner.store.events():
                if event.run_id is not None:
                    found.setdefault(event.run_id, Counter())[event.kind] += 1
        print(f"{len(self.accepted)} runs were accepted and told of, {len(found)} stand in the log")
        for run_id in self.accepted | set(found):
            kinds = found.get(run_id, Counter())
            if (kinds["run.decided"], kinds["run.ended"], kinds["run.recovered"]) != (1, 1, 0):
                self.fault(f"{run_id}: {dict(kinds)}")


async def _kinds(stream: httpx.Response) -> AsyncIterator[str]:
    async for line in stream.aiter_lines():
        if line.startswith("event: "):
            yield line.removeprefix("event: ")


def main() -> int:
    asked = argparse.ArgumentParser(prog="scripts/soak-api", description=__doc__)
    asked.add_argument("--minutes", type=float, default=10.0, help="how long (10)")
    asked.add_argument("--clients", type=int, default=200, help="how many at once (200)")
    asked.add_argument("--seed", type=int, default=None, help="of the clients' choices")
    given = asked.parse_args()
    random.seed(given.seed)
    with tempfile.TemporaryDirectory() as text:
        return soaked(Path(text), given)


def soaked(folder: Path, given: argparse.Namespace) -> int:
    """Exit code."""
    environment = {name: text for name, text in os.environ.items() if name[:7] != "RUNNER_"}
    environment |= {
        "RUNNER_HOME": str(folder / "home"),
        "XDG_CONFIG_HOME": str(folder),
        "TMPDIR": str(folder),
    }
    path = folder / "s"
    server = subprocess.Popen(
        [*COMMAND, "serve", "--listen", f"unix:{path}", "--queue", str(given.clients)],
        env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    soak = Soak(path, 60 * given.minutes)
    try:
        assert server.stderr is not None
        first = server.stderr.readline()
        if "listening" not in first:
            print(first + server.stderr.read(), file=sys.stderr)
            return 1
        asyncio.run(soak.all_of_it(given.clients, psutil.Process(server.pid)))
    finally:
        server.send_signal(signal.SIGTERM)
        said = server.communicate(timeout=300)[1]
    if said or server.returncode:
        soak.fault(f"the server ended with {server.returncode} and said {said[:2000]!r}")
    soak.check_memory()
    soak.check_log(folder / "home")
    verified = subprocess.run([*COMMAND, "audit", "verify"], env=environment, check=False)
    if verified.returncode != 0:
        soak.fault("the log does not verify")
    print(json.dumps(dict(sorted(soak.did.items())), indent=1))
    for each in soak.wrong:
        print(f"wrong: {each}", file=sys.stderr)
    return int(bool(soak.wrong))


if __name__ == "__main__":
    sys.exit(main())
