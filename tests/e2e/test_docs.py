"""What the documentation says is true: its commands run, its lists are the code's lists.

The convention of a page:

- A ```console block holds commands in lines that begin with `$ ` (continued by `\\` at the end) and
  below each what it prints. All commands of a page run in order, in one folder, with one state
  folder that is new. A comment `# exit N` behind a command says its exit code; without it, 0.
- Output that is shown must come, stdout and stderr together; numbers, run ids, digests and times
  stand for any. `…` in a line stands for anything in that line, a line `…` for any lines. A
  command without output below it may print what it likes.
- ```console docker: the same, where there is a Docker engine.
- A block whose first line is `# NAME.SUFFIX` is a file, put into the folder before the page's first
  command. A ```python block without a name is run. A ```yaml block is a profile, or part of one;
  one that names a file in policy.d is a policy layer, NAME.cases.yaml a file of cases, and one
  with a key `wrappers` holds rows of wrappers.
- ```text is for the rest. A command in it must be on the list `NOT_RUN`, with the reason.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runner import Runner, errors
from runner.errors import StateError
from runner.model.decision import Effect
from runner.model.event import EventKind
from runner.model.limits import LIMIT_KEYS, LimitName
from runner.model.outcome import ChangeKind, Termination
from runner.model.profile import WorkspaceMode
from runner.model.protection import Protection
from runner.schema.cases import is_cases, load_cases
from runner.schema.outcome import outcome_json_schema
from runner.schema.policies import load_policy_file
from runner.schema.profiles import load_profile
from runner.settings import SETTING_NAMES
from runner.stores.reader import open_log
from runner.syscalls import GROUPS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ALL_PAGES = [
    *PAGES,
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    ROOT / "CHANGELOG.md",
    ROOT / "changes" / "README.md",
    ROOT / "examples" / "README.md",
]
REFERENCE = ROOT / "docs" / "reference.md"

NOT_RUN = {
    "scripts/demo": "tests/e2e/test_scripts.py runs it",
    "scripts/test": "it runs this test",
    "scripts/build-images": "takes minutes; CI does it",
    "scripts/bench": "tests/integration/test_bench.py runs what it calls",
    "scripts/honest-work": "tests/integration/test_honest_work.py runs what it calls",
    "scripts/soak-kill": "tests/integration/test_kill.py runs what it calls",
    "scripts/with-docker": "CI starts an engine so",
    "runner serve --listen 0.0.0.0": "listens beyond this machine; tests/e2e/test_serve_callers.py",
    "runner audit tail -f": "does not end by itself; tests/e2e/test_cli_search.py does it",
    "python3 -m venv": "tests/e2e/test_packaging.py does it",
    "~/runner-env/bin/": "tests/e2e/test_packaging.py does it",
    "sudo ": "changes the machine",
    "docker run ": "needs an image that is not ours",
    "systemctl --user": "asks the user's systemd",
    "mkdir -p ~/.config/systemd": "changes the user's home",
    "cp packaging/systemd": "changes the user's home",
    "cat /sys/": "says what this machine is",
}

SHIM = """#!/bin/sh
PYTHONPATH='{root}' exec '{python}' -c \\
  'import sys; from runner.surfaces.cli.main import main; sys.exit(main())' "$@"
