"""What runs in the launcher's processes: standard library and ctypes only, no secrets.

Theory of operation. The supervisor starts one *zygote* (`zygote.py`): a clean interpreter with an
empty environment and one thread. For each run it sends a plan, and the zygote forks a *builder*
(`builder.py`), which makes the namespaces and mounts, and stays outside of the sandbox to watch
it: it holds the wall limit, kills, and at the end reads what changed. The builder forks *init*
(`inside.py`), process 1 of the sandbox's pid namespace; init forks the *program*'s process, which
gives up every privilege, waits for the word to go, and executes. When init ends, the kernel kills
whatever is left in its namespace; init dies with the builder, and the builder ends the run when
the supervisor's end of its socket closes. So nothing survives a `kill -9` of any of them.

The lesser tier `process` has builder and init of its own (`process_builder.py`,
`process_inside.py`), where init also does what the program may not (`metadata.py`).

    supervisor ── zygote ── builder ── init (pid 1) ── program
        └──────── socket ─────┘
"""
