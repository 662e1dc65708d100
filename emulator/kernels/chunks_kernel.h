/* Chunks of files, compressed by Blosc, read and decompressed to where their values are wanted. Several threads work through
 * one structure: the system is told of all chunks before any is waited for, so that a disk works on many at a time. */

#if defined(__unix__) || defined(__APPLE__)
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOSC_HEADER 16

struct chunks {
    const char *const *paths;
    const int64_t *places; /* `(chunk, 4)`: number of its file, offset there, length (negative: the file's), bytes of values */
    void *const *to;
    int *files, *failed; /* descriptors; for every chunk whether it is left to the caller, who finds out why */
    int (*decompress)(const void *, void *, size_t, int); /* blosc_decompress_ctx */
    long file_count, count;
    atomic_long advised; /* chunks that threads have taken to tell the system of */
    atomic_long next;    /* ... and to read */
};

static uint32_t little_endian(const unsigned char *b)
{
    return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

void emulator_chunks_open(struct chunks *work)
{
    atomic_init(&work->advised, 0);
    atomic_init(&work->next, 0);
    for (long n = 0; n < work->file_count; n++)
        work->files[n] = open(work->paths[n], O_RDONLY | O_CLOEXEC);
}

void emulator_chunks_close(struct chunks *work)
{
    for (long n = 0; n < work->file_count; n++)
        if (work->files[n] >= 0)
            close(work->files[n]);
}

static long read_whole(int file, unsigned char *to, long length, long offset)
{
    long done = 0;
    while (done < length) {
        ssize_t found = pread(file, to + done, length - done, offset + done);
        if (found < 0 && errno == EINTR)
            continue;
        if (found <= 0)
            return -1;
        done += found;
    }
    return done;
}

/* Whether one chunk's values are at `to`; `room` grows to hold what is read. */
static int take_chunk(const struct chunks *work, long n, unsigned char **room, long *size)
{
    const int64_t *place = work->places + 4 * n;
    int file = work->files[place[0]];
    long length = place[2], bytes = place[3];
    struct stat about;
    if (file < 0)
        return 0;
    if (length < 0) {
        if (fstat(file, &about))
            return 0;
        length = about.st_size;
    }
    if (length < BLOSC_HEADER)
        return 0;
    if (length > *size) {
        free(*room);
        *room = malloc(length);
        *size = *room ? length : 0;
    }
    if (!*room || read_whole(file, *room, length, place[1]) < 0)
        return 0;
    /* what Blosc's header says that it holds, and takes: Blosc itself would read past the end of less */
    if (little_endian(*room + 4) != bytes || little_endian(*room + 12) != length)
        return 0;
    return work->decompress(*room, work->to[n], bytes, 1) == bytes;
}

void emulator_chunks(struct chunks *work)
{
    unsigned char *room = NULL;
    long n, size = 0;
#if defined(POSIX_FADV_WILLNEED)
    while (work->count > 1 && (n = atomic_fetch_add(&work->advised, 1)) < work->count) {
        const int64_t *place = work->places + 4 * n;
        if (work->files[place[0]] >= 0)
            posix_fadvise(work->files[place[0]], place[1], place[2] < 0 ? 0 : place[2], POSIX_FADV_WILLNEED);
    }
#endif
    while ((n = atomic_fetch_add(&work->next, 1)) < work->count)
        work->failed[n] = !take_chunk(work, n, &room, &size);
    free(room);
}
#endif
