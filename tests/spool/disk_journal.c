/* Preloaded under a spool: journals every change and every completed sync of the files below $JOURNAL_ROOT, so that a
   test can replay what a crash or a power cut would have left at any moment.

   A record: one octet of kind, then the lengths of path and data and the offset as 64-bit numbers, then path and data.
   Kinds: C created, W written, T truncated (offset = new length), S synced, U unlinked, R renamed (data = new path),
   F failed: the $JOURNAL_FAIL_SYNC-th sync of a file whose name ends in -wal, and every one after it, gives EIO. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int journal = -1;
static char root[PATH_MAX];
static size_t root_length;
static int fail_sync, log_syncs;

__attribute__((constructor)) static void start(void) {
    const char *folder = getenv("JOURNAL_ROOT"), *file = getenv("JOURNAL_FILE");
    if (folder && file && realpath(folder, root)) {
        root_length = strlen(root);
        const char *number = getenv("JOURNAL_FAIL_SYNC");
        fail_sync = number ? atoi(number) : 0;
        journal = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    }
}

static void note(char kind, const char *path, uint64_t offset, const void *data, uint64_t length) {
    uint64_t numbers[3] = {strlen(path), length, offset};
    struct iovec parts[4] = {{&kind, 1}, {numbers, sizeof numbers}, {(void *)path, numbers[0]}, {(void *)data, length}};
    pthread_mutex_lock(&lock);
    if (syscall(SYS_writev, journal, parts, 4) < 0) abort();
    pthread_mutex_unlock(&lock);
}

static int is_ours(const char *path) {
    return journal >= 0 && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

static int name_of(int descriptor, char *path) {
    char link[64];
    ssize_t length;
    if (journal < 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_ours(path);
}

static int open_noted(int folder, const char *path, int flags, int mode) {
    int is_new = (flags & O_CREAT) && faccessat(folder, path, F_OK, AT_SYMLINK_NOFOLLOW) != 0;
    int descriptor = syscall(SYS_openat, folder, path, flags, mode), saved = errno;
    char name[PATH_MAX];
    if (descriptor >= 0 && is_new && name_of(descriptor, name)) note('C', name, 0, "", 0);
    errno = saved;
    return descriptor;
}

#define OPEN(NAME, FOLDER, ...)                                     \
    int NAME(__VA_ARGS__ const char *path, int flags, ...) {        \
        va_list rest;                                               \
        va_start(rest, flags);                                      \
        int mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, int) : 0; \
        va_end(rest);                                               \
        return open_noted(FOLDER, path, flags, mode);               \
    }
#define FOLDER_ARGUMENT int folder,
OPEN(open, AT_FDCWD, )
OPEN(open64, AT_FDCWD, )
OPEN(openat, folder, FOLDER_ARGUMENT)
OPEN(openat64, folder, FOLDER_ARGUMENT)

static ssize_t pwrite_noted(int descriptor, const void *data, size_t count, off_t offset) {
    ssize_t written = syscall(SYS_pwrite64, descriptor, data, count, offset);
    int saved = errno;
    char name[PATH_MAX];
    if (written > 0 && name_of(descriptor, name)) note('W', name, offset, data, written);
    errno = saved;
    return written;
}
ssize_t pwrite(int descriptor, const void *data, size_t count, off_t offset) {
    return pwrite_noted(descriptor, data, count, offset);
}
ssize_t pwrite64(int descriptor, const void *data, size_t count, off_t offset) {
    return pwrite_noted(descriptor, data, count, offset);
}

ssize_t write(int descriptor, const void *data, size_t count) {
    char name[PATH_MAX];
    int ours = name_of(descriptor, name);
    off_t offset = ours ? lseek(descriptor, 0, SEEK_CUR) : 0;
    ssize_t written = syscall(SYS_write, descriptor, data, count);
    int saved = errno;
    if (written > 0 && ours) note('W', name, offset, data, written);
    errno = saved;
    return written;
}

static int truncate_noted(int descriptor, off_t length) {
    int result = syscall(SYS_ftruncate, descriptor, length);
    char name[PATH_MAX];
    if (!result && name_of(descriptor, name)) note('T', name, length, "", 0);
    return result;
}
int ftruncate(int descriptor, off_t length) { return truncate_noted(descriptor, length); }
int ftruncate64(int descriptor, off_t length) { return truncate_noted(descriptor, length); }

static int sync_noted(int number, int descriptor) {
    char name[PATH_MAX];
    int ours = name_of(descriptor, name);
    if (ours && fail_sync && strlen(name) > 4 && !strcmp(name + strlen(name) - 4, "-wal") && ++log_syncs >= fail_sync) {
        note('F', name, 0, "", 0);
        errno = EIO;
        return -1;
    }
    int result = syscall(number, descriptor), saved = errno;
    if (!result && ours) note('S', name, 0, "", 0);
    errno = saved;
    return result;
}
int fsync(int descriptor) { return sync_noted(SYS_fsync, descriptor); }
int fdatasync(int descriptor) { return sync_noted(SYS_fdatasync, descriptor); }

int unlink(const char *path) {
    int result = syscall(SYS_unlink, path);
    if (!result && is_ours(path)) note('U', path, 0, "", 0);
    return result;
}

int rename(const char *from, const char *to) {
    int result = syscall(SYS_rename, from, to);
    if (!result && is_ours(from)) note('R', from, 0, to, strlen(to));
    return result;
}
