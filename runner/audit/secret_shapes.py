r"""How secrets look: a table of shapes, in data.

Each is found by a regular expression that takes linear time on any text: what repeats is bounded,
or is a single class whose beginning can stand at one place only (Python's `re` backtracks). A row
is tried only where one of its needles stands in the text in lower case, which is what makes a text
without secrets cheap. The last group that matched is the secret, without groups all of it.

Words of a command line are looked at as one text with U+001F between them, which `SP` takes for a
blank; so `--token`, `abc` in two words is found as in a shell's text. Ordinary hashes, commit ids,
UUIDs and digests have no shape here: they are redacted only where a name says that they are secret.

Sources: the vendors' pages on token formats (GitHub, "About authentication to GitHub"; GitLab,
"Token overview"; Slack, "Token types"; AWS IAM, "Unique identifiers"; RFC 7519 for JWT, RFC 7468
for PEM, RFC 6750 and 7617 for `Authorization`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SEPARATOR = "\x1f"
"""Stands between the words of a command line that are looked at as one text."""
LONGEST = 4608
"""No shape but a private key spans more characters, context included."""
KEY_BEGINS = re.compile(r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----")

SP = r"[ \t\x1f]"
_START = r"(?<![A-Za-z0-9_-])"
# A value as it stands without quotes; `$x`, `<x>` and `{x}` stand for one that is elsewhere.
_BARE = r"(?:[^\s\"'`;&|<>()\\{$\[]|\\(?![\"'nrt]))(?:[^\s\"'`;&|<>()\\]|\\(?![\"'nrt])){0,255}"
_QUOTED = (
    r"\\{1,3}\"(?![ \t])((?:[^\"\\\n\x1f]|\\(?!\")){1,256})"
    r"|\\{1,3}'(?![ \t])((?:[^'\\\n\x1f]|\\(?!')){1,256})"
    # A blank behind a quote: it closes a prompt, as in `-p "Password: " name`.
    r"|\"(?![ \t])((?:[^\"\\\n\x1f]|\\.){1,256})"
    r"|'(?![ \t])([^'\n\x1f]{1,256})"
)
_VALUE = rf"(?:{_QUOTED}|({_BARE}))"
_NAME_ENDS = r"(?:_?\d{1,2})?(?:\\{0,3}[\"'])?"
_ASSIGNS = rf"{SP}{{0,3}}(?::=|=>|[=:]|%3[dD]){SP}{{0,3}}"
_PASSWORD = r"(?:password|passwd|passphrase|passwort|(?<=[_;&?.-])pwd(?=[=:]))"  # noqa: S105
_NAMED = (
    r"(?:secret|token|credentials?|api[_-]?key|access[_-]?key|secret[_-]?key|private[_-]?key"
    r"|account[_-]?key|auth[_-]?key|signing[_-]?key|encryption[_-]?key|client[_-]?secret)"
)
_OPTION = (
    r"(?:password|passwd|passphrase|token|secret|secret-key|api-key|apikey|access-key|auth-token"
    r"|client-secret|account-key|pass)"
)


@dataclass(frozen=True, slots=True)
class Shape:
    """One row."""

    kind: str
    needles: tuple[str, ...]
    """In lower case; one of them stands in every text that holds such a secret."""
    pattern: re.Pattern[str]
    whole_word: bool = False
    """Whether the rest of a command's word belongs to it, where the words are known."""
    named: bool = False
    """Whether only a name beside it says so: words like `true` or a call are then no secret."""


def _row(
    kind: str,
    needles: str,
    pattern: str,
    flags: int = 0,
    *,
    whole_word: bool = False,
    named: bool = False,
) -> Shape:
    return Shape(kind, tuple(needles.split()), re.compile(pattern, flags), whole_word, named)


_I = re.IGNORECASE

