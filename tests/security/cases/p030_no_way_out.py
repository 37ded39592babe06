"""30 to 33, 47, 48, 52: the host's loopback, addresses, names, abstract sockets."""

import contextlib
import errno
import socket

from probe import main

AWAY = (
    "10.0.0.1",
    "192.168.0.1",
    "169.254.169.254",
    "198.18.0.1",
    "203.0.113.1",
    "255.255.255.255",
)
GAPS = {
    "process": {
        "its own": "all sockets are refused, but the two ends of a pair",
    },
    "docker": {
        "raw": "the engine lets everybody make ping sockets, which reach nobody",
    },
}


def connect(family, kind, address):
    with socket.socket(family, kind) as own:
        own.settimeout(5)
        own.connect(address)


def send(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.bind(("127.0.0.1", address[1] ^ 1))  # not the same by chance
        own.sendto(b"x", address)
        own.settimeout(0.1)
        own.connect(address)
        own.send(b"x")  # ECONNREFUSED when the first was
        own.recv(1)


def attack(probe):
    tcp, udp = probe.facts["tcp"], probe.facts["udp"]
    probe.refused("tcp", lambda: connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", tcp)))
    probe.refused(
        "mapped", lambda: connect(socket.AF_INET6, socket.SOCK_STREAM, ("::ffff:127.0.0.1", tcp))
    )
    probe.refused("any", lambda: connect(socket.AF_INET, socket.SOCK_STREAM, ("0.0.0.0", tcp)))
    probe.refused("udp", lambda: send(("127.0.0.1", udp)))
    probe.refused(
        "abstract",
        lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + probe.facts["abstract"]),
    )
    for address in AWAY:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            probe.refused(address, lambda a=address, k=kind: connect(socket.AF_INET, k, (a, 53)))
    probe.refused("v6", lambda: connect(socket.AF_INET6, socket.SOCK_DGRAM, ("2001:db8::1", 53)))
    probe.refused("a name", lambda: socket.getaddrinfo("example.com", 80))
    with contextlib.suppress(PermissionError):  # where there are no sockets to ask by
        probe.same("interfaces", [name for _, name in socket.if_nameindex()], ["lo"])
    for kind, protocol in ((socket.SOCK_RAW, 1), (socket.SOCK_RAW, 255), (socket.SOCK_DGRAM, 1)):
        probe.refused("raw", lambda k=kind, p=protocol: socket.socket(socket.AF_INET, k, p),
                      errno.EPERM, errno.EACCES)  # fmt: skip


def tcp():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        socket.create_connection(listener.getsockname(), 5).close()


def udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.bind(("127.0.0.1", 0))
        own.sendto(b"x", own.getsockname())
        return own.recv(1)


def abstract():
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0mine")
        listener.listen()
        connect(socket.AF_UNIX, socket.SOCK_STREAM, "\0mine")


def twin(probe):
    for name, action in (("tcp", tcp), ("udp", udp), ("abstract", abstract)):
        probe.works(f"its own {name}", action)
    probe.works("localhost", lambda: socket.getaddrinfo("localhost", 80))


main(attack, twin)
