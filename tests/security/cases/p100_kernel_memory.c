/* 100: memory that the kernel holds for a program: pipes, sockets, watches, queues, segments.
LIMITS = {"memory": "96MiB", "open_files": 1024, "processes": 40, "wall": "40s"}
EXPECTED = {"attack": {"termination": "limit", "limit": "memory"}}
WITHOUT = {"cgroup": {"attack": {}, "gap": "nothing but descriptors and the kernel's own bounds"}}
GAPS = {"process": {"a queue": "queues have names that all programs share", "a segment": "segments have names that all programs share", "its memory": "segments have names that all programs share", "a watch": "watches tell names of folders that are closed"}}
 */
#include "probe.h"
#include <mqueue.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

/* Fill a non-blocking descriptor; how many bytes went in. */
static long fill(int fd)
{
    static char part[65536];
    long all = 0, got;
    while ((got = write(fd, part, sizeof part)) > 0)
        all += got;
    return all;
}

static long pipes(void)
{
    long all = 0;
    int ends[2];
    while (pipe2(ends, O_NONBLOCK) == 0) {
        fcntl(ends[1], F_SETPIPE_SZ, 1 << 20);
        all += fill(ends[1]);
    }
    return all;
}

static long sockets(void)
{
    long all = 0;
    int ends[2], size = 1 << 20;
    for (int i = 0; i < 64 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0; i++) {
        setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
        all += fill(ends[0]);
    }
    return all;
}

static long queues(void)
{
    long all = 0;
    static struct { long kind; char text[8192]; } message = {1};
    for (int i = 0; i < 4000; i++) {
        int queue = msgget(IPC_PRIVATE, 0600);
        if (queue < 0)
            break;
        while (msgsnd(queue, &message, 4096, IPC_NOWAIT) == 0)
            all += 4096;
    }
    return all;
}

static long watches(void)
{
    long all = 0;
    int fd;
    while ((fd = inotify_init1(O_CLOEXEC)) >= 0)
        for (int i = 0; i < 64; i++) {
            char path[4200];
            snprintf(path, sizeof path, "%s/%d", in_tmp("."), i);
            close(open(path, O_CREAT | O_WRONLY, 0600));
            if (inotify_add_watch(fd, path, IN_ALL_EVENTS) >= 0)
                all += 1024;
        }
    return all;
}

static long descriptors(void)
{
    long all = 0;
    while (eventfd(0, 0) >= 0)
        all += 256;
    return all;
}

/* Bounded, for where nothing else bounds it. In children, so that each has descriptors of its own, and what it took stays while it lives. */
static void attack(void)
{
    long (*const kinds[])(void) = {pipes, sockets, queues, watches, descriptors};
    long *taken = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int said[2];
    begun();
    pipe(said);
    for (int i = 0; i < 5; i++)
        if (fork() == 0) {
            taken[i] = kinds[i]();
            write(said[1], "x", 1);
            sleep(60);
        }
    char one;
    for (int i = 0; i < 5; i++)
        read(said[0], &one, 1);
    long all = 0;
    for (int i = 0; i < 5; i++)
        all += taken[i];
    printf("TRIED 5 taken %ld %ld %ld %ld %ld\n", taken[0], taken[1], taken[2], taken[3], taken[4]);
    fflush(stdout);
    _exit(0); /* the tree ends with it */
}

static void twin(void)
{
    int ends[2];
    works("a pipe", pipe2(ends, O_NONBLOCK));
    same("as large as any", fill(ends[1]), 65536);
    works("a pair", socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    works("an event", eventfd(0, 0));
    works("a queue", msgget(IPC_PRIVATE, 0600));
    int segment = shmget(IPC_PRIVATE, 1 << 20, 0600);
    works("a segment", segment);
    works("its memory", shmat(segment, NULL, 0) == (void *)-1 ? -1 : 0);
    int fd = inotify_init1(0);
    works("a watch", inotify_add_watch(fd, in_tmp("."), IN_CREATE));
}
