"""Adapters that keep the log and the ledger in one transaction."""
