"""`runner policy`: tools for people who write rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.errors import PolicyError, RequestError
from runner.surfaces.cli import policy_import, policy_lint, policy_log, policy_rules

if TYPE_CHECKING:
    from runner.policy.cases import Result

app = typer.Typer(
    help="Write rules that hold: check them, test them, and see what a change would change.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

TEST_HELP = """Decide test cases, and hold rules to their examples.

\b
  runner policy test                     all below this folder
  runner policy test team.yaml           its rules' examples, and team.cases.yaml beside it
  runner policy test agent               the examples of a profile that is found by name
  runner policy test --junit out.xml     the results for a pipeline as well

A file of cases, team.cases.yaml, tries the profile or policy team.yaml beside it, or what it names:

\b
  profile: ./team.yaml                   a name, or a path relative to this file
  policy: ./org.yaml                     a file, a folder, or a list: layers above the profile,
                                         and policies in Cedar or Rego (org.cedar, org.rego)
  wrappers: ./wrappers.d                 likewise: rows added to the table of wrappers
  given: { agent: builder }              what holds for each case that says nothing else
  cases:
    - run: git push --force              or argv: [git, push], or code: with language:
      expect: deny                       allow, deny, ask or rewrite
      rule: force-push                   optional: which rule says so
      reason: "--force-with-lease"       optional: a text that the reason holds
    - run: deploy
      at: 2026-01-02T03:04:05Z           when it is decided
      calls: { agent/1h: 120 }           earlier runs: agent, session, tenant, uid or all
      expect: ask

Keys for who asks: agent, parent, session, tenant, uid, labels, environment (names), workspace.
Without a profile, what the policies say nothing about is allowed. Nothing runs, and this machine's
own policy layers and wrappers have no say. Files of wrappers among FILE and FOLDER count for all
that names none.

A rule's `examples` are tried too, each rule by itself: what it `catches` must match it with its own
effect, what it `passes` must not.

Exit code 0: all hold; 1: some do not, each told with file and line; 2: a file is wrong.
"""
policy_lint.register(app)
policy_log.register(app)
policy_rules.register(app)
policy_import.register(app)
SCHEMAS = ("cases", "profile", "policy", "rules", "wrappers")


@app.command("test", help=TEST_HELP)
def try_policies(
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE|FOLDER|PROFILE]...", show_default=False),
    ] = None,
    junit: Annotated[
        str | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML there.")
    ] = None,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Name those that hold, too.")
    ] = False,
) -> None:
    """Decide test cases; see TEST_HELP."""
    from runner.settings import load_settings  # noqa: PLC0415
    from runner.workbench import find, try_cases, try_examples  # noqa: PLC0415

    search = load_settings().profile_dirs.value
    found = find(targets or ["."], search)
    results = [result for each in found.cases for result in try_cases(each, search, found.wrappers)]
    cases = len(results)
    results += [r for each in found.sources for r in try_examples(each, found.wrappers)]
    if not results:
        where = ", ".join(targets or ["this folder"])
        raise PolicyError(
            f"there are no cases and no examples in {where}; write NAME.cases.yaml beside "
            "NAME.yaml, or examples into its rules (`runner policy test --help` shows how)"
        )
    if junit is not None:
        _write_junit(junit, results)
    for result in results:
        if verbose or not result.holds:
            print(f"{result.place}: {'holds: ' if result.holds else ''}{result.name}")
            for failure in result.failures:
                print(f"    {failure}")
    failed = sum(not result.holds for result in results)
    tried = f"{_number(cases, 'case')}, {_number(len(results) - cases, 'example')}"
    print(f"{tried}: {len(results) - failed} hold, {failed} {'does' if failed == 1 else 'do'} not")
    raise typer.Exit(1 if failed else 0)


@app.command()
def schema(
    of: Annotated[str, typer.Argument(metavar="|".join(SCHEMAS))] = "cases",
) -> None:
    """The JSON Schema of files of cases, profiles, policies, rule sets or wrappers, for editors."""
    from runner.schema.cases import cases_json_schema  # noqa: PLC0415
    from runner.schema.library import rule_set_json_schema  # noqa: PLC0415
    from runner.schema.problems import unknown  # noqa: PLC0415
    from runner.schema.profile_file import (  # noqa: PLC0415
        policy_json_schema,
        profile_json_schema,
    )
    from runner.schema.wrapper_file import wrappers_json_schema  # noqa: PLC0415

    if of not in SCHEMAS:
        raise RequestError(unknown("schema", of, SCHEMAS))
    made = {"cases": cases_json_schema, "profile": profile_json_schema,
            "policy": policy_json_schema, "rules": rule_set_json_schema,
            "wrappers": wrappers_json_schema}[of]  # fmt: skip
    print(json.dumps(made(), indent=2))


def _write_junit(file: str, results: list[Result]) -> None:
    from runner.surfaces.cli.junit import junit_document  # noqa: PLC0415

    try:
        Path(file).write_bytes(junit_document(results))
    except OSError as error:
        raise RequestError(f"--junit {file!r} can't be written: {error.strerror}") from error


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
