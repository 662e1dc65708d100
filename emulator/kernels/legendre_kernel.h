/* Products of one order's Legendre functions with the columns of its spectrum, included once for every instruction set.
 *
 * Tiles of ROWS x VECTORS accumulators stay in registers. Degrees below the order, where the functions vanish, are skipped
 * exactly; the channels of a latitude are contiguous, so that nothing is packed or copied first. */

#define V KERNEL(vector)
#define U KERNEL(unaligned)
#define INLINE static inline __attribute__((always_inline))

/* to[i, c] = sum_k a[i * ai + k * ak] from[k, c] for `rows` i and `vectors` vectors of c, the last of `lanes` channels. */
INLINE void KERNEL(tile)(int rows, int vectors, int lanes, int depth, const float *a, long ai, long ak, const float *from,
                         long from_step, float *to, long to_step)
{
    V sum[ROWS][VECTORS];
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v++)
            sum[i][v] = (V){0};
    for (int k = 0; k < depth; k++) {
        V value[VECTORS];
        for (int v = 0; v < vectors; v++) {
            if (lanes == WIDTH || v < vectors - 1)
                value[v] = *(const U *)(from + k * from_step + v * WIDTH);
            else {
                value[v] = (V){0};
                memcpy(&value[v], from + k * from_step + v * WIDTH, sizeof(float) * lanes);
            }
        }
        for (int i = 0; i < rows; i++) {
            const float factor = a[i * ai + k * ak];
            for (int v = 0; v < vectors; v++)
                sum[i][v] += value[v] * factor;
        }
    }
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v++) {
            if (lanes == WIDTH || v < vectors - 1)
                *(U *)(to + i * to_step + v * WIDTH) = sum[i][v];
            else
                memcpy(to + i * to_step + v * WIDTH, &sum[i][v], sizeof(float) * lanes);
        }
}

/* All rows of one strip of columns; `vectors` and `lanes` are constants where this is expanded. */
INLINE void KERNEL(strip)(int vectors, int lanes, int rows, int depth, const float *a, long ai, long ak,
                          const float *from, long from_step, float *to, long to_step)
{
    int i = 0;
    for (; i + ROWS <= rows; i += ROWS)
        KERNEL(tile)(ROWS, vectors, lanes, depth, a + i * ai, ai, ak, from, from_step, to + i * to_step, to_step);
    for (; i + 2 <= rows; i += 2)
        KERNEL(tile)(2, vectors, lanes, depth, a + i * ai, ai, ak, from, from_step, to + i * to_step, to_step);
    for (; i < rows; i++)
        KERNEL(tile)(1, vectors, lanes, depth, a + i * ai, ai, ak, from, from_step, to + i * to_step, to_step);
}

static void KERNEL(product)(long columns, int rows, int depth, const float *a, long ai, long ak, const float *from,
                            long from_step, float *to, long to_step)
{
    long c = 0;
    for (; c + VECTORS * WIDTH <= columns; c += VECTORS * WIDTH)
        KERNEL(strip)(VECTORS, WIDTH, rows, depth, a, ai, ak, from + c, from_step, to + c, to_step);
    for (; c + WIDTH <= columns; c += WIDTH)
        KERNEL(strip)(1, WIDTH, rows, depth, a, ai, ak, from + c, from_step, to + c, to_step);
    if (c < columns)
        KERNEL(strip)(1, (int)(columns - c), rows, depth, a, ai, ak, from + c, from_step, to + c, to_step);
}

/* Sums and differences of the rows of both hemispheres: for the real or imaginary part of an order, counted in turn. */
static void KERNEL(fold)(const struct legendre *f, long which, float *sums, float *differences)
{
    const long channels = f->channels;
    for (int h = 0; h < f->half; h++, sums += channels, differences += channels) {
        const float *north = f->rows + f->north[h] + which * f->north_step[h];
        if (f->south[h] < 0) {
            memcpy(sums, north, sizeof(float) * channels);
            memset(differences, 0, sizeof(float) * channels);
            continue;
        }
        const float *south = f->rows + f->south[h] + which * f->south_step[h];
        float *restrict sum = sums, *restrict difference = differences;
        for (long c = 0; c < channels; c++) {
            sum[c] = north[c] + south[c];
            difference[c] = north[c] - south[c];
        }
    }
}

