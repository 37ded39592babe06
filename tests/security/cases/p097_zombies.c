/* 97: children that end and are never waited for; each keeps its number.
LIMITS = {"processes": 20, "wall": "20s"}
EXPECTED = {"attack": {"termination": "limit", "limit": "processes"}}
 */
#include "probe.h"

static void attack(void)
{
    begun();
    for (;;) {
        pid_t child = fork();
        if (child == 0)
            _exit(0);
        if (child < 0)
            usleep(10000);
    }
}

static void twin(void)
{
    for (int i = 0; i < 100; i++) {
        pid_t child = fork();
        if (child == 0)
            _exit(fork() == 0 ? 0 : 1); /* an orphan, which init waits for */
        int status;
        works("a child", child);
        waitpid(child, &status, 0);
        usleep(2000); /* until init has */
    }
}