"""


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    info: str
    lines: tuple[str, ...]

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def text(self) -> str:
        return "\n".join(self.lines) + "\n"

    @property
    def file_name(self) -> str | None:
        found = (
            re.fullmatch(r"(?:#|//) (\S+\.(?:py|sh|ya?ml|json|cedar|rego))", self.lines[0])
            if self.lines
            else None
        )
        return found[1] if found else None


@dataclass(frozen=True)
class Command:
    where: str
    text: str
    exit_code: int
    output: tuple[str, ...]


def blocks(page: Path) -> Iterator[Block]:
    opened: tuple[int, str] | None = None
    indent = 0
    held: list[str] = []
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        if not line.lstrip().startswith("```"):
            held.append(line[indent:] if opened else line)
        elif opened is None:
            indent = len(line) - len(line.lstrip())  # a block in a list
            opened, held = (number, line.strip()[3:].strip()), []
        else:
            yield Block(page, opened[0], opened[1], tuple(held))
            opened = None
    assert opened is None, f"{page}: a block is not closed"


def commands(block: Block) -> Iterator[Command]:
    words: str | None = None
    line = exit_code = 0
    output: list[str] = []
    lines = iter(enumerate(block.lines, block.line + 1))
    for number, text in lines:
        if not text.startswith("$ "):
            assert words is not None or block.info == "text", f"{block.where}: output first"
            output.append(text)
            continue
        if words is not None:
            yield Command(f"{block.where} line {line}", words, exit_code, tuple(output))
        words, line, output = text[2:], number, []
        while words.endswith("\\"):
            words = words[:-1] + next(lines)[1].removeprefix("> ")
        found = re.search(r"\s+# exit (\d+)$", words)
        exit_code = int(found[1]) if found else 0
        words = words[: found.start()] if found else words
    if words is not None:
        yield Command(f"{block.where} line {line}", words, exit_code, tuple(output))


EVERY = {page: list(blocks(page)) for page in ALL_PAGES}
VOLATILE = [
    (re.compile(r"run-[0-9a-f]{20}"), "run-…"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "<hash>"),
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z"), "<time>"),
    (re.compile(r"(?<![\w.-])\d+(\.\d+)?(e-\d+)?(?![\w.])"), "<n>"),
    (re.compile(r" +"), " "),
]


def normal(line: str) -> str:
    for pattern, word in VOLATILE:
        line = pattern.sub(word, line)
    return line.rstrip()


def pattern_of(lines: tuple[str, ...]) -> re.Pattern[str]:
    parts = []
    for line in lines:
        if line.strip() == "…":
            parts.append(r"(?:[^\n]*\n)*?")
        else:
            known = normal(line).replace("run-…", "\0").split("…")
            body = r"[^\n]*".join(re.escape(part) for part in known)
            parts.append(body.replace(re.escape("\0"), "run\\-…") + r"\n")
    return re.compile("".join(parts))


def shows(expected: tuple[str, ...], printed: str) -> bool:
    wanted = list(expected)
    while wanted and not wanted[-1].strip():
        wanted.pop()
    found = "".join(normal(line) + "\n" for line in printed.splitlines())
    return pattern_of(tuple(wanted)).fullmatch(found) is not None


def test_expected_output_is_compared() -> None:
    head = "a" * 64
    assert shows((f"3 events, head {head}",), f"41 events, head {'b' * 64}\n")
    assert not shows(("3 events, head x",), f"3 events, head {head}\n")
    assert shows(("one", "…", "two …"), "one\nx\ny\ntwo and more\n")
    assert not shows(("one", "…", "two"), "one\nx\ntwo\nthree\n")
    assert not shows(("one",), "one\ntwo\n")


@pytest.fixture
def folder(tmp_path: Path, runner_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A workspace, with `runner` on the PATH."""
    shim = tmp_path / "bin" / "runner"
    shim.parent.mkdir()
    shim.write_text(SHIM.format(root=ROOT, python=sys.executable))
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shim.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("LANG", "C.UTF-8")
    workspace = tmp_path / "work"
    workspace.mkdir()
    yield workspace
    if (told := workspace / "serve.pid").exists():  # of a page that failed before it ended its own
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(told.read_text()), signal.SIGTERM)


