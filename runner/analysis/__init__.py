"""Reading: a command or a script becomes an Intent."""

from runner.analysis.reader import read

__all__ = ["read"]
