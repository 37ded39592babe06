"""Reading: a command or a script becomes an Intent."""
