"""50 to 54, 57: families that nothing needs, also with bits that the kernel cuts off; netlink."""

import errno
import socket
import struct

from probe import call, main

ALLOWED = {socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK}
RTM_NEWLINK, RTM_NEWADDR, RTM_NEWROUTE, RTM_GETLINK = 16, 20, 24, 18
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 1, 4, 0x300
GAPS = {
    "process": {
        "family": "all sockets are refused, but the two ends of a pair",
        "links listed": "all sockets are refused, but the two ends of a pair",
    },
}


def ask(kind, flags, payload, protocol=0):
    """One netlink request; OSError with the errno of the answer (netlink(7))."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as own:
        own.settimeout(5)
        own.send(struct.pack("=IHHII", 16 + len(payload), kind, flags, 1, 0) + payload)
        answer = own.recv(65536)
    _, answered, *_ = struct.unpack_from("=IHHII", answer)
    if answered == 2 and (code := -struct.unpack_from("=i", answer, 16)[0]):
        raise OSError(code, "netlink")
    return answer


def attack(probe):
    for family in range(1, 50):
        if family in ALLOWED:
            continue
        for high in (0, 1 << 32, 0xFFFFFFFF << 32):
            for kind in (1, 2, 3, 5):
                made = family | high
                probe.refused(
                    f"family {family}",
                    lambda f=made, k=kind: call("socket", f, k, 0),
                    errno.EAFNOSUPPORT,
                    errno.EACCES,  # where no family at all is granted
                )
    link = struct.pack("=BxHiII", 0, 0, 1, 0, 1)
    address = struct.pack("=BBBBI", 2, 32, 0, 0, 1) + struct.pack(
        "=HH4s", 8, 2, bytes((10, 0, 0, 1))
    )
    route = struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 3, 0, 1, 0)
    for kind, payload in ((RTM_NEWLINK, link), (RTM_NEWADDR, address), (RTM_NEWROUTE, route)):
        flags = NLM_F_REQUEST | NLM_F_ACK
        asked = lambda k=kind, p=payload, f=flags: ask(k, f, p)  # noqa: E731
        probe.refused(f"request {kind}", asked, errno.EPERM, errno.EACCES)


def twin(probe):
    for family in ALLOWED:
        probe.works(f"family {family}", lambda f=family: call("socket", int(f), 2, 0))
    link = struct.pack("=BxHiII", 0, 0, 0, 0, 0)
    probe.works("links listed", lambda: ask(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, link))
    probe.works("a pair", socket.socketpair)


main(attack, twin)
