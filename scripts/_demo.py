"""The demonstration behind scripts/demo: runs the command line and shows what it said."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# The console script's own words, so that it is this environment's whatever PATH says.
RUNNER = (
    sys.executable,
    "-c",
    "import sys; from runner.surfaces.cli.main import main; sys.exit(main())",
)
wrong: list[str] = []


def expect(holds: bool, what: str) -> None:
    if not holds:
        wrong.append(what)
        print(f"   NOT AS IT SHOULD BE: {what}")


def runner(*words: str, result: Path | None = None) -> tuple[int, dict[str, Any], str]:
    """Show and run one command: its exit code, its result as an object, and what it printed."""
    print(f"   $ {shlex.join(['runner', *words])}", flush=True)
    if result:
        words = (words[0], "--result", str(result), *words[1:])
    done = subprocess.run(
        [*RUNNER, *words],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    for line in done.stdout.splitlines():
        print(f"   | {line}")
    told = json.loads(result.read_text()) if result and result.exists() else {}
    return done.returncode, told, done.stdout


def show(name: str, value: str) -> None:
    print(f"   {name:11} {value}")


def outcome(code: int, told: dict[str, Any]) -> None:
    decision = told.get("decision", {})
    why = ", ".join(f"rule {rule['id']}" for rule in decision.get("rules", ()))
    show("decision", f"{decision.get('effect')}: {why or decision.get('reason')}")
    ended = str(told.get("termination"))
    if told.get("limit"):
        ended += f" ({told['limit']})"
    usage = told.get("usage") or {}
    measured = []
    if usage.get("wall_s") is not None:
        measured.append(f"{usage['wall_s']:.2f} s")
    if usage.get("memory_peak_bytes"):
        measured.append(f"{usage['memory_peak_bytes'] / 2**20:.0f} MiB at most")
    if usage.get("processes"):
        measured.append(f"{usage['processes']} processes at most")
    show("outcome", ", ".join([ended, f"exit code {code}", *measured]))


def main_job(folder: Path) -> None:
    print("\n1. A script that an agent wrote, under the profile `agent`")
    source = ROOT / "examples" / "shop" / "invoice.py"
    before = source.read_bytes()
    code, told, said = runner(
        *("run", "--profile", "agent", "--agent", "demo"),
        *("-C", "examples/shop", "../fix_tests.py"),
        result=folder / "main.json",
    )
    outcome(code, told)
    show(
        "backend", f"{told.get('backend')}, {len(told.get('protections', ()))} protections in force"
    )
    if told.get("degraded"):
        show("degraded", ", ".join(told["degraded"]))
    changes = told.get("workspace", {}).get("changes", [])
    for change in changes:
        digest = (change.get("sha256") or "")[:12]
        show("workspace", f"{change['kind']:9} {change['path']:12} {digest}")
    audit = told.get("audit", {})
    show("record", f"events {audit.get('first_seq')} to {audit.get('last_seq')} of the log")
    expect(code == 0, "the script runs and exits with 0")
    expect(told.get("decision", {}).get("effect") == "allow", "the decision is allow")
    expect("after the change: 0" in said, "its output is passed through")
    expect("no way out" in said, "there is no network")
    kinds = {(change["path"], change["kind"]) for change in changes}
    expected = {("invoice.py", "modified"), ("NOTES.md", "created")}
    expect(expected <= kinds, "its changes are listed")
    expect(source.read_bytes() == before, "the folder itself is left as it was")
    expect(not (source.parent / "NOTES.md").exists(), "nothing is written into the folder itself")


def denied(folder: Path) -> None:
    print("\n2. A command that the policy denies")
    text = "cd /tmp && sudo rm -rf /"
    code, told, _ = runner(
        "run", "--agent", "demo", "-C", "examples/shop", "-c", text, result=folder / "denied.json"
    )
    outcome(code, told)
    expect(code == 126, "a denial has exit code 126")
    expect(told.get("termination") == "denied", "the outcome says denied")


def limited(folder: Path) -> None:
    print("\n3. A program that a limit ends")
    words = (
        "run",
        "--agent",
        "demo",
        "-C",
        "examples/shop",
        "--limit",
        "wall=1s",
        "--",
        "sleep",
        "60",
    )
    code, told, _ = runner(*words, result=folder / "limit.json")
    outcome(code, told)
    expect(code == 124, "a limit has exit code 124")
    expect(told.get("limit") == "wall", "the outcome names the limit")


def record() -> None:
    print("\n4. The log, verified")
    code, _, _ = runner("audit", "verify")
    expect(code == 0, "the log verifies")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="runner-demo-") as name:
        folder = Path(name)
        home = os.environ.setdefault("RUNNER_HOME", str(folder / "state"))
        print(f"runner's demonstration, as uid {os.getuid()}, records in {home}")
        main_job(folder)
        denied(folder)
        limited(folder)
        record()
    print()
    if wrong:
        print(f"scripts/demo: {len(wrong)} things were not as they should be", file=sys.stderr)
        return 1
    print("All of it as it should be.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
