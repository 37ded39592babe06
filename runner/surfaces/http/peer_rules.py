"""What the peer of the server's unix socket may do: all, what a rule says, or nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from runner.model.callers import PeerRule
from runner.model.identity import ANY, Identity, Verb
from runner.surfaces.http.peers import Peer

_ROOT = 0


def identity_of_peer(
    peer: Peer, rules: Sequence[PeerRule], own_uid: int | None = None
) -> Identity | None:
    """Who the peer is, by the rules; None: nobody that anything was granted.

    The server's own user may do all, which it could as well without the server, by its state
    folder; so may root. Not so a program that is confined more tightly than the server, whatever
    its uid: it may be one that runner itself runs in a sandbox, or a container's root. That one is
    let do what a rule says of its user, and no more. Rules of users come before those of groups;
    of these the first that fits counts. `own_uid`: instead of this process's.
    """
    name = f"uid:{peer.uid}"
    own = os.geteuid() if own_uid is None else own_uid
    if peer.uid in (_ROOT, own) and not peer.confined:
        return Identity(name, frozenset(Verb), None, ANY, ANY, ANY)
    for rule in rules:
        if rule.uid == peer.uid:
            return replace(rule.identity, name=name)
    groups = {peer.gid, *peer.groups}
    for rule in rules:
        if rule.gid is not None and rule.gid in groups:
            return replace(rule.identity, name=name)
    return None


def socket_mode(rules: Sequence[PeerRule]) -> int:
    """Mode of the socket's file: its user's alone, unless others are let do something there.

    Then everybody can connect, and who is no one's rule is refused.
    """
    return 0o666 if rules else 0o600
