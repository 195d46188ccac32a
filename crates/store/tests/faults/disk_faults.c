/* A failing disk, for the process that loads this library with LD_PRELOAD.
 *
 * The process orders the faults by opening a name that no file has:
 *
 *   DIRECTORY/disk-faults,CALLS,AFTER,COUNT,ERRNO,SHORT,PART
 *
 * From then on, the library counts calls of the kinds CALLS (w: write, s: fsync, c: create, rename, resize, remove) on
 * files below DIRECTORY whose path contains PART ("any": all). The first AFTER of them succeed, the next COUNT fail with
 * ERRNO (0: succeed; -1: never return), and so do all after them if COUNT is 0. With SHORT, the first failing write
 * writes half of its bytes instead.
 * Opening DIRECTORY/disk-faults,off ends the faults. Its error is 1000 plus the number of counted calls.
 *
 * Another process can order the faults too: DISK_FAULTS is then the name of a symbolic link. While the link exists, its
 * target is the order.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(result, name, ...) \
    static result (*real)(__VA_ARGS__); \
    if (!real) real = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int armed;
static char directory[4096], calls[8], part[64];
static long after, count, error, half, seen;
static const char *link_name;
static char link_order[4200];

__attribute__((constructor)) static void begin(void) { link_name = getenv("DISK_FAULTS"); }

/* Accepts an order. The caller holds the lock. */
static void take(const char *name, const char *order) {
    snprintf(directory, sizeof directory, "%.*s", (int)(order - name), name);
    armed = sscanf(order, "/disk-faults,%7[a-z],%ld,%ld,%ld,%ld,%63s", calls, &after, &count, &error, &half, part) == 6;
    seen = 0;
}

/* Accepts the order of the link if it is new. The caller holds the lock. */
static void follow_link(void) {
    char order[sizeof link_order];
    int before = errno;
    if (!link_name) return;
    ssize_t length = readlink(link_name, order, sizeof order - 1);
    errno = before;
    order[length < 0 ? 0 : length] = 0;
    if (!strcmp(order, link_order)) return;
    strcpy(link_order, order);
    const char *found = strstr(order, "/disk-faults,");
    if (found) take(order, found);
    else armed = 0;
}

/* Whether `name` is an order instead of a file. */
static int is_order(const char *name) {
    const char *order = strstr(name, "/disk-faults,");
    if (!order) return 0;
    pthread_mutex_lock(&lock);
    if (!strcmp(order, "/disk-faults,off")) {
        armed = 0;
        errno = 1000 + (int)seen;
    } else {
        take(name, order);
        errno = ENOENT;
    }
    pthread_mutex_unlock(&lock);
    return 1;
}

/* 0: pass; 1: fail with errno set; 2: write half. */
static int fault(char call, const char *path) {
    int verdict = 0, hangs = 0;
    pthread_mutex_lock(&lock);
    follow_link();
    size_t length = strlen(directory);
    if (armed && strchr(calls, call) && !strncmp(path, directory, length) && (path[length] == '/' || !path[length])
        && (!strcmp(part, "any") || strstr(path + length, part))) {
        long number = seen++;
        if (error && number >= after && (!count || number < after + count)) {
            verdict = half && number == after && call == 'w' ? 2 : 1;
            hangs = error < 0;
            if (verdict == 1) errno = (int)error;
        }
    }
    pthread_mutex_unlock(&lock);
    while (hangs) pause();
    return verdict;
}

static int fault_of(char call, int file) {
    char link[64], path[4096];
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length < 0) return 0;
    path[length] = 0;
    return fault(call, path);
}

ssize_t write(int file, const void *bytes, size_t length) {
    REAL(ssize_t, "write", int, const void *, size_t);
    int verdict = fault_of('w', file);
    return verdict == 1 ? -1 : real(file, bytes, verdict == 2 ? length / 2 : length);
}

ssize_t writev(int file, const struct iovec *parts, int number) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    int verdict = fault_of('w', file);
    if (verdict == 2) {
        struct iovec first = parts[0];
        first.iov_len /= 2;
        return real(file, &first, 1);
    }
    return verdict == 1 ? -1 : real(file, parts, number);
}

ssize_t pwrite(int file, const void *bytes, size_t length, off_t offset) {
    REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
    int verdict = fault_of('w', file);
    return verdict == 1 ? -1 : real(file, bytes, verdict == 2 ? length / 2 : length, offset);
}

ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t offset) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    int verdict = fault_of('w', file);
    return verdict == 1 ? -1 : real(file, bytes, verdict == 2 ? length / 2 : length, offset);
}

int fsync(int file) {
    REAL(int, "fsync", int);
    return fault_of('s', file) ? -1 : real(file);
}

int fdatasync(int file) {
    REAL(int, "fdatasync", int);
    return fault_of('s', file) ? -1 : real(file);
}

int ftruncate(int file, off_t length) {
    REAL(int, "ftruncate", int, off_t);
    return fault_of('c', file) ? -1 : real(file, length);
}

int ftruncate64(int file, off64_t length) {
    REAL(int, "ftruncate64", int, off64_t);
    return fault_of('c', file) ? -1 : real(file, length);
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(int, #name, const char *, int, ...); \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        if (is_order(path) || ((flags & O_CREAT) && fault('c', path))) return -1; \
        return real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int at, const char *path, int flags, ...) { \
        REAL(int, #name, int, const char *, int, ...); \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        if (is_order(path) || ((flags & O_CREAT) && fault('c', path))) return -1; \
        return real(at, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    return fault('c', path) ? -1 : real(path, mode);
}

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    return fault('c', from) ? -1 : real(from, to);
}

int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    return fault('c', path) ? -1 : real(path);
}

int unlinkat(int at, const char *path, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    return fault('c', path) ? -1 : real(at, path, flags);
}
