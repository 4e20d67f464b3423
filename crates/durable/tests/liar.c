/* A file system that lies. Loaded with LD_PRELOAD by claims.rs; LIE_PATH is a part of the paths that it concerns.
 *
 * LIE_LINK, LIE_UNLINK, LIE_RENAME: `refuse ERRNO` never does it; `fail N` every N-th is not done and fails with EIO;
 * `lose N` every N-th is done, and its answer lost: a second try would find the first one's work. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_int n_calls;

/* 0: do it. Positive: fail with this errno. Negative: do it and fail with this errno. */
static int lie(const char *what, const char *path, int answer_of_second_try) {
    const char *part = getenv("LIE_PATH"), *lie = getenv(what);
    int number;
    char how[8];
    if (!part || !lie || !strstr(path, part) || sscanf(lie, "%7s %d", how, &number) != 2) return 0;
    if (!strcmp(how, "refuse")) return number;
    if (atomic_fetch_add(&n_calls, 1) % number) return 0;
    return strcmp(how, "lose") ? EIO : -answer_of_second_try;
}

#define SAY(name, path, second, call)         \
    do {                                      \
        int how = lie(name, path, second);    \
        if (how <= 0) {                       \
            int answer = call;                \
            if (how == 0 || answer) return answer; \
        }                                     \
        errno = abs(how);                     \
        return -1;                            \
    } while (0)

int linkat(int from, const char *old, int to, const char *new, int flags) {
    int (*real)(int, const char *, int, const char *, int) = dlsym(RTLD_NEXT, "linkat");
    SAY("LIE_LINK", new, EEXIST, real(from, old, to, new, flags));
}
int link(const char *old, const char *new) { return linkat(AT_FDCWD, old, AT_FDCWD, new, 0); }
int unlink(const char *path) {
    int (*real)(const char *) = dlsym(RTLD_NEXT, "unlink");
    SAY("LIE_UNLINK", path, ENOENT, real(path));
}
int rename(const char *old, const char *new) {
    int (*real)(const char *, const char *) = dlsym(RTLD_NEXT, "rename");
    SAY("LIE_RENAME", new, ENOENT, real(old, new));
}
