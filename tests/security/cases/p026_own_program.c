/* 10, 26: the program that runs written over, and one that is started by the launcher's own.
EXPECTED = {"twin": {"changes": {"copy": "file"}}}
 */
#include "probe.h"

static int copy(const char *from, const char *to)
{
    static char part[65536];
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0755), got;
    while ((got = read(in, part, sizeof part)) > 0)
        if (write(out, part, got) != got)
            return -1;
    close(in);
    return close(out);
}

static void attack(void)
{
    const char *self[] = {"/proc/self/exe", "/proc/thread-self/exe", "/proc/1/exe"};
    for (int i = 0; i < 3; i++) {
        refused("written", open(self[i], O_WRONLY), 0);
        refused("written and read", open(self[i], O_RDWR), 0);
        refused("cut", truncate(self[i], 0), 0);
        refused("its mode", chmod(self[i], 0777) < 0 || i < 2 ? -1 : 0, 0);
    }
    const char *programs[] = {"/usr/bin/env", "/bin/sh", "/usr/bin/python3"};
    for (int i = 0; i < 3; i++) {
        int held = open(programs[i], O_PATH | O_CLOEXEC), shown = open(programs[i], O_RDONLY);
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", held);
        refused("a held program", open(path, O_RDWR), 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", shown);
        refused("a shown program", open(path, O_RDWR), 0);
        refused("a shared mapping that is written",
                mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, shown, 0) == MAP_FAILED ? -1
                                                                                            : 0, 0);
        refused("its size", ftruncate(shown, 0), 0);
        refused("room in it", fallocate(shown, 0, 0, 1 << 20), 0);
    }
    /* Private memory may be changed, and the file stays what it is. */
    int shown = open("/usr/bin/env", O_RDONLY);
    char *mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, shown, 0);
    char first[4];
    memcpy(mapped, "evil", 4);
    pread(shown, first, 4, 0);
    same("the file itself", memcmp(first, "\177ELF", 4), 0);
    int memory = open("/proc/self/mem", O_RDWR);
    char *fixed = mmap(NULL, 4096, PROT_READ, MAP_SHARED, shown, 0);
    refused("a shared page by its memory", pwrite(memory, "evil", 4, (off_t)(intptr_t)fixed), 0);
    pread(shown, first, 4, 0);
    same("the file itself", memcmp(first, "\177ELF", 4), 0);
}

static void twin(void)
{
    works("a copy of it", copy("/proc/self/exe", "copy"));
    works("its change", copy("/usr/bin/env", "copy"));
    works("and its run", system("./copy true") == 0 ? 0 : -1);
    works("itself read", open("/proc/self/exe", O_RDONLY));
}
