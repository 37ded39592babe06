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

/* The number of that name among the facts; -1 if there is none. */
static inline long number_fact(const char *name)
{
    char key[64];
    snprintf(key, sizeof key, "\"%s\": ", name);
    const char *start = strstr(facts, key);
    return start == NULL ? -1 : strtol(start + strlen(key), NULL, 10);
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

/* Where temporary files go: of the run's own, by another name in a tier without mounts. */
static inline const char *in_tmp(const char *name)
{
    static char found[4][4096];
    static int next;
    const char *folder = getenv("TMPDIR");
    char *to = found[next++ % 4];
    snprintf(to, sizeof found[0], "%s/%s", folder != NULL ? folder : "/tmp", name);
    return to;
}

/* What still stands open; asked by calls, for /proc may be closed. NULL when nothing does. */
static inline const char *open_lock(void)
{
    struct { uint32_t version; int pid; } header = {0x20080522, 0};
    uint32_t sets[6] = {0};
    if (prctl(39 /* PR_GET_NO_NEW_PRIVS */, 0, 0, 0, 0) != 1)
        return "new privileges";
    if (prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != 2)
        return "no filter";
    if (syscall(SYS_capget, &header, sets) != 0)
        return "capget";
    for (int i = 0; i < 6; i++)
        if (sets[i] != 0)
            return "capabilities";
    for (int number = 0; number < 64; number++)
        if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, number, 0, 0) == 1)
            return "ambient capabilities";
    return NULL;
}

static void attack(void);
static void twin(void);

int main(int count, char **words)
{
    if (count == 2 && strcmp(words[1], "locks") == 0)
        return open_lock() != NULL; /* a case started itself, to see what became of it */
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
