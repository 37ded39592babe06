"""The process in which Rego policies are evaluated, and the talk with it.

rego-cpp has no bound of its own: a policy can take any time and memory, and can abort its process.
So it runs here, with nothing of the supervisor's but a pipe, and what becomes of it is an answer.

A message is its length (4 bytes, big-endian) and JSON. To the worker: `{"load": [[name, text], …]}`
once, then `{"ask": [document, …]}`, each document a JSON text. Back: `{"error": …}`, or
`{"answers": [{"value": …} or {"error": …}, …]}`.

Run as a script, with the folder that regopy stands in; standard library besides.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from typing import Any

CPU_LIMIT_S = 5
"""Of one message, in whole seconds, as the kernel counts; one question takes a millisecond."""
MEMORY_LIMIT_BYTES = 1 << 30
"""Address space beside what the library reserves when it is loaded (256 GiB, of which it uses some
megabytes). A large document takes a tenth of it."""
MESSAGE_LIMIT_BYTES = 64 << 20
HEAD_BYTES = 4

BOUNDARY = """package runner_boundary

answer := {
  "words": [base64.encode(x) | x := data.runner.decision; is_string(x)],
  "odd": [true | x := data.runner.decision; not is_string(x); not is_object(x)],
  "keys": [base64.encode(k) |
    is_object(data.runner.decision)
    some k in object.keys(data.runner.decision)
  ],
  "effects": [base64.encode(x) |
    is_object(data.runner.decision)
    x := data.runner.decision.effect
  ],
  "reasons": [base64.encode(x) |
    is_object(data.runner.decision)
    x := data.runner.decision.reason
  ],
  "deny": [base64.encode(x) | some x in data.runner.deny],
  "ask": [base64.encode(x) | some x in data.runner.ask],
  "allow": [x | x := data.runner.allow; is_boolean(x)],
  "allows": [base64.encode(x) | not is_boolean(data.runner.allow); some x in data.runner.allow],
  "handles": [base64.encode(x) | some x in data.runner.handles],
}
"""
"""Texts leave as base64: rego-cpp writes its results without escaping quotes, so that a text with
one in it could add a key of its own."""
ENTRY = "runner_boundary/answer"


def framed(message: object) -> bytes:
    """A message as it goes over the pipe."""
    body = json.dumps(message).encode()
    return len(body).to_bytes(HEAD_BYTES, "big") + body


def main() -> None:
    """Answer messages until the pipe is closed."""
    out = os.dup(1)
    # rego-cpp prints what it thinks of a policy.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    sys.path.insert(0, sys.argv[1])
    loaded: Any = None
    while (message := _read()) is not None:
        _bound_time()
        if "load" in message:
            loaded, answer = _load(message["load"])
        else:
            answer = {"answers": [_answer(loaded, each) for each in message["ask"]]}
        _write(out, framed(answer))


def _bound_time() -> None:
    """The kernel ends this process when it takes too long, whether or not anybody watches."""
    limit = int(time.process_time()) + 1 + CPU_LIMIT_S
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


def _bound_memory() -> None:
    with open("/proc/self/statm", encoding="ascii") as file:  # proc(5): size, in pages
        size_bytes = int(file.read().split()[0]) * resource.getpagesize()
    limit = size_bytes + MEMORY_LIMIT_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _load(texts: list[tuple[str, str]]) -> tuple[Any, dict[str, Any]]:
    import regopy  # noqa: PLC0415  (only this process loads it)

    interpreter = regopy.Interpreter()
    _bound_memory()
    # What fails in a built-in function would count as undefined, and a deny rule as not met.
    interpreter.strict_built_in_errors = True
    for name, text in [*texts, ("runner_boundary.rego", BOUNDARY)]:
        try:
            interpreter.add_module(name, text)
        except Exception as error:
            return None, {"error": f"{name}: {error}"}
    try:
        bundle = interpreter.build(None, [ENTRY])
        if not bundle.ok():
            return None, {"error": "the policies don't compile together"}
    except Exception as error:
        return None, {"error": str(error)}
    return (interpreter, bundle), {"answers": []}


def _answer(loaded: Any, document: str) -> dict[str, Any]:
    interpreter, bundle = loaded
    try:
        interpreter.set_input_term(document)
        output = interpreter.query_bundle_entrypoint(bundle, ENTRY)
        if not output.ok() or not output.results or not output.results[0].expressions:
            return {"error": "its evaluation failed"}
        return {"value": output.results[0].expressions[0]}
    except Exception as error:
        # An error that the library writes where a result should be is no JSON.
        return {"error": f"its evaluation failed ({type(error).__name__})"}


def _read() -> Any:
    head = _exactly(HEAD_BYTES)
    if head is None:
        return None
    body = _exactly(int.from_bytes(head, "big"))
    return None if body is None else json.loads(body)


def _exactly(size: int) -> bytes | None:
    parts = []
    while size:
        part = os.read(0, min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


if __name__ == "__main__":
    main()