/* The transpose of `fold`. */
static void KERNEL(unfold)(const struct legendre *f, long which, const float *sums, const float *differences)
{
    const long channels = f->channels;
    for (int h = 0; h < f->half; h++, sums += channels, differences += channels) {
        float *restrict north = f->rows + f->north[h] + which * f->north_step[h];
        if (f->south[h] < 0) {
            memcpy(north, sums, sizeof(float) * channels);
            continue;
        }
        float *restrict south = f->rows + f->south[h] + which * f->south_step[h];
        for (long c = 0; c < channels; c++) {
            north[c] = sums[c] + differences[c];
            south[c] = sums[c] - differences[c];
        }
    }
}

static void KERNEL(legendre)(void *argument)
{
    struct legendre *f = argument;
    const long channels = f->channels, half = f->half;
    float *room = f->rows ? f->room + f->room_size * __atomic_fetch_add(&f->threads, 1, __ATOMIC_RELAXED) : NULL;
    for (;;) {
        const int column_order = (int)__atomic_fetch_add(&f->next, 1, __ATOMIC_RELAXED);
        const float *table = f->table;
        float *coefficients = f->coefficients;
        int place = column_order, block = 0, start, orders, count[2];
        for (;; block++, place -= orders) {
            if (block == f->count)
                return;
            start = f->blocks[2 * block];
            orders = f->blocks[2 * block + 1] - start;
            for (int q = 0; q < 2; q++)
                count[q] = (f->degrees + 1 - q) / 2 - start / 2;
            if (place < orders)
                break;
            table += orders * (long)(count[0] + count[1]) * half;
            coefficients += 2 * orders * (long)(count[0] + count[1]) * channels;
        }
        const int order = start + place;
        for (int part = 0; part < 2; part++) {
            const long which = 2 * (long)column_order + part;
            float *sides[2]; /* what even and odd degrees meet */
            for (int q = 0; q < 2; q++)
                sides[q] = room ? room + q * half * channels
                                : f->spectra[q] + ((long)part * f->orders + column_order) * half * channels;
            if (room && !f->backward)
                KERNEL(fold)(f, which, sides[order & 1], sides[1 - (order & 1)]);
            for (int q = 0; q < 2; q++) {
                int first = (order - q + 1) / 2 - start / 2; /* the lowest degree that is not below the order */
                if (first < 0)
                    first = 0;
                if (first > count[q])
                    first = count[q];
                const long before = q ? (long)orders * count[0] : 0; /* the even degrees' */
                const float *functions = table + (before + (long)place * count[q] + first) * half;
                float *column = coefficients + (2 * before + (long)part * orders + place) * channels;
                float *spectrum = sides[q];
                long step = 2 * (long)orders * channels;
                if (f->dense) {
                    step = 4 * (long)f->degrees * channels;
                    column = f->coefficients + (2 * ((long)(start / 2 * 2 + q) * f->degrees + order) + part) * channels;
                }
                if (f->backward) {
                    KERNEL(product)(channels, half, count[q] - first, functions, 1, half, column + first * step, step,
                                    spectrum, channels);
                } else {
                    for (int j = f->dense ? -(start / 2) : 0; j < first; j++)
                        memset(column + j * step, 0, sizeof(float) * channels);
                    KERNEL(product)(channels, count[q] - first, half, functions, half, 1, spectrum, channels,
                                    column + first * step, step);
                }
            }
            if (room && f->backward)
                KERNEL(unfold)(f, which, sides[order & 1], sides[1 - (order & 1)]);
        }
    }
}

#undef V
#undef U
#undef INLINE
