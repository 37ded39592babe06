"""Reading who may call the exec API, as settings state it."""

from __future__ import annotations

import grp
import json
import pwd
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from runner.model.callers import ALGORITHMS, ClaimRule, Issuer, PeerRule
from runner.model.identity import NO_TENANT, Identity, Verb
from runner.schema.problems import unknown

_LISTS = ("verbs", "agents", "tenants", "profiles")
_SCOPE = ("agent", *_LISTS)
_OVERFLOW = Path("/proc/sys/kernel")
_LARGEST_ID = 2**32 - 2
"""The largest uid and gid that there can be; one more means none (chown(2))."""


def read_peers(value: object) -> tuple[PeerRule, ...]:
    """A mapping of users and groups to what they may do; in a variable as JSON.

    A key is `uid:N`, `gid:N`, `group:NAME` or a user's name. ValueError: what is wrong.
    """
    rules = []
    for who, scope in _mapping(_decoded(value), "it").items():
        where = f"{who!r}"
        uid, gid = _whose(who)
        stated = _mapping(scope, where)
        _check_keys(stated, _SCOPE, where)
        rules.append(PeerRule(uid, gid, _identity(stated, where)))
    ids = [(rule.uid, rule.gid) for rule in rules]
    if len(set(ids)) != len(ids):
        raise ValueError("it names a user or a group twice; state what each may do in one place")
    return tuple(rules)


def read_issuers(value: object) -> tuple[Issuer, ...]:
    """A list of issuers of tokens; in a variable as JSON. ValueError: what is wrong."""
    found = _decoded(value)
    issuers = tuple(map(_issuer, found if isinstance(found, list) else [found]))
    urls = [issuer.url for issuer in issuers]
    if len(set(urls)) != len(urls):
        raise ValueError("an issuer is stated twice; state all that its tokens let do in one place")
    return issuers


def check_url(text: str) -> str:
    """An https URL; http is for this machine itself. ValueError: it is neither."""
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
        plain = parts.scheme == "http" and _is_loopback(host)
        well_formed = (parts.scheme == "https" or plain) and host and parts.port != 0
    except ValueError:
        well_formed = False
    if not well_formed or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"{text!r} must be a URL like https://login.example.org")
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"{text!r} must be without a user's name and password")
    return text


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _issuer(value: object) -> Issuer:
    stated = _mapping(value, "an issuer")
    known = ("issuer", "audience", "keys", "algorithms", "rules")
    _check_keys(stated, known, "an issuer")
    url = stated.get("issuer")
    if not isinstance(url, str):
        raise ValueError("an issuer needs its URL: 'issuer: https://login.example.org'")
    check_url(url)
    if "?" in url or "#" in url:
        raise ValueError(f"{url!r} must be without '?' and '#' (OpenID Connect Discovery 1.0, 3)")
    audience = stated.get("audience")
    audiences = [audience] if isinstance(audience, str) else audience
    keys = stated.get("keys", "")
    if not isinstance(keys, str):
        raise ValueError(f"keys of {url} must be a URL or a file's absolute path")
    if keys and not keys.startswith("/"):
        check_url(keys)
    algorithms = _some(stated.get("algorithms", list(ALGORITHMS)), f"algorithms of {url}")
    for each in algorithms:
        if each not in ALGORITHMS:
            raise ValueError(unknown("algorithm", each, ALGORITHMS))
    rules = stated.get("rules")
    if not isinstance(rules, list) or not rules:
        raise ValueError(f"{url} needs 'rules': which claims of its tokens let do what")
    return Issuer(
        url,
        _some(audiences, f"audience of {url}"),
        keys,
        algorithms,
        tuple(_rule(rule, f"rule {n} of {url}") for n, rule in enumerate(rules, 1)),
    )


