"""A server's runner, with the methods of `Runner`; importing it loads little.

Nothing but the standard library and the nouns of `runner.model`: an agent's process that only calls
a server needs neither pydantic nor what runs sandboxes.
"""

from __future__ import annotations

from runner.client.remote import RemoteRunner as RemoteRunner
from runner.client.remote import connect as connect

__all__ = ["RemoteRunner", "connect"]
