"""Where checkpoints are sent, as settings state it."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.errors import SettingsError
from runner.model.checkpoints import Destination, DestinationKind
from runner.schema.destinations import read_destinations
from runner.settings import load_settings

FILE = Destination(DestinationKind.FILE, ("/srv/kept",))
COMMAND = Destination(DestinationKind.COMMAND, ("/usr/bin/logger", "-t", "x"))
URL = Destination(DestinationKind.URL, ("https://me:secret@example.org:8443/a?token=secret",))


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("/srv/kept", (FILE,)),
        ("/srv/x/../kept", (FILE,)),
        ("~/kept", (Destination(DestinationKind.FILE, ("/home/me/kept",)),)),
        ([], ()),
        (["/srv/kept", {"command": list(COMMAND.words)}, URL.words[0]], (FILE, COMMAND, URL)),
        ('["/srv/kept", {"command": ["/usr/bin/logger", "-t", "x"]}]', (FILE, COMMAND)),
        ('{"command": ["/usr/bin/logger", "-t", "x"]}', (COMMAND,)),
    ],
)
def test_what_is_read(value: object, found: tuple[Destination, ...]) -> None:
    assert read_destinations(Path("/home/me"), value) == found


@pytest.mark.parametrize(
    "value",
    [
        7,
        "",
        "relative/kept",
        "/srv/\0",
        "ftp://example.org/",
        "https://",
        "https://example.org:0/",
        "https://example.org:99999/",
        "https://example.org/a b",
        "https://example.org/a\nb",
        "[1, 2",
        ["/srv/kept", None],
        {"command": []},
        {"command": "logger"},
        {"command": ["logger"]},
        {"command": ["/usr/bin/logger", 1]},
        {"command": ["/usr/bin/logger"], "more": 1},
        {"comand": ["/usr/bin/logger"]},
    ],
)
def test_what_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"must be|begins like JSON"):
        read_destinations(Path("/home/me"), value)


def test_what_is_secret_in_a_url_is_not_shown() -> None:
    assert str(URL) == "https://example.org:8443/a"
    assert str(COMMAND) == "/usr/bin/logger -t x"


def test_as_settings(tmp_path: Path) -> None:
    env = {
        "HOME": str(tmp_path),
        "RUNNER_CHECKPOINT_TO": "/srv/kept",
        "RUNNER_CHECKPOINT_EVENTS": "9",
    }
    rules = load_settings(env=env, etc=tmp_path).checkpoint_rules
    assert (rules.every_events, rules.every_s, rules.to) == (9, 300.0, (FILE,))
    for name, value in (("TO", "kept"), ("EVENTS", "unlimited"), ("SECONDS", "soon")):
        with pytest.raises(SettingsError, match=f"RUNNER_CHECKPOINT_{name}"):
            load_settings(env={**env, f"RUNNER_CHECKPOINT_{name}": value}, etc=tmp_path)
