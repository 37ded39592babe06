"""The Docker engine, by its SDK; every foreign exception stops here."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from runner.backends.docker.channel import Channel
from runner.errors import BackendError, BackendUnavailableError
from runner.model.usage import Usage

if TYPE_CHECKING:
    import docker

ENGINE_TIMEOUT_S = 60
"""For one answer of the engine; creating and starting take a second on a busy machine."""
GONE_WITHIN_S = 15.0
T = TypeVar("T")
_CONFLICT = 409
_NOT_FOUND = 404


class Engine:
    """One connection to an engine; not shared between threads."""

    def __init__(self, base_url: str | None) -> None:
        """`base_url` as `unix:///run/docker.sock`, or None for the SDK's own choice.

        BackendUnavailableError: the SDK is not installed or no engine answers.
        """
        try:
            import docker  # noqa: PLC0415  (an extra; and slow to import)
        except ImportError as error:
            raise BackendUnavailableError(
                "the docker backend needs the package `docker`; install it with "
                "`pip install 'runner-sandbox[docker]'`"
            ) from error
        self._errors = (docker.errors.DockerException, OSError)
        try:
            if base_url is None:
                self._client = docker.from_env(version="auto", timeout=ENGINE_TIMEOUT_S)
            else:
                self._client = docker.DockerClient(
                    base_url, version="auto", timeout=ENGINE_TIMEOUT_S
                )
            self._api: docker.APIClient = self._client.api
        except self._errors as error:
            raise BackendUnavailableError(
                f"no Docker engine answers{'' if base_url is None else f' at {base_url}'} "
                f"({_said(error)}); start one, join the group of its socket, or name another "
                "with DOCKER_HOST"
            ) from error

    def info(self) -> dict[str, Any]:
        """What the engine says of itself (SystemInfo)."""
        return dict(self._call("describe itself", self._api.info))

    def image_id(self, name: str) -> str:
        """The image's id. BackendUnavailableError: the engine has none of that name."""
        try:
            return str(self._api.inspect_image(name)["Id"])  # type: ignore[no-untyped-call]
        except self._errors as error:
            if _status(error) == _NOT_FOUND:
                raise BackendUnavailableError(
                    f"the engine has no image {name!r}; build it with `scripts/build-images`, or "
                    "name another one in the profile's `image`"
                ) from error
            raise self._failed("look up the image", error) from error

    def create(self, body: Mapping[str, Any], name: str) -> str:
        """Create a container; returns its id."""
        answer = self._call(
            "create the container",
            lambda: self._api.create_container_from_config(body, name),  # type: ignore[no-untyped-call]
        )
        return str(answer["Id"])

    def attach(self, container: str) -> Channel:
        """Take over stdin, stdout and stderr of a container that was not started yet."""
        wanted = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        raw = self._call(
            "attach to the container", lambda: self._api.attach_socket(container, params=wanted)
        )
        attached = getattr(raw, "_sock", raw)
        if not isinstance(attached, socket.socket):
            raise BackendUnavailableError(
                "the docker backend reaches its engine by a unix or plain TCP socket only; "
                "set DOCKER_HOST to unix://PATH"
            )
        return Channel(attached, raw)

    def start(self, container: str) -> None:
        """Start it."""
        self._call("start the container", lambda: self._api.start(container))

    def remove(self, container: str) -> None:
        """Kill and remove it with everything it had; returns when it is gone."""
        deadline_s = time.monotonic() + GONE_WITHIN_S
        while True:
            try:
                self._api.remove_container(container, v=True, force=True)
            except self._errors as error:
                if _status(error) == _NOT_FOUND:
                    return
                # Conflict: the engine is removing it already, because it was made to at its end.
                if _status(error) != _CONFLICT or time.monotonic() >= deadline_s:
                    raise self._failed("remove the container", error) from error
                time.sleep(0.02)

    def containers(self, label: str) -> list[dict[str, Any]]:
        """All containers, stopped ones too, that have a label of this name (ContainerList)."""
        found = self._call(
            "list containers", lambda: self._api.containers(all=True, filters={"label": label})
        )
        return list(found)

    def kill(self, container: str) -> bool:
        """SIGKILL to all that is in it; False: nothing is any more."""
        try:
            self._api.kill(container)
        except self._errors as error:
            if _status(error) in {_NOT_FOUND, _CONFLICT}:
                return False
            raise self._failed("kill the container", error) from error
        return True

    def usage(self, container: str, since_s: float) -> Usage:
        """What a container has used that was made then (epoch seconds), init included."""
        told = self._call(
            "measure the container",
            lambda: self._api.stats(container, stream=False, one_shot=True),
        )
        cpu, memory = told.get("cpu_stats", {}), told.get("memory_stats", {})
        counted = cpu.get("cpu_usage", {})
        system_s = counted.get("usage_in_kernelmode", 0) / 1e9
        return Usage(
            wall_s=max(0.0, time.time() - since_s),
            cpu_user_s=counted.get("total_usage", 0) / 1e9 - system_s,
            cpu_system_s=system_s,
            memory_peak_bytes=memory.get("max_usage") or memory.get("usage"),
            processes=told.get("pids_stats", {}).get("current"),
        )

    def ran_out_of_memory(self, container: str, since_s: float) -> bool:
        """Whether the engine saw an `oom` event of this container since then (epoch seconds)."""
        found = self._call(
            "list events",
            lambda: list(
                self._api.events(
                    since=int(since_s) - 1,
                    until=int(time.time()) + 1,
                    filters={"container": container, "event": "oom"},
                    decode=True,
                )
            ),
        )
        return bool(found)

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def _call(self, what: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except self._errors as error:
            raise self._failed(what, error) from error

    def _failed(self, what: str, error: Exception) -> BackendError:
        return BackendError(f"the Docker engine could not {what}: {_said(error)}")


def _status(error: Exception) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _said(error: Exception) -> str:
    explained = getattr(error, "explanation", None)
    text = explained if isinstance(explained, str) and explained else str(error)
    return " ".join(text.split())[:500]
