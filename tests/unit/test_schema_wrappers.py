"""Rows that people add to the table of wrappers: what they read, and what they can't do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.analysis import read
from runner.analysis.wrappers.table import Table, Wrapper, load
from runner.compile import grants
from runner.deciding import Policy, decide
from runner.errors import PolicyError
from runner.intake import build_request
from runner.model.action import Facts
from runner.model.decision import Effect
from runner.model.request import Argv, ShellText
from runner.policy.engine import create as decision_point
from runner.schema.profiles import load_profile
from runner.schema.wrapper_file import COLUMNS, WrapperRow, wrappers_json_schema
from runner.schema.wrappers import is_wrappers, load_wrapper_dir, load_wrapper_file

ME = os.geteuid()
TEAM = """\
description: Commands of ours
wrappers:
  - names: [with-secrets, "corp-*"]
    flags: [-q, --quiet]
    values: [-e, --env]
    text: -c
    chdir: [-C]
    operands: 1
    assignments: true
  - names: mypython
    kind: python
  - names: mysh
    kind: shell
    language: sh
  - {names: myperl, kind: code, language: perl, code: -e}
  - {names: mypsql, kind: sql, language: psql, code: -c}
  - {names: lookup, kind: lenient, text: --with, rest: none}
"""


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return load_wrapper_file(write(tmp_path_factory.mktemp("w") / "team.yaml", TEAM))


def write(path: Path, text: str, mode: int = 0o644) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def refusal(path: Path, text: str, onto: Table | None = None) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        load_wrapper_file(write(path / "w.yaml", text), onto)
    return [line.removeprefix(f"{path}/") for line in str(caught.value).splitlines()]


def commands(text: str, table: Table | None = None) -> list[str]:
    found = read(ShellText(text), table)
    return [" ".join(word.text for word in command.words) for command in found.commands]


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("with-secrets vault rm x", "rm x"),
        ("with-secrets -q --env=prod -e p vault A=1 B=2 rm x", "rm x"),
        ("with-secrets A=1 vault rm x", "rm x"),
        ("sudo corp-run x env rm x", "rm x"),
        ("corp-run -c 'true; rm x' y", "rm x"),
        ("corp-run -C /srv y rm x", "cd /srv"),
        ("/opt/bin/corp-run x rm x", "rm x"),
        ("mysh -c 'rm x'", "rm x"),
        ("mypython -c 'import os; os.system(\"rm x\")'", "rm x"),
        ("myperl -e 'system(\"rm x\")'", "rm x"),
        ("lookup a --with 'rm x' b", "rm x"),
    ],
)
def test_what_stands_behind_a_row_is_read(team: Table, text: str, inner: str) -> None:
    assert inner in commands(text, team)
    assert inner not in commands(text)
    assert inner not in commands(text)  # and the memory of readings keeps the two apart
    assert inner in commands(text, team)


def test_sql_for_a_client_of_ones_own(team: Table) -> None:
    text = ShellText("mypsql -c 'drop table users'")
    assert "sql:drop-table" in {each.name for each in read(text, team).constructs}
    assert not read(text).constructs


def test_what_a_row_does_not_name_is_doubtful(team: Table) -> None:
    unsure = read(Argv(("corp-run", "-z", "x", "rm", "x")), team).commands
    assert any(command.doubtful for command in unsure)
    sure = read(Argv(("corp-run", "-q", "x", "rm", "x")), team).commands
    assert not any(command.doubtful for command in sure)


def test_a_row_with_all_that_is_wrong(tmp_path: Path) -> None:
    lines = refusal(
        tmp_path,
        """\
wrappers:
  - names: [sudo, x/y, python3.11]
    flag: [-q]
  - names: a
    kind: shell
    text: [-c]
  - names: [b, a]
    flags: [-x, -0]
    values: [-x, v]
  - {names: c, kind: code, code: -e}
  - {names: d, kind: sql, language: perl}
  - {names: e, language: tcl, operands: 99}
  - {names: [], kind: find}
