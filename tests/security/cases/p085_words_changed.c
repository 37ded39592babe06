/* 85: argv and path changed by another thread and another process while an exec reads them.
 */
#include "probe.h"
#include <pthread.h>

static char path[64];
static volatile int going = 1;

static const char *const PROGRAMS[] = {"./p085_words_changed", "/bin/true"};

static void *flips(void *nothing)
{
    for (unsigned i = 0; going; i++)
        strcpy(path, PROGRAMS[i % 2]);
    return NULL;
}

static int flips_in_a_process(void *nothing)
{
    flips(nothing);
    return 0;
}

/* Whichever it became: this one looks at its own locks, true ends with 0 as well. */
static int raced(void)
{
    char *words[] = {"p085_words_changed", "locks", NULL};
    pid_t child = vfork();
    if (child == 0) {
        execv(path, words);
        _exit(9);
    }
    int status;
    waitpid(child, &status, 0);
    return WEXITSTATUS(status);
}

static void attack(void)
{
    static char stack[16384];
    pthread_t thread;
    strcpy(path, PROGRAMS[1]);
    pthread_create(&thread, NULL, flips, NULL);
    pid_t sharing = clone(flips_in_a_process, stack + sizeof stack, CLONE_VM | SIGCHLD, NULL);
    for (int i = 0; i < 200; i++) {
        int code = raced();
        same("what came of it is as locked in", code == 0 || code == 9, 1);
    }
    going = 0;
    pthread_join(thread, NULL);
    kill(sharing, SIGKILL);
    waitpid(sharing, NULL, 0);
}

static void twin(void)
{
    strcpy(path, PROGRAMS[0]);
    for (int i = 0; i < 20; i++)
        same("an exec by one alone", raced(), 0);
}
