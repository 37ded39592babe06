"""Reading the shell: its grammar, its words, its commands."""
