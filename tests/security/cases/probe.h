/* What the cases in C stand on; see probe.py, which is the same for Python. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static int tried;
static const char *facts;

static inline void wrong(const char *what, long value)
{
    printf("WRONG %s: %ld, errno %d (%s)\n", what, value, errno, strerror(errno));
    fflush(stdout);
}

/* It must have failed; with this errno, where one is given. */
static inline void refused(const char *what, long result, int code)
{
    tried++;
    if (result >= 0 || (code != 0 && errno != code))
        wrong(what, result);
}

/* It must have succeeded; what it returned. */
static inline long works(const char *what, long result)
{
    tried++;
    if (result < 0)
        wrong(what, result);
    return result;
}

static inline void same(const char *what, long actual, long expected)
{
    tried++;
    if (actual != expected)
        wrong(what, actual);
}

/* What comes now is ended by a limit: say what was tried until here. */
static inline void begun(void)
{
    printf("TRIED %d\n", tried + 1);
    fflush(stdout);
}

/* The value of a text among the facts, which are JSON; none of them holds an escape. */
static inline const char *fact(const char *name)
{
    static char found[4][4096];
    static int next;
    char key[64];
    snprintf(key, sizeof key, "\"%s\": \"", name);
    const char *start = strstr(facts, key);
    char *to = found[next++ % 4];
    *to = 0;
    if (start != NULL) {
        start += strlen(key);
        snprintf(to, sizeof found[0], "%.*s", (int)strcspn(start, "\""), start);
    }
    return to;
}

/* A file's content as text, cut at size - 1; -1 where it can't be read. */
static inline int slurp(const char *path, char *to, int size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), length = 0, got;
    if (fd < 0)
        return -1;
    while (length < size - 1 && (got = read(fd, to + length, size - 1 - length)) > 0)
        length += got;
    close(fd);
    to[length] = 0;
    return length;
}

/* The number behind a name in /proc/self/status, which is written to that base; -1 if none. */
static inline long status_of(const char *name, int base)
{
    static char text[16384];
    char key[64];
    if (slurp("/proc/self/status", text, sizeof text) < 0)
        return -1;
    snprintf(key, sizeof key, "\n%s:", name);
    const char *at = strstr(text, key);
    return at == NULL ? -1 : strtol(at + strlen(key), NULL, base);
}

static void attack(void);
static void twin(void);

int main(int count, char **words)
{
    if (count != 3)
        return 2;
    facts = words[2];
    if (strcmp(words[1], "attack") == 0)
        attack();
    else
        twin();
    printf("TRIED %d\n", tried);
    return 0;
}
