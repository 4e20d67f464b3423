/* A file system that lies. Loaded with LD_PRELOAD by claims.rs and by tests/faults.rs; LIE_PATH is a part of the paths that it
 * concerns.
 *
 * LIE_LINK, LIE_UNLINK, LIE_RENAME: `refuse ERRNO` never does it; `fail N` every N-th is not done and fails with EIO;
 * `lose N` every N-th is done, and its answer lost: a second try would find the first one's work.
 *
 * LIE_AT `N HOW ERRNO`, with LIE_COUNT, a file that all processes count in, one byte a call: of all calls the N-th fails
 * (HOW `f`), is done and fails all the same (`a`), kills the process instead (`k`), or, a write, is done by half and kills the
 * process (`t`). LIE_COUNT alone counts; its N-th byte is the kind of the N-th call: o(pen), O(pen to write), s(tat),
 * d(irectory), r(ead), w(rite), f(sync), and R(ename), L(ink), U(nlink), M(kdir). */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_int n_calls;

static void die(void) {
    for (;;) syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
}

/* How the call numbered in LIE_AT is to go: 0, or `f`, `a`, `t`; not at all where it is `k`. */
static int fate(char kind, int *error) {
    static atomic_flag busy = ATOMIC_FLAG_INIT;
    const char *count = getenv("LIE_COUNT"), *at = getenv("LIE_AT");
    if (!count) return 0;
    while (atomic_flag_test_and_set(&busy)) {}
    int fd = syscall(SYS_openat, AT_FDCWD, count, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    syscall(SYS_write, fd, &kind, 1);
    long call = syscall(SYS_lseek, fd, 0, SEEK_CUR), wanted;
    syscall(SYS_close, fd);
    atomic_flag_clear(&busy);
    char how;
    if (!at || sscanf(at, "%ld %c %d", &wanted, &how, error) != 3 || call != wanted) return 0;
    if (how == 'k') die();
    return how;
}

/* 0: do it. Positive: fail with this errno. Negative: do it and fail with this errno. */
static int lie(const char *what, char kind, const char *path, int answer_of_second_try) {
    const char *part = getenv("LIE_PATH"), *lie = what ? getenv(what) : NULL;
    int number, error = EIO;
    char how[8];
    if (!part || !strstr(path, part)) return 0;
    switch (fate(kind, &error)) {
    case 'f': return error;
    case 'a': return -error;
    case 't': return INT_MIN;
    }
    if (!lie || sscanf(lie, "%7s %d", how, &number) != 2) return 0;
    if (!strcmp(how, "refuse")) return number;
    if (atomic_fetch_add(&n_calls, 1) % number) return 0;
    return strcmp(how, "lose") ? EIO : -answer_of_second_try;
}

/* The whole path of a name below an open folder, or of an open file where there is no name. */
static const char *whole(int folder, const char *name, char *into) {
    if (name && *name == '/') return name;
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    long n = syscall(SYS_readlinkat, AT_FDCWD, folder == AT_FDCWD ? "/proc/self/cwd" : link, into, PATH_MAX - 1);
    into[n < 0 ? 0 : n] = 0;
    if (name && *name) snprintf(into + strlen(into), PATH_MAX, "/%s", name);
    return into;
}

#define REAL(name) __typeof__(name) *real = dlsym(RTLD_NEXT, #name)
#define SAY_AS(type, failed, name, kind, folder, path, second, call)          \
    do {                                                                      \
        char at[2 * PATH_MAX];                                                \
        int how = lie(name, kind, whole(folder, path, at), second);           \
        if (how <= 0) {                                                       \
            type answer = call;                                               \
            if (how == 0 || (how != INT_MIN && answer == failed)) return answer; \
            if (how == INT_MIN) die();                                        \
        }                                                                     \
        errno = abs(how);                                                     \
        return failed;                                                        \
    } while (0)
#define SAY(name, kind, folder, path, second, call) SAY_AS(int, -1, name, kind, folder, path, second, call)

int linkat(int from, const char *old, int to, const char *new, int flags) {
    REAL(linkat);
    SAY("LIE_LINK", 'L', to, new, EEXIST, real(from, old, to, new, flags));
}
int link(const char *old, const char *new) { return linkat(AT_FDCWD, old, AT_FDCWD, new, 0); }
int unlink(const char *path) {
    REAL(unlink);
    SAY("LIE_UNLINK", 'U', AT_FDCWD, path, ENOENT, real(path));
}
int unlinkat(int folder, const char *path, int flags) {
    REAL(unlinkat);
    SAY(NULL, 'U', folder, path, 0, real(folder, path, flags));
}
int rmdir(const char *path) {
    REAL(rmdir);
    SAY(NULL, 'U', AT_FDCWD, path, 0, real(path));
}
int rename(const char *old, const char *new) {
    REAL(rename);
    SAY("LIE_RENAME", 'R', AT_FDCWD, new, ENOENT, real(old, new));
}
int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    SAY(NULL, 'M', AT_FDCWD, path, 0, real(path, mode));
}

#define OPEN(name, before, folder, pass)                                                          \
    int name(before const char *path, int flags, ...) {                                           \
        REAL(name);                                                                               \
        va_list more;                                                                             \
        va_start(more, flags);                                                                    \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;                   \
        va_end(more);                                                                             \
        SAY(NULL, flags & (O_WRONLY | O_RDWR | O_CREAT) ? 'O' : 'o', folder, path, 0, real pass); \
    }
#define AND ,
OPEN(open, , AT_FDCWD, (path, flags, mode))
OPEN(open64, , AT_FDCWD, (path, flags, mode))
OPEN(openat, int folder AND, folder, (folder, path, flags, mode))
OPEN(openat64, int folder AND, folder, (folder, path, flags, mode))

ssize_t write(int file, const void *bytes, size_t n) {
    REAL(write);
    if (file < 3) return real(file, bytes, n);
    char at[2 * PATH_MAX];
    int how = lie(NULL, 'w', whole(file, NULL, at), 0);
    if (how <= 0) {
        ssize_t answer = real(file, bytes, how == INT_MIN ? n / 2 : n);
        if (how == INT_MIN) die();
        if (how == 0) return answer;
    }
    errno = abs(how);
    return -1;
}
ssize_t read(int file, void *bytes, size_t n) {
    REAL(read);
    if (file < 3) return real(file, bytes, n);
    SAY_AS(ssize_t, -1, NULL, 'r', file, NULL, 0, real(file, bytes, n));
}
ssize_t pread64(int file, void *bytes, size_t n, off64_t from) {
    REAL(pread64);
    SAY_AS(ssize_t, -1, NULL, 'r', file, NULL, 0, real(file, bytes, n, from));
}
int fsync(int file) {
    REAL(fsync);
    SAY(NULL, 'f', file, NULL, 0, real(file));
}
int statx(int folder, const char *volatile path, int flags, unsigned mask, struct statx *found) {
    REAL(statx);
    /* std asks with no path at all whether there is such a call. */
    if (!path) return real(folder, path, flags, mask, found);
    SAY(NULL, 's', folder, path, 0, real(folder, path, flags, mask, found));
}
DIR *opendir(const char *path) {
    REAL(opendir);
    SAY_AS(DIR *, NULL, NULL, 'd', AT_FDCWD, path, 0, real(path));
}
struct dirent64 *readdir64(DIR *folder) {
    REAL(readdir64);
    SAY_AS(struct dirent64 *, NULL, NULL, 'd', dirfd(folder), NULL, 0, real(folder));
}
