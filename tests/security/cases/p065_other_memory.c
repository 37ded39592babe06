/* 11, 65: memory and registers of other processes: init's, and even a child's own.
GAPS = {"process": {"its own by its file": "no process's folder in /proc can be opened", "as written": "no process's folder in /proc can be opened"}, "docker": {"its own by its file": "Landlock keeps all of /proc from being written there", "as written": "Landlock keeps all of /proc from being written there"}}
 */
#include "probe.h"
#include <sys/ptrace.h>

static char there[64] = "of the child";

static void attack(void)
{
    pid_t child = fork();
    if (child == 0)
        for (;;)
            pause();
    const pid_t whom[] = {1, getppid(), number_fact("pid"), child, getpid()};
    for (unsigned i = 0; i < sizeof whom / sizeof *whom; i++) {
        char here[64];
        struct iovec own = {here, sizeof here}, its = {there, sizeof there};
        refused("attach", ptrace(PTRACE_ATTACH, whom[i], 0, 0), EPERM);
        refused("seize", ptrace(PTRACE_SEIZE, whom[i], 0, 0), EPERM);
        refused("peek", syscall(SYS_ptrace, PTRACE_PEEKDATA, whom[i], there, here), EPERM);
        refused("read", process_vm_readv(whom[i], &own, 1, &its, 1, 0), EPERM);
        refused("write", process_vm_writev(whom[i], &own, 1, &its, 1, 0), EPERM);
        refused("compare", syscall(SYS_kcmp, getpid(), whom[i], 0, 0, 0), EPERM);
        int process = syscall(434, whom[i], 0);
        refused("a descriptor", syscall(438, process, 0, 0), EPERM);
        refused("advice", syscall(440, process, &its, 1, 4, 0), EPERM);
        refused("its release", syscall(448, process, 0), 0);
    }
    refused("to be traced", ptrace(PTRACE_TRACEME, 0, 0, 0), EPERM);
    for (int i = 0; i < 3; i++) { /* init, and in a tier without namespaces the supervisor */
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/mem", whom[i]);
        refused("its memory", open(path, O_RDONLY), 0);
        refused("its pages moved",
                syscall(SYS_move_pages, whom[i], 1UL, &(void *){there}, NULL, &(int){0}, 0), 0);
        refused("its memory nodes",
                syscall(SYS_migrate_pages, whom[i], 1UL, &(long){1}, &(long){1}), 0);
        struct { void *head; size_t size; } robust;
        refused("its locks",
                syscall(SYS_get_robust_list, whom[i], &robust.head, &robust.size), 0);
    }
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    /* A process that shares memory is no way round: it is as locked in. */
    static char stack[16384];
    pid_t sharing = clone((int (*)(void *))pause, stack + sizeof stack, CLONE_VM | SIGCHLD, NULL);
    refused("one that shares memory", ptrace(PTRACE_ATTACH, sharing, 0, 0), EPERM);
    kill(sharing, SIGKILL);
}

static void twin(void)
{
    char *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t child = fork();
    if (child == 0) {
        strcpy(shared, "from the child");
        _exit(0);
    }
    waitpid(child, NULL, 0);
    same("memory that is shared on purpose", strcmp(shared, "from the child"), 0);
    int memory = open("/proc/self/mem", O_RDWR);
    works("its own by its file", pwrite(memory, "changed", 8, (off_t)(intptr_t)there));
    same("as written", strcmp(there, "changed"), 0);
    works("its own named", prctl(PR_SET_NAME, "worker"));
}
