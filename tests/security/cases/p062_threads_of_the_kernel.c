/* 62: threads by the system call, with next to no stack, so that nothing but a limit ends it.
LIMITS = {"processes": 20, "wall": "20s"}
EXPECTED = {"attack": {"termination": "limit", "limit": "processes"}}
 */
#include "probe.h"
#include <pthread.h>

static int sleeps(void *nothing)
{
    for (;;)
        pause();
}

static void attack(void)
{
    enum { MOST = 4096, STACK = 4096 };
    char *stacks = mmap(NULL, MOST * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
    begun();
    for (int made = 0; made < MOST;)
        if (clone(sleeps, stacks + (made + 1) * STACK, flags, NULL) > 0)
            made++;
        else
            usleep(10000);
    printf("WRONG so many threads were made\n");
}

static void *adds(void *number)
{
    __atomic_add_fetch((int *)number, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

static void twin(void)
{
    pthread_t threads[10];
    int number = 0;
    for (int i = 0; i < 10; i++)
        works("a thread", -pthread_create(&threads[i], NULL, adds, &number));
    for (int i = 0; i < 10; i++)
        pthread_join(threads[i], NULL);
    same("all of them", number, 10);
}
