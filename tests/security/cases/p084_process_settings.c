/* 67, 84, 105: what prctl(2) would loosen: tracing, dumps, filters, capabilities, new privileges.
GAPS = {"process": {"bounding": "as a user nobody may empty that set; without new privileges it grants nothing"}}
 */
#include "probe.h"

static void locked(void)
{
    const char *open = open_lock();
    tried++;
    if (open != NULL)
        wrong(open, 0);
}

static void attack(void)
{
    refused("new privileges again", prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0), EINVAL);
    refused("strict mode, which has other calls", prctl(PR_SET_SECCOMP, 0, 0), 0);
    refused("secure bits", prctl(PR_SET_SECUREBITS, 0x3), EPERM);
    for (int number = 0; number < 41; number++) {
        refused("ambient", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number, 0, 0), EPERM);
        same("bounding", prctl(PR_CAPBSET_READ, number), 0);
    }
    prctl(PR_SET_KEEPCAPS, 1);
    prctl(PR_SET_DUMPABLE, 1);
    prctl(0x59616d61 /* PR_SET_PTRACER */, -1L, 0, 0, 0);
    struct { uint32_t version; int pid; } header = {0x20080522, 0};
    struct { uint32_t effective, permitted, inheritable; } data[2] = {{~0u, ~0u, ~0u}, {~0u, ~0u, ~0u}};
    refused("capset", syscall(SYS_capset, &header, data), EPERM);
    refused("the program's file", prctl(PR_SET_MM, 13 /* EXE_FILE */, open("old", O_RDONLY), 0, 0), 0);
    refused("where its arguments are", prctl(PR_SET_MM, 8 /* ARG_START */, header, 0, 0), 0);
    refused("memory that survives failure", prctl(33 /* PR_MCE_KILL */, 1, 9, 0, 0), EINVAL);
    locked();
    pid_t child = fork();
    if (child == 0) {
        char *words[] = {"p084_process_settings", "locks", NULL};
        execv("./p084_process_settings", words);
        _exit(1);
    }
    int status;
    waitpid(child, &status, 0);
    same("none behind an exec", WEXITSTATUS(status), 0);
    struct rlimit core;
    getrlimit(RLIMIT_CORE, &core);
    same("no core file", core.rlim_max, 0);
    child = fork();
    if (child == 0)
        abort();
    waitpid(child, &status, 0);
    same("nothing dumped", WCOREDUMP(status), 0);
}

static void twin(void)
{
    works("its name", prctl(PR_SET_NAME, "honest"));
    works("its death signal", prctl(PR_SET_PDEATHSIG, SIGTERM));
    works("a reaper", prctl(PR_SET_CHILD_SUBREAPER, 1));
    works("not to be dumped", prctl(PR_SET_DUMPABLE, 0));
    works("timer slack", prctl(PR_SET_TIMERSLACK, 1000));
    locked();
}
