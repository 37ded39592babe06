"""Starts `runner serve` in a state folder of its own and has schemathesis ask it for anything.

Told by `scripts/fuzz-api`. Ends with 1 where an answer is none that the OpenAPI document has, or
has a status of 500 or more, or the server said or was anything that it should not.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from runner import Runner
from runner.model.identity import Identity, Verb

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_headers_conformance,response_schema_conformance"
)
# Programs end soon, whatever they are, and so streams of events do.
PROFILE = "extends: agent\ndescription: fuzz\nlimits: {wall: 2s, output: 64KiB}\n"
KILLS_SHARE = 0.2
"""Of the time, at the end: who is killed runs nothing any more, and then little can happen."""
_ANY = Identity("", frozenset(Verb), None, ("*",), ("*",), ("*",))
COMMAND = (
    sys.executable, "-c", "import sys; from runner.surfaces.cli.main import main; sys.exit(main())"
)  # fmt: skip


def main() -> int:
    asked = argparse.ArgumentParser(prog="scripts/fuzz-api", description=__doc__)
    asked.add_argument("--schemathesis", required=True, help=argparse.SUPPRESS)
    asked.add_argument("--minutes", type=float, default=10.0, help="how long (10)")
    asked.add_argument("--seed", type=int, help="the same requests again")
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return fuzzed(Path(folder), given)


def fuzzed(folder: Path, given: argparse.Namespace) -> int:
    """Exit code."""
    (folder / "fuzz.yaml").write_text(PROFILE)
    environment = {name: text for name, text in os.environ.items() if name[:7] != "RUNNER_"}
    environment |= {
        "RUNNER_HOME": str(folder / "home"),
        "RUNNER_PROFILE": str(folder / "fuzz.yaml"),
        "XDG_CONFIG_HOME": str(folder),
        "TMPDIR": str(folder),
    }
    with Runner(home=folder / "home") as runner:
        _, key = runner.keys.create("fuzz", _ANY, "1d")
    server = subprocess.Popen(
        [*COMMAND, "serve", "--listen", "127.0.0.1:0", "--grace", "5s"],
        env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stderr is not None
    first = server.stderr.readline()
    found = re.fullmatch(r"runner: listening at (127\.0\.0\.1:\d+)\n", first)
    if found is None:
        print(first + server.stderr.read(), file=sys.stderr)
        return 1
    seconds = 60 * given.minutes
    parts = (
        ((1 - KILLS_SHARE) * seconds, ["--exclude-path-regex", "^/v1/kills"]),
        (KILLS_SHARE * seconds, []),
    )
    failed = False
    try:
        for most_s, more in parts:
            command = [
                given.schemathesis, "run", f"http://{found[1]}/openapi.json",
                "-H", f"Authorization: Bearer {key}", "--checks", CHECKS,
                "--max-time", str(max(1, round(most_s))), "--request-timeout", "60",
                "--continue-on-failure", "--warnings", "off", *more,
            ]  # fmt: skip
            if given.seed is not None:
                command += ["--seed", str(given.seed)]
            done = subprocess.run(command, cwd=folder, env=environment, check=False)
            failed |= done.returncode != 0
    finally:
        server.send_signal(signal.SIGTERM)
        said = server.communicate(timeout=120)[1]
    print(said, end="", file=sys.stderr)
    verified = subprocess.run([*COMMAND, "audit", "verify"], env=environment, check=False)
    return int(failed or bool(said) or server.returncode != 0 or verified.returncode != 0)


if __name__ == "__main__":
    sys.exit(main())
