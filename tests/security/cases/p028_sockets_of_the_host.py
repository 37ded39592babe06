"""28: sockets of services, and one that stands in the workspace."""

import contextlib
import os
import socket
import stat

from probe import TMP, main

PATHS = (
    "/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock",
    "/run/podman/podman.sock", "/run/dbus/system_bus_socket", "/run/systemd/private",
    "/run/systemd/journal/socket", "/dev/log", "/run/user/0/bus", "/run/user/1000/bus",
    "/run/udev/control", "/tmp/.X11-unix/X0", "/run/snapd.socket", "socket",
)  # fmt: skip
GAPS = {
    "bind": {
        "connect to socket": "a socket in the bound folder can be connected to",
        "reached on the host: in the workspace": "a socket in the bound folder can be connected to",
    },
    "process": {
        "a service of its own": "all sockets are refused, but the two ends of a pair",
    },
}


def connect(path):
    with socket.socket(socket.AF_UNIX) as own:
        own.connect(path)


def serve(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        connect(path)


def attack(probe):
    for path in PATHS:
        probe.refused(f"connect to {path}", lambda path=path: connect(path))
    found = [os.path.join(place, name) for place, _, names in os.walk("/run") for name in names]
    sockets = [path for path in found if stat.S_ISSOCK(os.lstat(path).st_mode)]
    probe.same("sockets in /run", sockets, [])
    with contextlib.suppress(PermissionError):  # where it is the host's, and closed
        own = {"runner", "lock", "mount"}
        probe.same("the host's in /run", set(os.listdir("/run")) - own, set())
    for name in ("SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR", "DOCKER_HOST"):
        probe.same(name, os.environ.get(name), None)


def twin(probe):
    for path in ("mine", f"{TMP}/mine"):
        probe.works("a service of its own", lambda path=path: serve(path))


main(attack, twin)
