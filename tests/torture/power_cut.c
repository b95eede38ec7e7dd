/* Keep what a power cut leaves of a folder: each file as it was at its last fsync.
 *
 * Loaded into a process with LD_PRELOAD. TORTURE_DISK is the folder, TORTURE_SYNCED another one:
 *
 *   TORTURE_SYNCED/<inode>.<birth>   the content of a file at its last fsync or fdatasync
 *   TORTURE_SYNCED/entries           the files that the folder had at its own last fsync: a line
 *                                    "<inode>.<birth> <name>" for each
 *
 * The content is read before the sync, so it holds nothing that the sync might not cover, and it is
 * put in place after the sync. A lock makes other processes wait meanwhile: otherwise an older
 * content could replace a newer one. A file is read through the descriptor that is synced, because
 * closing another descriptor of a database would release SQLite's locks.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

typedef int sync_function(int);

static void require(int holds, const char *what) {
    if (holds) return;
    perror(what);
    abort();
}

/* Whether a descriptor is the folder, or a file directly in it. */
static int is_on_disk(int fd, const char *disk) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    size_t prefix = strlen(disk);
    if (strncmp(path, disk, prefix) != 0) return 0;
    return path[prefix] == 0 || (path[prefix] == '/' && !strchr(path + prefix + 1, '/'));
}

/* The name of a file's content. The time of birth tells a file from a later one with its inode. */
static void name_content(int fd, const char *name, char *into, size_t size) {
    struct statx about;
    int flags = AT_SYMLINK_NOFOLLOW | (*name ? 0 : AT_EMPTY_PATH);
    require(statx(fd, name, flags, STATX_INO | STATX_BTIME, &about) == 0, "statx");
    snprintf(into, size, "%llu.%lld.%u", (unsigned long long)about.stx_ino,
             (long long)about.stx_btime.tv_sec, about.stx_btime.tv_nsec);
}

static void copy_file(int fd, int to) {
    static _Thread_local char buffer[1 << 16];
    off_t offset = 0;
    ssize_t count;
    while ((count = pread(fd, buffer, sizeof buffer, offset)) > 0) {
        require(write(to, buffer, count) == count, "write");
        offset += count;
    }
    require(count == 0, "pread");
}

static void list_entries(int fd, int to) {
    int again = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = again < 0 ? NULL : fdopendir(again);
    require(folder != NULL, "fdopendir");
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (entry->d_type != DT_REG) continue;
        char content[64];
        name_content(fd, entry->d_name, content, sizeof content);
        dprintf(to, "%s %s\n", content, entry->d_name);
    }
    closedir(folder);
}

static int sync_and_keep(int fd, sync_function *sync) {
    const char *disk = getenv("TORTURE_DISK"), *synced = getenv("TORTURE_SYNCED");
    if (!disk || !synced || !is_on_disk(fd, disk)) return sync(fd);

    char path[PATH_MAX], draft[PATH_MAX], content[64] = "entries";
    struct stat about;
    require(fstat(fd, &about) == 0, "fstat");
    if (!S_ISDIR(about.st_mode)) name_content(fd, "", content, sizeof content);
    snprintf(path, sizeof path, "%s/%s", synced, content);
    snprintf(draft, sizeof draft, "%s/draft", synced);

    int folder = open(synced, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    require(folder >= 0 && flock(folder, LOCK_EX) == 0, "lock");
    int to = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    require(to >= 0, "open");
    if (S_ISDIR(about.st_mode)) list_entries(fd, to);
    else copy_file(fd, to);
    close(to);
    int result = sync(fd);
    if (result == 0) require(rename(draft, path) == 0, "rename");
    close(folder); /* releases the lock */
    return result;
}

int fsync(int fd) { return sync_and_keep(fd, (sync_function *)dlsym(RTLD_NEXT, "fsync")); }

int fdatasync(int fd) { return sync_and_keep(fd, (sync_function *)dlsym(RTLD_NEXT, "fdatasync")); }
