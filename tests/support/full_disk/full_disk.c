// Preloaded into a process: while the file FULL_DISK_FILE exists, its writes to regular files fail with ENOSPC.
// With "extend" in that file only those that make a file longer fail, as on most file systems; with "all" every one,
// as where each write takes new blocks.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int is_full(int fd, off_t end) {
    char mode = 0;
    struct stat file;
    const char *path = getenv("FULL_DISK_FILE");
    int flag = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (flag < 0) return 0;
    ssize_t found = read(flag, &mode, 1);
    close(flag);
    if (found != 1 || fd <= 2 || fstat(fd, &file) != 0 || !S_ISREG(file.st_mode)) return 0;
    return mode == 'a' || end > file.st_size;
}

static off_t length(const struct iovec *parts, int count) {
    off_t total = 0;
    for (int i = 0; i < count; i++) total += parts[i].iov_len;
    return total;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define REFUSE(fd, end)       \
    if (is_full(fd, end)) {   \
        errno = ENOSPC;       \
        return -1;            \
    }

ssize_t write(int fd, const void *data, size_t size) {
    off_t at = lseek(fd, 0, SEEK_CUR);
    if (at >= 0) REFUSE(fd, at + (off_t)size)
    return NEXT(write)(fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    REFUSE(fd, at + (off_t)size)
    return NEXT(pwrite)(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REFUSE(fd, at + (off_t)size)
    return NEXT(pwrite64)(fd, data, size, at);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
    REFUSE(fd, at + length(parts, count))
    return NEXT(pwritev)(fd, parts, count, at);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) {
    REFUSE(fd, at + length(parts, count))
    return NEXT(pwritev64)(fd, parts, count, at);
}

int posix_fallocate(int fd, off_t at, off_t size) {
    return is_full(fd, at + size) ? ENOSPC : NEXT(posix_fallocate)(fd, at, size);
}

int posix_fallocate64(int fd, off64_t at, off64_t size) {
    return is_full(fd, at + size) ? ENOSPC : NEXT(posix_fallocate64)(fd, at, size);
}
