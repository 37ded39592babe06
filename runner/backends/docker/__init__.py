"""Sandboxes as containers of a Docker engine; `lease.py` explains how one works."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.backends.docker.backend import DockerBackend

DEFAULT_IMAGE = "runner/base:latest"


def create(
    cache: Path | None = None, *, base_url: str | None = None, image: str = DEFAULT_IMAGE
) -> DockerBackend:
    """The docker backend.

    `cache` is a folder that only this user may write, for files that are handed to containers
    while they run (None: the folder for temporary files). `base_url` names the engine
    (`unix:///run/docker.sock`; None: DOCKER_HOST, else the default socket), `image` what runs are
    given that name none. BackendUnavailableError: the package `docker` is not installed, or no
    engine answers.
    """
    from runner.backends.docker.backend import DockerBackend  # noqa: PLC0415  (an extra)

    return DockerBackend(cache, base_url, image)
