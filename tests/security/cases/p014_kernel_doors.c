/* 13 to 15, 18, 55, 68 to 74, 82: each call as it would be made by one who may, not with zeros.
 */
#include "probe.h"
#include <sys/mount.h>

struct clone_arguments {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
        set_tid_size, cgroup;
};

static void mounts(void)
{
    mkdir("/tmp/at", 0755);
    refused("tmpfs", mount("x", "/tmp/at", "tmpfs", 0, ""), EPERM);
    refused("bind", mount("/usr", "/tmp/at", NULL, MS_BIND | MS_REC, NULL), EPERM);
    refused("remount", mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL), EPERM);
    refused("proc", mount("x", "/tmp/at", "proc", 0, NULL), EPERM);
    refused("move", mount("/usr", "/tmp/at", NULL, MS_MOVE, NULL), EPERM);
    refused("propagation", mount(NULL, "/", NULL, MS_SHARED | MS_REC, NULL), EPERM);
    const char *mounted[] = {"/proc", "/usr", "/dev/shm", "/tmp", "/"};
    for (int i = 0; i < 5; i++)
        for (int flags = 0; flags <= MNT_DETACH; flags += MNT_DETACH)
            refused("unmount", umount2(mounted[i], flags), EPERM);
    refused("fsopen", syscall(430, "tmpfs", 0), EPERM);
    refused("open_tree", syscall(428, AT_FDCWD, "/usr", 1 | 0x8000), EPERM);
    refused("open_tree of what is shown", syscall(428, AT_FDCWD, "/proc/self/root", 0), EPERM);
    refused("fspick", syscall(433, AT_FDCWD, "/", 0), EPERM);
    struct { uint64_t set, clear, propagation, userns; } attributes = {0, 1, 0, 0};
    refused("mount_setattr",
            syscall(442, AT_FDCWD, "/usr", 0x8000, &attributes, sizeof attributes), EPERM);
    refused("move_mount", syscall(429, AT_FDCWD, "/usr", AT_FDCWD, "/tmp/at", 0), EPERM);
}

static void roots(void)
{
    int top = open("/", O_PATH | O_DIRECTORY);
    refused("chroot", chroot("/tmp/at"), EPERM);
    for (int i = 0; i < 32; i++)
        fchdir(top), chdir("..");
    struct stat here, root;
    stat(".", &here), stat("/", &root);
    same("above the root is the root", here.st_ino == root.st_ino && here.st_dev == root.st_dev, 1);
    refused("pivot_root", syscall(SYS_pivot_root, "/tmp", "/tmp/at"), EPERM);
    struct { unsigned bytes; int type; unsigned char handle[128]; } handle = {128};
    int id;
    refused("a handle", syscall(SYS_name_to_handle_at, AT_FDCWD, "/usr", &handle, &id, 0), EPERM);
    handle.bytes = 8, handle.type = 1, memcpy(handle.handle, "\2\0\0\0\0\0\0\0", 8);
    refused("by a handle", syscall(SYS_open_by_handle_at, top, &handle, O_RDONLY), EPERM);
}

static void namespaces(void)
{
    const long flags[] = {CLONE_NEWUSER, CLONE_NEWUSER | CLONE_NEWNS, CLONE_NEWUSER | CLONE_NEWPID,
                          CLONE_NEWUSER | CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWIPC,
                          CLONE_NEWUTS, CLONE_NEWCGROUP, CLONE_NEWPID};
    for (unsigned i = 0; i < sizeof flags / sizeof *flags; i++) {
        refused("unshare", syscall(SYS_unshare, flags[i]), EPERM);
        refused("clone", syscall(SYS_clone, flags[i] | SIGCHLD, 0, 0, 0, 0), EPERM);
        refused("clone with a high bit",
                syscall(SYS_clone, flags[i] | SIGCHLD | 1L << 33, 0, 0, 0, 0), EPERM);
        struct clone_arguments arguments = {.flags = flags[i], .exit_signal = SIGCHLD};
        refused("clone3", syscall(435, &arguments, sizeof arguments), ENOSYS);
    }
    const char *names[] = {"user", "mnt", "net", "pid", "ipc", "uts"};
    for (int i = 0; i < 6; i++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/ns/%s", names[i]);
        refused("setns", syscall(SYS_setns, open(path, O_RDONLY), 0), EPERM);
    }
    refused("setns by a process", syscall(SYS_setns, syscall(434, getpid(), 0), CLONE_NEWNS), EPERM);
}

static void kernel(void)
{
    refused("a keyring", syscall(SYS_keyctl, 1, "session"), EPERM);
    refused("a key", syscall(SYS_add_key, "user", "name", "value", 5, -3), EPERM);
    refused("a key asked for", syscall(SYS_request_key, "user", "name", NULL, -3), EPERM);
    union { uint32_t map[12]; char room[128]; } attribute = {{1, 4, 8, 16}};
    refused("a bpf map", syscall(SYS_bpf, 0, &attribute, sizeof attribute), EPERM);
    uint32_t event[32] = {1, 128};
    refused("a software event", syscall(SYS_perf_event_open, event, 0, -1, -1, 0), EPERM);
    for (int mode = 0; mode < 2; mode++)
        refused("userfaultfd", syscall(SYS_userfaultfd, O_CLOEXEC | mode), EPERM);
    char ring[128] = {0};
    refused("a ring", syscall(425, 8, ring), EPERM);
    refused("a module", syscall(SYS_finit_module, open("old", O_RDONLY), "", 0), EPERM);
    refused("a module's bytes", syscall(SYS_init_module, ring, sizeof ring, ""), EPERM);
    refused("a kernel", syscall(SYS_kexec_load, 0, 0, NULL, 0), EPERM);
    refused("a kernel's file", syscall(SYS_kexec_file_load, 0, -1, 0, "", 4), EPERM);
    refused("restart", syscall(SYS_reboot, 0xfee1dead, 672274793, 0x89abcdef, 0), EPERM);
    refused("accounting", syscall(SYS_acct, "old"), EPERM);
    refused("a file watch", syscall(SYS_fanotify_init, 0x200, O_RDONLY), EPERM);
}

static void attack(void)
{
    mounts();
    roots();
    namespaces();
    kernel();
}

static void twin(void)
{
    works("a folder", mkdir(in_tmp("at"), 0755));
    works("to go there", chdir(in_tmp("at")));
    pid_t child = fork();
    if (child == 0)
        _exit(7);
    int status;
    waitpid(child, &status, 0);
    same("a child", WEXITSTATUS(status), 7);
    works("a descriptor of a process", syscall(434, getpid(), 0));
    works("its own namespace looked at", open("/proc/self/ns/user", O_RDONLY));
    works("a memory file", syscall(SYS_memfd_create, "x", 0));
    works("an event", syscall(SYS_eventfd2, 0, 0));
    works("a watch", syscall(SYS_inotify_init1, 0));
}