SHAPES: tuple[Shape, ...] = (
    # Its lines only: text behind an opening line is not hidden with it.
    _row(
        "private-key",
        "private",
        KEY_BEGINS.pattern + r"(?:(?:\s|\\[rn])*+(?:(?:Proc-Type|DEK-Info|Version|Comment): "
        r"[^\n\\]{1,80}|[A-Za-z0-9+/]{16,80}={0,2}|=?[A-Za-z0-9+/]{1,80}={0,2}"
        r"(?=(?:\s|\\[rn]){0,4}(?:-----END|=)|\Z)))*+"
        r"(?:(?:\s|\\[rn])*+-----END (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----)?",
    ),
    _row("anthropic", "sk-ant-", rf"{_START}sk-ant-[A-Za-z0-9_-]{{16,256}}"),
    _row("openai", "sk-", rf"{_START}sk-(?:(?:proj|svcacct|admin)-[A-Za-z0-9_-]{{20,256}}"
         r"|[A-Za-z0-9]{20,128}(?![A-Za-z0-9-]))"),
    _row("aws-access-key", "akia asia abia acca",
         r"(?<![A-Za-z0-9])(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Za-z0-9])"),
    _row("aws-secret-key", "secret",
         rf"aws_?secret(?:_?access)?_?key{_NAME_ENDS}{SP}{{0,3}}[=:]?{SP}{{0,3}}\\{{0,3}}[\"']?"
         r"([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+])", _I),
    _row("github", "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_",
         r"(?<![A-Za-z0-9])(?:gh[pousr]_[A-Za-z0-9]{20,255}|github_pat_[A-Za-z0-9_]{20,255})"),
    _row("gitlab", "glpat- gldt- glrt- glcbt- glptt- glft- glsoat- glimt- glagent-",
         r"(?<![A-Za-z0-9])gl(?:pat|dt|rt|cbt|ptt|ft|soat|imt|agent)-[A-Za-z0-9_.-]{16,255}"),
    _row("slack", "xox xapp- hooks.slack.com",
         r"(?<![A-Za-z0-9])(?:xox[abceoprs]-[A-Za-z0-9-]{10,255}|xapp-\d-[A-Za-z0-9-]{10,255})"
         r"|hooks\.slack\.com/(?:services|workflows)/([A-Za-z0-9/_-]{20,200})"),
    _row("stripe", "_live_ _test_ whsec_",
         r"(?<![A-Za-z0-9])(?:[sr]k_(?:live|test)_[A-Za-z0-9]{10,255}|whsec_[A-Za-z0-9+/]{20,255})"),
    _row("google", "aiza ya29. gocspx-",
         r"(?<![A-Za-z0-9])(?:AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_.-]{20,512}"
         r"|GOCSPX-[A-Za-z0-9_-]{20,64})"),
    _row("npm", "npm_", r"(?<![A-Za-z0-9])npm_[A-Za-z0-9]{36}(?![A-Za-z0-9])"),
    _row("pypi", "pypi-", r"(?<![A-Za-z0-9])pypi-AgE[A-Za-z0-9_-]{30,512}"),
    # Its id stays: it tells which one to revoke.
    _row("runner", "rnk_",
         r"(?<![A-Za-z0-9])rnk_[a-z2-7]{12}_([A-Za-z0-9]{32}(?:_[0-9a-f]{8})?)(?![A-Za-z0-9])"),
    _row("sendgrid", "sg.", rf"{_START}SG\.[A-Za-z0-9_-]{{16,64}}\.[A-Za-z0-9_-]{{16,64}}"),
    _row("hugging-face", "hf_", r"(?<![A-Za-z0-9_])hf_[A-Za-z0-9]{30,64}(?![A-Za-z0-9_])"),
    _row("docker", "dckr_", r"(?<![A-Za-z0-9])dckr_(?:pat|oat)_[A-Za-z0-9_-]{20,64}"),
    _row("jwt", "eyj", rf"{_START}eyJ[A-Za-z0-9_-]{{8,1024}}+\.eyJ[A-Za-z0-9_-]{{8,2048}}+"
         r"(?:\.[A-Za-z0-9_-]{0,1024}+)?"),
    _row("authorization", "authorization",
         rf"authorization{_NAME_ENDS}{_ASSIGNS}\\{{0,3}}[\"']?"
         rf"(?:(?:bearer|basic|token|digest|apikey|negotiate){SP}{{1,3}})"
         r"([^\s\"'\\\[$<{][^\s\"'\\]{2,2047})", _I),
    _row("bearer", "bearer",
         rf"(?<![a-z0-9])bearer{SP}{{1,3}}(?=[^\s\d]{{0,64}}\d)"
         r"([A-Za-z0-9._~+/-]{16,2048}=*)", _I),
    # `scheme://user:PASSWORD@host`, and a token in the user's place.
    _row("url-password", "://",
         r"://[^\s/?#@:\"'<>]{0,128}:([^\s/?\"'<>$*][^\s/?\"'<>]{0,255})@"
         r"|://((?=[A-Za-z_-]{0,64}\d)[A-Za-z0-9_-]{20,255})@"),
    _row("password", "passw passphrase pwd",
         rf"{_PASSWORD}{_NAME_ENDS}{_ASSIGNS}{_VALUE}", _I, whole_word=True, named=True),
    _row("secret", "secret token credential key",
         rf"{_NAMED}{_NAME_ENDS}(?:{SP}{{0,3}}(?::=|=>|=|%3d){SP}{{0,3}}{_VALUE}"
         # Prose has `token: word`; a value has a digit, or stands in quotes.
         rf"|{SP}{{0,3}}:{SP}{{0,3}}(?:{_QUOTED}|(?=[^\s\d]{{0,64}}\d)({_BARE})))",
         _I, whole_word=True, named=True),
    _row("option", "--pass --token --secret --api --access --auth --client --account -token -pass"
         " -secret -key",
         rf"(?<![\w-])--?(?:[a-z0-9]{{1,20}}-){{0,3}}?{_OPTION}{SP}{{1,3}}(?!-)(?!(?:id|src|type)=)"
         rf"{_VALUE}", _I, whole_word=True, named=True),
    _row("pass-argument", "pass:", rf"-pass(?:in|out)?{SP}{{1,3}}[\"']?pass:([^\s\"']{{1,256}})"),
    # Programs whose short options take one.
    _row("user-password", "curl wget",
         rf"(?<![\w.-])curl(?=[\s])[^\n|;&]{{0,512}}?{SP}(?:-[a-zA-Z]{{0,8}}u|--user|--proxy-user|-U)"
         rf"(?:{SP}{{1,3}}|=)?[\"']?[^\s:\"'$]{{1,128}}:([^\s\"'$][^\s\"']{{0,255}})",
         whole_word=True),
    _row("user-password", "smbclient",
         rf"(?<![\w.-])smbclient(?=\s)[^\n|;&]{{0,256}}?{SP}-U{SP}{{0,3}}"
         r"[\"']?[^\s%\"']{1,128}%([^\s\"'$][^\s\"']{0,255})", whole_word=True),
    _row("program-password", "mysql mariadb sshpass 7z",
         r"(?<![\w.-])(?:(?:mysql|mariadb)(?:dump|admin|import|show|check|-dump|-admin)?|sshpass|7za?)"
         rf"(?=[\s])[^\n|;&]{{0,256}}?{SP}-p(?!rint|ath|erm|rune)(?:\\?\"([^\"\n\x1f]{{1,256}})|'([^'\n\x1f]{{1,256}})"
         rf"|([^\s\"'$\\;|&()<>][^\s\"';|&()<>]{{0,255}}))", whole_word=True),
    _row("program-password", "sshpass docker redis-cli podman htpasswd ldapsearch ldapmodify zip",
         r"(?<![\w.-])(?:sshpass(?=\s)[^\n|;&]{0,64}?-p|(?:docker|podman)\s{1,3}login\b[^\n|;&]{0,256}?"
         r"\s-p|redis-cli(?=\s)[^\n|;&]{0,256}?\s-a|ldap(?:search|modify|add)(?=\s)"
         rf"[^\n|;&]{{0,256}}?\s-w|(?:un)?zip(?=\s)[^\n|;&]{{0,64}}?\s-P){SP}{{1,3}}"
         r"(?:\"([^\"\n\x1f]{1,256})|'([^'\n\x1f]{1,256})|([^\s\"'$\\;|&()<>-][^\s\"';|&()<>]{0,255}))",
         whole_word=True),
)  # fmt: skip

NEEDLES: tuple[tuple[str, int], ...] = tuple(
    (needle, number) for number, shape in enumerate(SHAPES) for needle in shape.needles
)
"""Each needle, and the number of its row."""

SECRET_NAME = re.compile(
    rf"(?:.*[^a-z])?(?:pass|{_NAMED})\d{{0,2}}|.*[^a-z]pwd"
    r"|.*(?:token|secret|password|passwd|passphrase|apikey)\d{0,2}",
    _I | re.DOTALL,
)
"""A variable's or a key's name that says that its value is secret."""

NAME_NEEDLES = ("pass", "pwd", "token", "secret", "credential", "key")
"""One of them stands, in lower case, in each such name."""

NO_SECRETS = frozenset(
    """
    none null nil true false yes no undefined string str int bool bytes text required optional
    hidden masked redacted
    """.split()  # noqa: SIM905  (read more easily so)
)
"""Words that stand where a secret would, and are none."""
