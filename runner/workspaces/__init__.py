"""The host's side of a workspace: reading and writing what changes are applied to."""
