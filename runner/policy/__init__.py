"""Deciding: Intent and rules become a Decision; pure."""
