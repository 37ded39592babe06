"""13 to 15, 18, 65, 68 to 74, 82: calls that are refused whatever their arguments."""

import errno
import os

from probe import CLONE_FLAGS, call, main

REFUSED = (
    "acct", "add_key", "adjtimex", "bpf", "chroot", "clock_adjtime", "clock_settime",
    "delete_module", "fanotify_init", "finit_module", "fsconfig", "fsmount", "fsopen", "fspick",
    "init_module", "io_uring_enter", "io_uring_register", "io_uring_setup", "kcmp",
    "kexec_file_load", "kexec_load", "keyctl", "mount", "mount_setattr", "move_mount",
    "name_to_handle_at", "open_by_handle_at", "open_tree", "open_tree_attr", "perf_event_open",
    "pidfd_getfd", "pivot_root", "process_madvise", "process_vm_readv", "process_vm_writev",
    "ptrace", "quotactl", "quotactl_fd", "reboot", "request_key", "setdomainname", "sethostname",
    "setns", "settimeofday", "swapoff", "swapon", "syslog", "umount2", "unshare", "userfaultfd",
    "vhangup",
)  # fmt: skip
SIGCHLD = 17


def attack(probe):
    for name in REFUSED:
        probe.refused(name, lambda name=name: call(name, 0, 0, 0, 0, 0, 0), errno.EPERM)
    probe.refused("clone3", lambda: call("clone3", 0, 0), errno.ENOSYS)
    for name, flag in CLONE_FLAGS.items():
        for high in (0, 1 << 32, 1 << 63):
            made = flag | high
            probe.refused(name, lambda f=made: call("unshare", f), errno.EPERM)
            probe.refused(name, lambda f=made: call("clone", f | SIGCHLD, 0, 0, 0, 0), errno.EPERM)
            both = made | CLONE_FLAGS["NEWUSER"]
            probe.refused(name, lambda f=both: call("clone", f | SIGCHLD, 0, 0, 0, 0), errno.EPERM)
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    probe.refused("setns", lambda: call("setns", own, 0), errno.EPERM)


def twin(probe):
    pid = probe.works("clone", lambda: call("clone", SIGCHLD, 0, 0, 0, 0))
    if pid == 0:
        os._exit(7)
    probe.same("its end", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 7)
    probe.same("a program", os.spawnlp(os.P_WAIT, "true", "true"), 0)
    probe.works("a descriptor of a process", lambda: os.pidfd_open(os.getpid()))
    probe.works("a memory file", lambda: os.memfd_create("x"))


main(attack, twin)
