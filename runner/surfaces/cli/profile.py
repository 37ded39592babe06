"""`runner profile`: what profiles there are, what they say, whether a file is one."""

from __future__ import annotations

import json
from typing import Annotated

import typer

app = typer.Typer(
    help="What a run may do: list, show and validate profiles.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """All profiles that can be named, and where they are."""
    from runner.schema.profiles import list_profiles  # noqa: PLC0415
    from runner.settings import load_settings  # noqa: PLC0415

    entries = list_profiles(load_settings().profile_dirs.value)
    if as_json:
        listed = [
            {
                "name": entry.name,
                "path": str(entry.path),
                "origin": entry.origin.value,
                "description": entry.description,
                "error": entry.error,
            }
            for entry in entries
        ]
        print(json.dumps(listed, indent=2))
        return
    width = max((len(entry.name) for entry in entries), default=0)
    for entry in entries:
        says = entry.description if entry.error is None else f"CAN'T BE USED: {entry.error}"
        print(f"{entry.name:{width}}  {says}")


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE")],
) -> None:
    """A profile as it stands after `extends`, its limits and its threat model."""
    from runner.schema.limits import spell_limits  # noqa: PLC0415
    from runner.schema.profiles import load_profile  # noqa: PLC0415
    from runner.settings import load_settings  # noqa: PLC0415

    profile = load_profile(name, load_settings().profile_dirs.value)
    print(f"name       {profile.name}\nfrom       {profile.source}")
    print(f"workspace  {profile.workspace.value}\nnetwork    {profile.network.value}")
    print(f"isolation  {profile.isolation.value}\ncgroup     {profile.cgroup.value}")
    if profile.landlock_minimum:
        print(f"landlock   ABI {profile.landlock_minimum} or newer")
    print("limits     " + ", ".join(f"{k} {v}" for k, v in spell_limits(profile.limits).items()))
    print("requires   " + ", ".join(sorted(profile.requires)))
    policy = profile.policy
    effect = policy.default.value if policy.default is not None else "nothing"
    print(f"rules      {len(policy.rules)}, default {effect}")
    for rule in policy.rules:
        print(f"  {rule.effect.value:6} {rule.id}: {rule.message}")
    print(f"\n{profile.description}\n\nThreat model\n{profile.threat_model.rstrip()}")


@app.command()
def validate(
    names: Annotated[list[str], typer.Argument(metavar="NAME|FILE...")],
) -> None:
    """Check profiles; exit code 2 and a line for each problem, with file and line, if any is."""
    from runner.errors import ProfileError  # noqa: PLC0415
    from runner.schema.profiles import load_profile  # noqa: PLC0415
    from runner.settings import load_settings  # noqa: PLC0415

    search = load_settings().profile_dirs.value
    problems = []
    for name in names:
        try:
            profile = load_profile(name, search)
        except ProfileError as error:
            problems.append(str(error))
        else:
            print(f"{profile.source}: profile '{profile.name}' is valid")
    if problems:
        raise ProfileError("\n".join(problems))


@app.command()
def schema(
    policy: Annotated[
        bool, typer.Option("--policy", help="That of policy layers (policy.d) instead.")
    ] = False,
) -> None:
    """The JSON Schema of profiles, for editors and other tools."""
    from runner.schema.profile_file import (  # noqa: PLC0415
        policy_json_schema,
        profile_json_schema,
    )

    print(json.dumps(policy_json_schema() if policy else profile_json_schema(), indent=2))
