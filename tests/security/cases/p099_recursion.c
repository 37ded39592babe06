/* 99: recursion without end: a stack that may grow as far as anything does, in several processes.
LIMITS = {"memory": "128MiB", "wall": "20s"}
EXPECTED = {"attack": {"termination": "limit", "limit": "memory"}}
 */
#include "probe.h"

static int deeper(volatile char *before, int left)
{
    volatile char here[4096];
    memset((char *)here, *before + 1, sizeof here);
    return left == 0 ? here[17] : deeper(here, left - 1) + here[4095];
}

static void again(const char *mode)
{
    char *words[] = {"/proc/self/exe", (char *)mode, (char *)facts, NULL};
    setenv("DEEPER", "1", 1);
    execv(words[0], words);
}

static void attack(void)
{
    if (getenv("DEEPER") == NULL) {
        struct rlimit stack;
        getrlimit(RLIMIT_STACK, &stack);
        stack.rlim_cur = stack.rlim_max;
        setrlimit(RLIMIT_STACK, &stack); /* counts from the next exec on */
        begun();
        again("attack");
    }
    for (int i = 0; i < 3; i++)
        if (fork() == 0)
            break;
    deeper("x", 60 << 8); /* 60 MiB, each */
    sleep(60);
}

static void twin(void)
{
    tried++;
    deeper("x", 1000);
    pid_t child = fork();
    if (child == 0)
        deeper("x", 1 << 20);
    int status;
    waitpid(child, &status, 0);
    same("one whose stack is full dies alone", WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, 1);
}