def _rule(value: object, where: str) -> ClaimRule:
    stated = _mapping(value, where)
    _check_keys(stated, ("when", "agent_claim", "tenant_claim", *_SCOPE), where)
    when = _mapping(stated.get("when", {}), f"'when' of {where}")
    if not when:
        raise ValueError(f"{where} needs 'when', such as 'when: {{groups: operators}}'")
    for claim, text in when.items():
        if not claim or not isinstance(text, str) or not text:
            raise ValueError(f"{claim!r} in 'when' of {where} must have a text")
    agent_claim = _claim(stated, "agent_claim", "agent", where)
    tenant_claim = _claim(stated, "tenant_claim", "tenants", where)
    # As an agent's, so that what no agent is let do is found here, and not with the first token.
    scope = {name: stated[name] for name in _SCOPE if name in stated}
    if agent_claim is not None:
        scope["agent"] = "agent"
    identity = _identity(scope, where)
    if agent_claim is not None:
        identity = replace(identity, agent=None)
    if tenant_claim is not None:
        identity = replace(identity, tenants=())
    wanted = tuple(sorted((claim, str(text)) for claim, text in when.items()))
    return ClaimRule(wanted, identity, agent_claim, tenant_claim)


def _claim(stated: Mapping[str, object], key: str, instead: str, where: str) -> str | None:
    claim = stated.get(key)
    if claim is None:
        return None
    if not isinstance(claim, str) or not claim:
        raise ValueError(f"{key} of {where} must be the name of a claim")
    if instead in stated:
        raise ValueError(f"{where} has both {instead} and {key}: leave one out")
    return claim


def _identity(stated: Mapping[str, object], where: str) -> Identity:
    """What is left out is not granted; tenants: what belongs to none."""
    agent = stated.get("agent")
    if not isinstance(agent, str | None):
        raise ValueError(f"agent of {where} must be a name")
    lists = {name: _texts(stated.get(name, []), f"{name} of {where}") for name in _LISTS}
    if "tenants" not in stated:
        lists["tenants"] = (NO_TENANT,)
    for verb in lists["verbs"]:
        if verb not in set(Verb):
            raise ValueError(f"{where}: {unknown('verb', verb, tuple(Verb))}")
    if not lists["verbs"]:
        raise ValueError(f"{where} needs verbs, one or more of {', '.join(Verb)}")
    if agent is None and not lists["agents"] and set(lists["verbs"]) - {Verb.ADMIN}:
        raise ValueError(f"{where} needs 'agent: NAME', or agents: a list of patterns")
    if Verb.RUN in lists["verbs"] and not lists["profiles"]:
        raise ValueError(f"{where} needs profiles, a list of patterns, for the verb run")
    verbs = frozenset(map(Verb, lists["verbs"]))
    try:
        return Identity("", verbs, agent, lists["agents"], lists["tenants"], lists["profiles"])
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _whose(who: str) -> tuple[int | None, int | None]:
    kind, colon, rest = who.partition(":")
    if kind in ("uid", "gid") and colon:
        if not (rest.isascii() and rest.isdecimal() and int(rest) <= _LARGEST_ID):
            raise ValueError(f"{who!r} is no {kind}: write {kind}:1000")
        number = int(rest)
    else:
        kind, number = _looked_up(who)
    if number == _overflow(kind):
        raise ValueError(
            f"{who!r} is whoever the kernel has no number for here (user_namespaces(7)), which may "
            "be anybody: it can't be given anything"
        )
    return (number, None) if kind == "uid" else (None, number)


def _looked_up(who: str) -> tuple[str, int]:
    group, colon, name = who.partition(":")
    try:
        if group == "group" and colon:
            return "gid", grp.getgrnam(name).gr_gid
        return "uid", pwd.getpwnam(who).pw_uid
    except (KeyError, ValueError):
        raise ValueError(
            f"{who!r} is no user here; write a user's name, uid:N, group:NAME or gid:N"
        ) from None


def _overflow(kind: str) -> int:
    try:
        return int((_OVERFLOW / f"overflow{kind}").read_text())
    except (OSError, ValueError):
        return 65534  # DEFAULT_OVERFLOWUID of linux/highuid.h


def _decoded(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError("in a variable it must be JSON") from None


def _mapping(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{where} must be a mapping")
    return value


def _check_keys(stated: Mapping[str, object], known: Sequence[str], where: str) -> None:
    for key in stated:
        if key not in known:
            raise ValueError(f"{where}: {unknown('key', key, known)}")


def _texts(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"{where} must be a list of texts")
    return tuple(value)


def _some(value: object, where: str) -> tuple[str, ...]:
    found = _texts(value, where)
    if not found or "" in found:
        raise ValueError(f"{where} must name at least one")
    return found
