"""The rival's side of `bench audit`, run by a Python that has it: it times itself.

Reads a line of JSON for each measurement, and answers it with a line. Its log is in memory, and
ends with the process.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
import time
from typing import Any


def written(seconds: float, events: list[dict[str, Any]]) -> dict[str, Any]:
    """How long each event took, one thread writing for so many seconds."""
    log = importlib.import_module("agentmesh.governance.audit").AuditLog()
    took_ns = []
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        event = events[len(took_ns) % len(events)]
        began_ns = time.perf_counter_ns()
        _log(log, event)
        took_ns.append(time.perf_counter_ns() - began_ns)
    return {"took_ns": took_ns}


def verified(count: int, events: list[dict[str, Any]]) -> dict[str, Any]:
    """How long verifying so many takes, and asking for one agent's."""
    log = importlib.import_module("agentmesh.governance.audit").AuditLog()
    for number in range(count):
        _log(log, events[number % len(events)])
    began_ns = time.perf_counter_ns()
    holds, why = log.verify_integrity()
    took_ns = time.perf_counter_ns() - began_ns
    if not holds:
        raise SystemExit(why)
    return {"took_ns": [took_ns]}


def _log(log: Any, event: dict[str, Any]) -> None:
    log.log(event["kind"], event["agent"], event["kind"], data=event["data"])


def main() -> int:
    logging.disable(logging.CRITICAL)
    events = json.loads(sys.stdin.readline())
    print('"ready"', flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if "seconds" in asked:
            answer = written(asked["seconds"], events)
        else:
            answer = verified(asked["count"], events)
        print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