""",
    )
    starts = [
        "w.yaml:2:13: wrappers[0].names[0]: 'sudo' is read already by 'sudo' in the table that",
        "w.yaml:2:19: wrappers[0].names[1]: 'x/y' must be a command's name without a folder",
        "w.yaml:2:24: wrappers[0].names[2]: 'python3.11' is read already by 'python' in the table",
        "w.yaml:3:5: wrappers[0].flag: unknown key 'flag'; did you mean 'flags'?",
        "w.yaml:6:5: wrappers[1].text: says nothing in a row of kind shell; allowed: flags, lang",
        "w.yaml:7:16: wrappers[2].names[1]: 'a' stands already in line 4; a command has one row",
        "w.yaml:8:5: wrappers[2].flags: '-x' is also listed as an option with a value; keep one",
        "w.yaml:8:17: wrappers[2].flags[1]: is the number 0, must be text (put it in quotes)",
        "w.yaml:9:18: wrappers[2].values[1]: 'v' must be an option, such as '-u' or '--user'",
        "w.yaml:10:5: wrappers[3]: needs language for kind code; one of: Rscript, awk, emacs",
        "w.yaml:11:28: wrappers[4].language: unknown language 'perl'",
        "w.yaml:12:16: wrappers[5].language: unknown language 'tcl'; allowed: bash",
        "w.yaml:12:31: wrappers[5].operands:",
        "w.yaml:13:6: wrappers[6].names:",
        "w.yaml:13:17: wrappers[6].kind:",
    ]
    assert len(lines) == len(starts), lines
    for line, start in zip(lines, starts, strict=True):
        at, _, rest = start.partition(": ")
        assert line.startswith(at.rpartition(":")[0]), (line, start)
        assert rest in line, (line, start)


@pytest.mark.parametrize("text", ["", "wrappers: []\n", "wrappers: 3\n", "- a\n", "a: [\n"])
def test_a_file_without_rows_is_an_error(tmp_path: Path, text: str) -> None:
    assert refusal(tmp_path, text)[0].startswith("w.yaml:")


def test_a_later_file_takes_no_name_of_an_earlier_one(tmp_path: Path, team: Table) -> None:
    for name in ("with-secrets", "corp-run"):
        (line,) = refusal(tmp_path, f"wrappers: [{{names: {name}, stop: -q}}]\n", team)
        assert f"'{name}' is read already by 'with-secrets' in {team.added[0].source}" in line
    # A pattern is asked only about names that no row in front knows.
    wide = write(tmp_path / "wide.yaml", 'wrappers: [{names: "*", kind: foreign_shell}]\n')
    both = load_wrapper_file(wide, team)
    for name in ("sudo", "env", "with-secrets", "corp-run", "/usr/bin/python3"):
        assert both.find(name) == team.find(name)
    assert both.find("ls") == both.added[-1]


def test_a_table_keeps_its_rows_whatever_it_is_given() -> None:
    mine = load().extended([Wrapper(("sudo", "*"), stop=frozenset({"-n"}))])
    assert mine.find("sudo") == load().find("sudo")
    assert commands("sudo -n id", mine)[:2] == ["sudo -n id", "id"]


WORDS = st.sampled_from(
    ["sudo", "env", "with-secrets", "corp-x", "-c", "-e", "-q", "-C", "A=1", "--", "'rm x'", "rm",
     "x", "$x", "mysh", "mypython", ";", "|", "timeout", "5", "-n"]
)  # fmt: skip


@given(st.lists(WORDS, min_size=1, max_size=12))
def test_rows_only_add_to_what_is_read(team: Table, words: list[str]) -> None:
    text = ShellText(" ".join(words))
    without, found = read(text), read(text, team)
    if without.unreadable is not None:
        assert found.unreadable is not None
        return
    left = list(found.commands)
    for command in without.commands:
        assert command in left
        left.remove(command)
    assert set(without.constructs) <= set(found.constructs)


def test_a_folder_of_files_and_whose_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "wrappers.d"
    assert load_wrapper_dir(folder, "user") is load()
    folder.mkdir(mode=0o755)
    write(folder / "20.yaml", "wrappers: [{names: b}]\n")
    write(folder / "10.yml", "wrappers: [{names: a}]\n")
    write(folder / "README", "wrappers: [{names: c}]\n")
    table = load_wrapper_dir(folder, "organisation", owner_uid=ME)
    assert [row.names for row in table.added] == [("a",), ("b",)]
    assert [row.source for row in table.added] == [f"{folder}/10.yml", f"{folder}/20.yaml"]
    with pytest.raises(PolicyError, match=r"so it can't be the organisation's wrappers; give it"):
        load_wrapper_dir(folder, "organisation", owner_uid=ME + 1)
    (folder / "20.yaml").chmod(0o666)
    with pytest.raises(PolicyError, match=r"20\.yaml can be written by its group or by all"):
        load_wrapper_dir(folder, "user", owner_uid=ME)


def test_a_file_of_wrappers_is_told_from_others(tmp_path: Path) -> None:
    assert is_wrappers(write(tmp_path / "a.yaml", TEAM))
    assert not is_wrappers(write(tmp_path / "b.yaml", "rules: {default: allow}\n"))
    cases = "wrappers: w.yaml\ncases: [{run: a, expect: deny}]\n"
    assert not is_wrappers(write(tmp_path / "c.cases.yaml", cases))
    assert not is_wrappers(tmp_path / "none.yaml")


def test_the_digest_of_a_policy_covers_the_rows(tmp_path: Path, team: Table) -> None:
    profile = load_profile("agent")
    point = decision_point((profile.policy,))
    request = build_request(argv=["with-secrets", "vault", "sudo", "id"], cwd=tmp_path)
    plain, mine = Policy(profile, point), Policy(profile, point, grants([]), team)
    before, after = (decide(request, each, Facts(0.0)).decision for each in (plain, mine))
    # One decision point, one memory: the reading is what makes the difference.
    assert (before.effect, after.effect) == (Effect.ALLOW, Effect.DENY)
    assert decide(request, plain, Facts(0.0)).decision == before
    assert before.policy_digest == point.digest != after.policy_digest
    moved = load_wrapper_file(write(tmp_path / "moved.yaml", TEAM))
    assert Policy(profile, point, wrappers=moved).digest == mine.digest
    other = load_wrapper_file(write(tmp_path / "other.yaml", TEAM.replace("--quiet", "--silent")))
    assert Policy(profile, point, wrappers=other).digest != mine.digest


def test_every_column_of_the_table_can_be_stated_or_is_ours() -> None:
    own = {"construct", "exec", "delete", "writes", "texts", "commands", "source"}
    stated = set(WrapperRow.model_fields)
    assert stated == set(Wrapper.__dataclass_fields__) - own
    assert set().union(*COLUMNS.values()) | {"names", "kind"} == stated
    assert set(wrappers_json_schema()["$defs"]["WrapperRow"]["properties"]) == stated
