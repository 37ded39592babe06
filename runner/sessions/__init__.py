"""Sessions: sandboxes whose files and processes live on between commands.

Each is kept by a process of its own (`runner.surfaces.keeping`), which decides, meters and records
what comes into it and ends it in time, whatever becomes of those who use it. Here is what talks to
such a process.
"""
