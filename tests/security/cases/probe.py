"""What the cases stand on; put beside each in its workspace. Standard library only.

A case is a program that runs in a sandbox. Its `attack` tries what must not succeed, its `twin`
does the same thing legitimately: so a broken sandbox, in which nothing works, can't pass for a
safe one. Both say in lines what is wrong, and how much was tried.

Constants of a case, all optional, are read by the test without importing it: `LIMITS` (as a
request's), `EXPECTED` (fields of the outcome, by mode), `TERMINAL`, `ORDER` of the modes, `WITHOUT`
(protection -> what to expect where it is not in force, and as `gap` what is not withstood then),
`GAPS` (target -> how a line that says what is wrong may begin -> why that is known),
`NOT_ON` (target -> why it can't run there). The numbers of a case: 1 to 29 files, 30 to 60 network,
61 to 86 processes, 87 to 100 resources, from 101 on what leaks.
"""

import ctypes
import errno
import json
import os
import platform
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
X86 = platform.machine() == "x86_64"
CLONE_FLAGS = {
    "NEWNS": 0x20000,
    "NEWCGROUP": 0x2000000,
    "NEWUTS": 0x4000000,
    "NEWIPC": 0x8000000,
    "NEWUSER": 0x10000000,
    "NEWPID": 0x20000000,
    "NEWNET": 0x40000000,
}
# Name -> number on x86_64 and on aarch64 (arch/x86/entry/syscalls/syscall_64.tbl,
# include/uapi/asm-generic/unistd.h).
NUMBERS = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "clone": (56, 220),
    "clone3": (435, 435),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioctl": (16, 29),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "openat2": (437, 437),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "prlimit64": (302, 261),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "seccomp": (317, 277),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "shmget": (29, 194),
    "socket": (41, 198),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}

FACTS = json.loads(sys.argv[2])
TMP, HOME = os.environ["TMPDIR"], os.environ["HOME"]
APART = FACTS["namespaces"]
"""Whether the machine's /tmp, /dev/shm and numbers of processes are out of sight."""
PLACES = (TMP, *(("/dev/shm",) if APART else ()), HOME, ".")
"""All that can be written."""


def call(name, *arguments):
    """A system call by its name, with arguments of the full 64 bits; OSError as it fails."""
    passed = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments]
    result = LIBC.syscall(ctypes.c_long(NUMBERS[name][0 if X86 else 1]), *passed)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def read(path, size=4096):
    """The first bytes of a file."""
    with open(path, "rb") as file:
        return file.read(size)


def write(path, data, flags=os.O_CREAT, mode=0o644):
    """Write to a file, which is made unless `flags` say else."""
    fd = os.open(path, os.O_WRONLY | flags, mode)
    try:
        return os.write(fd, data)
    finally:
        os.close(fd)


def filled(path):
    """What a file holds, or a folder; ValueError where it is there and holds nothing."""
    found = os.listdir(path) if os.path.isdir(path) else read(path)
    if not found:
        raise ValueError(path)
    return found


def link(path, target):
    """linkat(2) with AT_SYMLINK_FOLLOW: what `path` leads to gets a second name."""
    here = os.open(".", os.O_RDONLY)
    os.link(path, target, src_dir_fd=here, follow_symlinks=True)


def in_child(action):
    """The wait status of a child that does it and exits with 0."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1]


class Probe:
    """Keeps count, and says what is wrong."""

    def __init__(self, facts):
        self.facts = facts
        """Names of what stands on the host: see `Stage` in the test."""
        self.tried = 0

    def wrong(self, what, value):
        print("WRONG", what, repr(value)[:300], flush=True)

    def refused(self, what, action, *codes):
        """It must fail with OSError or ValueError; with one of these codes where they are given."""
        self.tried += 1
        try:
            value = action()
        except (OSError, ValueError) as error:
            code = getattr(error, "errno", None)
            if codes and code not in codes:
                self.wrong(what, f"{errno.errorcode.get(code)} is no refusal")
        else:
            self.wrong(what, value)

    def works(self, what, action):
        """It must succeed; what it returned."""
        self.tried += 1
        try:
            return action()
        except Exception as error:
            self.wrong(what, error)

    def same(self, what, actual, expected):
        """They must be equal."""
        self.tried += 1
        if actual != expected:
            self.wrong(what, actual)

    def begun(self):
        """What comes now is ended by a limit: say what was tried until here."""
        print("TRIED", self.tried + 1, flush=True)


def main(attack, twin):
    """What a case ends with."""
    probe = Probe(FACTS)
    {"attack": attack, "twin": twin}[sys.argv[1]](probe)
    print("TRIED", probe.tried, flush=True)
