/* Maps as cells in the order of a transform, and back; included once for every instruction set, after mixing_kernel.h. */

#define SOME 64 /* places that a thread takes at a time: of maps, so that no two threads write to a line of a cache */

static void KERNEL(rearrange)(void *argument)
{
    struct rearrange *f = argument;
    float tile[SOME * LANES] __attribute__((aligned(64)));
    for (;;) {
        const long first = SOME * __atomic_fetch_add(&f->next, 1, __ATOMIC_RELAXED);
        if (first >= f->count)
            return;
        const long count = f->count - first < SOME ? f->count - first : SOME;
        const int64_t *cell = f->cell + first;
        for (long b = 0; b < f->batch; b++)
            for (long start = 0; start < f->channels; start += LANES) {
                const long some = f->channels < LANES ? f->channels : LANES;
                const long c = start + some < f->channels ? start : f->channels - some; /* the last ones with some of those before */
                float *maps = f->maps + (b * f->channels + c) * f->count + first, *cells = f->cells + b * f->channels + c;
                if (!f->out)
                    KERNEL(turn)(maps, f->count, (KERNEL(word) *)tile, LANES, some, count, 0);
                for (long n = 0; n < count; n++) {
                    float *row = cells + cell[n] * f->batch * f->channels;
                    if (some == LANES)
                        memcpy(f->out ? tile + n * LANES : row, f->out ? row : tile + n * LANES, sizeof(float) * LANES);
                    else
                        memcpy(f->out ? tile + n * LANES : row, f->out ? row : tile + n * LANES, sizeof(float) * some);
                }
                if (f->out)
                    KERNEL(turn)(tile, LANES, (KERNEL(word) *)maps, f->count, count, some, 0);
            }
    }
}

#undef SOME
