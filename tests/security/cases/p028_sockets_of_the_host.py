"""28: sockets of services, and one that stands in the workspace."""

import os
import socket
import stat

from probe import main

PATHS = (
    "/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock",
    "/run/podman/podman.sock", "/run/dbus/system_bus_socket", "/run/systemd/private",
    "/run/systemd/journal/socket", "/dev/log", "/run/user/0/bus", "/run/user/1000/bus",
    "/run/udev/control", "/tmp/.X11-unix/X0", "/run/snapd.socket", "socket",
)  # fmt: skip


def connect(path):
    with socket.socket(socket.AF_UNIX) as own:
        own.connect(path)


def attack(probe):
    for path in PATHS:
        probe.refused(f"connect to {path}", lambda path=path: connect(path))
    found = [os.path.join(place, name) for place, _, names in os.walk("/run") for name in names]
    sockets = [path for path in found if stat.S_ISSOCK(os.lstat(path).st_mode)]
    probe.same("sockets in /run", sockets, [])
    probe.same("the host's in /run", set(os.listdir("/run")) - {"runner", "lock", "mount"}, set())
    for name in ("SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR", "DOCKER_HOST"):
        probe.same(name, os.environ.get(name), None)


def twin(probe):
    for path in ("mine", "/tmp/mine"):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            probe.works(f"connect to {path}", lambda path=path: connect(path))


main(attack, twin)
