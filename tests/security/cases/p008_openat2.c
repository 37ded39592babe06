/* 2, 8, 9: openat2(2) with every combination of its flags, on links that lead out, and odd structures.
GAPS = {"process": {"only named": "Landlock governs no descriptor that only names a file: it tells what stat tells"}, "bind": {"a flag": "openat2 is refused: a filter can't see whether it sets set-ID bits", "a resolution": "openat2 is refused: a filter can't see whether it sets set-ID bits", "what this kernel": "openat2 is refused: a filter can't see whether it sets set-ID bits", "a file of its own": "openat2 is refused: a filter can't see whether it sets set-ID bits", "a structure": "openat2 is refused: a filter can't see whether it sets set-ID bits", "a new one": "openat2 is refused: a filter can't see whether it sets set-ID bits"}}
 */
#include "probe.h"

struct how {
    uint64_t flags, mode, resolve, more;
};

static long openat2(int at, const char *path, uint64_t flags, uint64_t resolve, size_t size)
{
    struct how how = {.flags = flags, .mode = (flags & (O_CREAT | 020000000)) ? 0600 : 0,
                      .resolve = resolve};
    return syscall(437, at, path, &how, size);
}

static void attack(void)
{
    char secret[4200], up[4200], root[4300], init[4300];
    snprintf(secret, sizeof secret, "%s", fact("secret"));
    snprintf(up, sizeof up, "..%s", secret);
    snprintf(root, sizeof root, "/proc/self/root%s", secret);
    snprintf(init, sizeof init, "/proc/1/root%s", secret);
    const char *paths[] = {"link", "chain", "up/secret", "../outside/secret", secret, up, root, init,
                           "/proc/1/cwd", "/proc/1/exe", "/proc/1/fd/0"};
    const uint64_t flags[] = {O_RDONLY, O_WRONLY, O_RDWR | O_TRUNC, O_PATH, O_RDONLY | O_DIRECTORY,
                              O_WRONLY | O_CREAT, O_TMPFILE | O_RDWR};
    int top = open("/", O_PATH | O_DIRECTORY), here = open(".", O_PATH | O_DIRECTORY);
    for (unsigned p = 0; p < sizeof paths / sizeof *paths; p++)
        for (unsigned f = 0; f < sizeof flags / sizeof *flags; f++)
            for (uint64_t resolve = 0; resolve < 64; resolve++) {
                const char *what = flags[f] == O_PATH ? "only named" : paths[p];
                refused(what, openat2(here, paths[p], flags[f], resolve, 24), 0);
                refused(what, openat2(top, paths[p], flags[f], resolve, 24), 0);
                refused(what, openat2(here, paths[p], flags[f], resolve, 32), 0);
            }
    refused("a flag that is none", openat2(here, "old", 1ULL << 40, 0, 24), EINVAL);
    refused("a resolution that is none", openat2(here, "old", O_RDONLY, 1ULL << 40, 24), EINVAL);
    struct how how = {.flags = O_RDONLY, .more = 1};
    refused("what this kernel does not know", syscall(437, here, "old", &how, sizeof how), E2BIG);
}

static void twin(void)
{
    int here = open(".", O_PATH | O_DIRECTORY);
    for (uint64_t resolve = 0; resolve < 32; resolve++)
        if ((resolve & 0x18) != 0x18) /* beneath and in a root exclude each other */
            works("a file of its own", openat2(here, "old", O_RDONLY, resolve, 24));
    works("a structure of the future", openat2(here, "old", O_RDONLY, 0, 32));
    works("a new one", openat2(here, "made", O_WRONLY | O_CREAT, 0x08, 24));
}
