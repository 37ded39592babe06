"""What must be in force for a profile, by how far it isolates its runs. Pure."""

from __future__ import annotations

from runner.errors import ProtectionMissingError, RequestError
from runner.model.profile import Isolation, Profile, WorkspaceMode
from runner.model.protection import (
    ALWAYS_IN_PROCESS_TIER,
    LANDLOCK_OF_PROCESS_TIER,
    NOT_IN_PROCESS_TIER,
    Protection,
)


def required_walls(profile: Profile) -> tuple[frozenset[Protection], int]:
    """Required protections, and the least Landlock ABI (0: any, or none).

    RequestError: a workspace that the tier can't have. ProtectionMissingError: one is required
    that the tier can't give.
    """
    requires, landlock_minimum = profile.requires, profile.landlock_minimum
    if profile.isolation is Isolation.PROCESS:
        for protection in sorted(requires & NOT_IN_PROCESS_TIER):
            raise ProtectionMissingError(
                protection,
                f"profile {profile.name!r} says isolation: process, which has none; use a profile "
                "with isolation: full, or have the protection taken from what is required",
            )
        if profile.workspace is WorkspaceMode.BIND:
            raise RequestError(
                f"profile {profile.name!r} binds the workspace, and isolation: process can't guard "
                "what is in it; say workspace: copy"
            )
        requires |= ALWAYS_IN_PROCESS_TIER
        landlock_minimum = max(landlock_minimum, LANDLOCK_OF_PROCESS_TIER)
    if landlock_minimum:
        requires |= {Protection.LANDLOCK}
    return requires, landlock_minimum
