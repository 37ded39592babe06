"""Counters become Usage; budget arithmetic; pure."""