def put_files(page: Path, folder: Path) -> None:
    for block in EVERY[page]:
        name = block.file_name
        if name is not None and not name.startswith("/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            # JSON has no comments: the line with the name is none of the file's.
            own = block.text.partition("\n")[2] if name.endswith(".json") else block.text
            (folder / name).write_text(own, "utf-8")
    if page.parent.name == "examples":
        shutil.copytree(page.parent, folder / "examples", ignore=shutil.ignore_patterns(".*"))


def call(command: Command, folder: Path) -> str | None:
    """What is wrong with it, or None."""
    done = subprocess.run(
        ["bash", "-c", command.text],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        timeout=120,
        check=False,
    )
    told = f"{command.where}: $ {command.text}"
    if done.returncode != command.exit_code:
        return f"{told}\nexit code {done.returncode}, not {command.exit_code}\n{done.stdout}"
    if command.output and not shows(command.output, done.stdout):
        return f"{told}\nprinted\n{done.stdout}\nwhere the page shows\n" + "\n".join(command.output)
    return None


def run_page(page: Path, folder: Path, home: Path, info: str) -> None:
    """Once more where what other tests left on this machine was swept, and stands in the log."""
    for _ in range(5):
        wrong = what_is_wrong(page, folder, info)
        if not wrong or not was_swept(home):
            break
        shutil.rmtree(home)
        shutil.rmtree(folder)
        folder.mkdir()
    assert not wrong, "\n\n".join(wrong)


def was_swept(home: Path) -> bool:
    try:
        with closing(open_log(home)) as log:
            return any(event.kind == EventKind.MACHINE_SWEPT for event in log.events())
    except StateError:
        return False


def what_is_wrong(page: Path, folder: Path, info: str) -> list[str]:
    put_files(page, folder)
    wrong = []
    for block in EVERY[page]:
        if block.info in (info, "sh"):
            wrong += [why for c in commands(block) if (why := call(c, folder))]
        elif block.info == "python" and block.file_name is None and info == "console":
            script = Command(block.where, f'"{sys.executable}" <<"END"\n{block.text}END', 0, ())
            wrong += [why for why in [call(script, folder)] if why]
    return wrong


def with_commands(info: str) -> list[Path]:
    runs = {info, "sh", "python"} if info == "console" else {info}
    return [page for page in ALL_PAGES if any(b.info in runs for b in EVERY[page])]


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize(
    "page", with_commands("console"), ids=lambda page: str(page.relative_to(ROOT))
)
def test_commands(
    page: Path, folder: Path, runner_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    if page.name == "api.md" and shutil.which("curl") is None:
        pytest.skip("there is no curl")
    run_page(page, folder, runner_home, "console")


@pytest.mark.docker
@pytest.mark.parametrize(
    "page", with_commands("console docker"), ids=lambda page: str(page.relative_to(ROOT))
)
def test_docker_commands(page: Path, folder: Path, runner_home: Path) -> None:
    run_page(page, folder, runner_home, "console docker")


def test_commands_that_are_not_run_are_named() -> None:
    unnamed = [
        f"{command.where}: {command.text}"
        for page in ALL_PAGES
        for block in EVERY[page]
        if block.info == "text"
        for command in commands(block)
        if not command.text.startswith(tuple(NOT_RUN))
    ]
    assert not unnamed, unnamed
    used = [c.text for p in ALL_PAGES for b in EVERY[p] if b.info == "text" for c in commands(b)]
    assert not [start for start in NOT_RUN if not any(text.startswith(start) for text in used)]


def test_blocks_are_of_a_known_kind() -> None:
    known = {
        "console", "console docker", "sh", "python", "yaml", "json", "text", "cedar", "rego", ""
    }  # fmt: skip
    every = [block for page in ALL_PAGES for block in EVERY[page]]
    odd = [b.where for b in every if b.info not in known and not (b.info == "bash" and b.file_name)]
    assert not odd
    bare = [b.where for page in PAGES for b in EVERY[page] if not b.info]
    assert not bare


YAML = [block for page in PAGES for block in EVERY[page] if block.info == "yaml"]
WRAPPERS = [
    block
    for block in YAML
    if re.search(r"(?m)^wrappers:", block.text) and not is_cases(block.file_name or "")
]
RULES = [b for b in YAML if b not in WRAPPERS and not is_cases(b.file_name or "")]


@pytest.mark.parametrize("block", RULES, ids=lambda block: block.where)
def test_yaml_is_valid(block: Block, tmp_path: Path) -> None:
    name = block.file_name or "example.yaml"
    path = tmp_path / Path(name).name
    if "policy.d" in name:
        path.write_text(block.text, "utf-8")
        load_policy_file(path)
        return
    base = "" if re.search(r"(?m)^extends:", block.text) else "extends: agent\n"
    path.write_text(base + block.text, "utf-8")
    load_profile(str(path))


def test_cases_are_valid(tmp_path: Path) -> None:
    for block in YAML:
        if is_cases(name := block.file_name or ""):
            (tmp_path / name).write_text(block.text, "utf-8")
            assert load_cases(tmp_path / name).places


# Lists of the reference against the code.


def section(heading: str, page: Path = REFERENCE) -> str:
    text = page.read_text("utf-8")
    found = re.search(rf"(?ms)^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,6}} |\Z)", text)
    assert found, f"{page.name} has no heading {heading!r}"
    return found[2]


def rows(heading: str) -> list[list[str]]:
    """Cells of the tables under a heading, without their headers."""
    lines = [line for line in section(heading).splitlines() if line.startswith("|")]
    cells = [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    rules = {i for i, row in enumerate(cells) if all(set(c) <= set("-: ") for c in row)}
    return [row for i, row in enumerate(cells) if i not in rules and i + 1 not in rules]


def words(heading: str, column: int = 0) -> set[str]:
    return {word for row in rows(heading) for word in re.findall(r"`([^`]+)`", row[column])}


def tree() -> dict[str, Any]:
    import typer.main

    from runner.surfaces.cli.main import app

    def walk(command: Any, name: str) -> Iterator[tuple[str, Any]]:
        yield name, command
        for sub, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, f"{name} {sub}")

    return dict(walk(typer.main.get_command(app), "runner"))


TREE = tree()
LEAVES = [name for name, command in TREE.items() if not getattr(command, "commands", None)]


@pytest.mark.parametrize("name", ["runner", *LEAVES])
def test_reference_has_the_options_of(name: str) -> None:
    known = {
        option
        for parameter in TREE[name].params
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option.startswith("-")
    } - {"-h", "--help"}
    told = {w.split(" ")[0] for w in words(f"`{name}`") if w.startswith("-")} if known else set()
    assert told == known
    section(f"`{name}`")


def test_reference_has_no_other_commands() -> None:
    told = set(re.findall(r"(?m)^#+ `(runner[a-z -]*)`$", REFERENCE.read_text("utf-8")))
    assert told == {"runner", *LEAVES}


def codes() -> set[str]:
    found, left = set(), [errors.RunnerError]
    while left:
        error = left.pop()
        found.add(error.code)
        left += error.__subclasses__()
    # Those that only an outcome has: the program could not be executed.
    sources = (ROOT / "runner" / "backends").rglob("*.py")
    texts = (path.read_text("utf-8") for path in sources)
    own = {code for text in texts for code in re.findall(r'Failure\(\s*"([a-z_]+)"', text)}
    assert own
    return found | own


@pytest.mark.parametrize(
    ("heading", "known"),
    [
        ("Error codes", codes()),
        ("Terminations", {each.value for each in Termination}),
        ("Effects", {each.value for each in Effect}),
        ("Limits", {each.value for each in LimitName}),
        ("Protections", {each.value for each in Protection}),
        ("Event kinds", {each.value for each in EventKind}),
        ("Settings", set(SETTING_NAMES)),
        ("System call groups", set(GROUPS)),
        ("Workspace modes", {each.value for each in WorkspaceMode}),
    ],
)
def test_reference_has_the_whole_list(heading: str, known: set[str]) -> None:
    assert words(heading) == known


def test_reference_has_every_key_of_limits() -> None:
    assert words("Limits", column=1) == set(LIMIT_KEYS)


def test_error_codes_have_their_exit_codes() -> None:
    told = {re.findall(r"`([^`]+)`", row[0])[0]: row[1] for row in rows("Error codes")}
    left = [errors.RunnerError]
    while left:
        error = left.pop()
        assert told[error.code] == str(error.exit_code), error
        left += error.__subclasses__()


def test_reference_has_every_argument_of_the_library() -> None:
    known = set(inspect.signature(Runner.run).parameters) - {"self"}
    assert words("The library") == known


def fields(schema: dict[str, Any], name: str, root: dict[str, Any]) -> Iterator[str]:
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    for each in schema.get("anyOf", ()):
        yield from fields(each, name, root)
    if "items" in schema:
        yield from fields(schema["items"], f"{name}[]", root)
    for key, inner in schema.get("properties", {}).items():
        path = f"{name}.{key}" if name else key
        yield path
        yield from fields(inner, path, root)


def test_reference_has_every_field_of_an_outcome() -> None:
    schema = outcome_json_schema()
    known = set(fields(schema, "", schema))
    assert words("The outcome as JSON") == known
    for kind in ChangeKind:
        assert f"`{kind.value}`" in section("The outcome as JSON")


@pytest.mark.usefixtures("native")
def test_reference_has_every_field_of_an_event(folder: Path) -> None:
    (folder / "warns.yaml").write_text(
        "extends: agent\nbudgets: [{id: b, of: all, per: 1h, calls: 1, warn_at: [50%]}]\n"
    )
    (folder / "asking.yaml").write_text(
        "extends: agent\n"
        "rules: {list: [{id: r, match: {command: touch}, effect: ask, message: m}]}\n"
    )
    (folder / "guarded.yaml").write_text("extends: agent\nloop_guard: {failing: 2}\n")
    for text in (
        *("run -- echo kept", "run -c 'sudo ls'", "check -- ls", "run nowhere.py"),
        *("run -- touch new", "apply latest", "run -- touch other", "discard latest"),
        *("audit archive --to old --before 1 --prune", "audit restore old"),
        *("run --profile warns.yaml -- true", "budget reset b --profile warns.yaml --reason r"),
        "budget set b calls=2 --for 1h --profile warns.yaml --reason r",
        *("run --profile guarded.yaml -- false", "run --profile guarded.yaml -- false"),
        "guard reset --all --reason r",
        *("kill --agent nobody --reason r", "kill --lift --agent nobody --reason r"),
        *("keys create bot --agent bot --profile agent", "keys revoke bot"),
    ):
        subprocess.run(f"runner {text}", shell=True, cwd=folder, check=False, capture_output=True)
    for line in (
        "runner session start --lifetime 5m > id; echo x | runner session put $(cat id) - f; "
        "runner session exec $(cat id) -c 'sleep 99 &'; runner session kill $(cat id) "
        "$(runner session ps --json $(cat id) | grep -o '\"number\": [0-9]*' | grep -o '[0-9]*'); "
        "runner session stop $(cat id)",
        "RUNNER_APPROVALS_TO=$PWD/no/such runner run --profile asking.yaml -- touch new",
        "runner approvals deny --reason r $(runner approvals list | grep -o 'ask-[0-9a-f]*')",
        "RUNNER_CHECKPOINT_TO=$PWD/elsewhere/kept runner audit checkpoint",
        "mkdir elsewhere; RUNNER_CHECKPOINT_TO=$PWD/elsewhere/kept runner audit checkpoint",
        "runner audit key rotate; rm $RUNNER_HOME/keys/*; runner run -- true",
        "runner audit key rotate --lost",
    ):
        subprocess.run(line, shell=True, cwd=folder, check=False, capture_output=True)
    with closing(sqlite3.connect(f"{os.environ['RUNNER_HOME']}/runner.db")) as db, db:
        db.execute("DELETE FROM tree")
    subprocess.run(["runner", "audit", "repair"], check=True, capture_output=True)
    subprocess.run(
        ["runner", "clean"],
        env=os.environ | {"RUNNER_KEEP_OUTPUT_TOTAL_BYTES": "1"},
        check=True,
        capture_output=True,
    )
    shown = subprocess.run(
        ["runner", "audit", "show", "--json", "--last", "0"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    told = {
        re.findall(r"`([^`]+)`", row[0])[0]: set(re.findall(r"`([^`]+)`", row[2]))
        for row in rows("Event kinds")
    }
    seen = set()
    for line in shown.stdout.splitlines():
        event = json.loads(line)
        called = {"caller"} if event["kind"] == EventKind.RUN_DECIDED else set()  # of a server
        assert set(event["data"]) - {"within", "charged"} == told[event["kind"]] - called, event[
            "kind"
        ]
        seen.add(event["kind"])
    # Nobody's supervisor died here; whether another's left something is a matter of the machine;
    # and this log was never without a key; nobody called.
    rare = {
        EventKind.AUTH_FAILED.value,
        EventKind.RUN_RECOVERED.value,
        EventKind.MACHINE_SWEPT.value,
        EventKind.KEY_CREATED.value,
    }
    assert seen | rare == set(told)


# Links.


def slug(heading: str) -> str:
    """The anchor that GitHub makes of a heading."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
    return re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-")


def anchors(page: Path) -> set[str]:
    text = re.sub(r"(?ms)^ *```.*?^ *```$", "", page.read_text("utf-8"))
    return {slug(heading) for heading in re.findall(r"(?m)^#+ (.+)$", text)}


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    text = re.sub(r"(?ms)^ *```.*?^ *```$", "", page.read_text("utf-8"))
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (anchor and anchor not in anchors(found)):
            broken.append(target)
    assert not broken


def test_every_page_is_reached_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    missing = [page.name for page in PAGES[1:] if f"docs/{page.name}" not in text]
    assert not missing
