/* Winograd's minimal filtering (Lavin and Gray 2016) of maps by stencils of 3 x 3 cells: what lies around the products, and its
 * adjoints; included once for every instruction set. Two by two cells, a dilation apart, are a patch, which takes in four by
 * four. All passes are sums of whole vectors of channels, and of some at the end. */

#define V KERNEL(vector)
#define U KERNEL(unaligned)
#define INLINE static inline __attribute__((always_inline))

INLINE V KERNEL(part)(const float *from, long count)
{
    V x = {0};
    if (count >= WIDTH)
        return (V) * (const U *)from;
    memcpy(&x, from, sizeof(float) * count);
    return x;
}

INLINE void KERNEL(leave_part)(float *to, V x, long count)
{
    if (count >= WIDTH)
        *(U *)to = x;
    else
        memcpy(to, &x, sizeof(float) * count);
}

/* Cells of a patch, `(size, size)`, a dilation apart; NULL beyond the map. */
INLINE void KERNEL(cells_of)(const struct filtering *f, long patch, int size, float **cells)
{
    const long along = patch % f->along, down = patch / f->along % f->down, sample = patch / f->along / f->down;
    const long d = f->dilation, row = down / d * 2 * d + down % d, column = along / d * 2 * d + along % d;
    for (int i = 0; i < size; i++)
        for (int j = 0; j < size; j++)
            cells[i * size + j] = row + i * d < f->rows && column + j * d < f->columns
                ? f->map + ((sample * f->rows + row + i * d) * f->columns + column + j * d) * f->channels
                : NULL;
}

/* B'dB: from cells to what products take. */
static void KERNEL(to_sums)(const struct filtering *f, long n)
{
    float *cells[16], *to = f->products + n * f->channels;
    KERNEL(cells_of)(f, f->first + n, 4, cells);
    for (long c = 0; c < f->channels; c += WIDTH) {
        const long left = f->channels - c;
        V t[4][4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            V d[4];
            for (int i = 0; i < 4; i++)
                d[i] = cells[4 * i + j] ? KERNEL(part)(cells[4 * i + j] + c, left) : (V){0};
            t[0][j] = d[0] - d[2], t[1][j] = d[1] + d[2], t[2][j] = d[2] - d[1], t[3][j] = d[1] - d[3];
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            float *row = to + 4 * i * f->step + c;
            KERNEL(leave_part)(row, t[i][0] - t[i][2], left);
            KERNEL(leave_part)(row + f->step, t[i][1] + t[i][2], left);
            KERNEL(leave_part)(row + 2 * f->step, t[i][2] - t[i][1], left);
            KERNEL(leave_part)(row + 3 * f->step, t[i][1] - t[i][3], left);
        }
    }
}

/* Its adjoint, of some channels, added to the cells. */
static void KERNEL(from_sums)(const struct filtering *f, long n, long first, long last)
{
    float *cells[16];
    const float *from = f->products + n * f->channels;
    KERNEL(cells_of)(f, f->first + n, 4, cells);
    for (long c = first; c < last; c += WIDTH) {
        const long left = f->channels - c;
        V t[4][4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            V d[4];
            for (int i = 0; i < 4; i++)
                d[i] = KERNEL(part)(from + (4 * i + j) * f->step + c, left);
            t[0][j] = d[0], t[1][j] = d[1] - d[2] + d[3], t[2][j] = d[1] + d[2] - d[0], t[3][j] = -d[3];
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            const V d[4] = {t[i][0], t[i][1] - t[i][2] + t[i][3], t[i][1] + t[i][2] - t[i][0], -t[i][3]};
            for (int j = 0; j < 4; j++)
                if (cells[4 * i + j])
                    KERNEL(leave_part)(cells[4 * i + j] + c, KERNEL(part)(cells[4 * i + j] + c, left) + d[j], left);
        }
    }
}

/* A'mA: from products to cells, with a bias. */
static void KERNEL(to_cells)(const struct filtering *f, long n)
{
    float *cells[4];
    const float *from = f->products + n * f->channels;
    KERNEL(cells_of)(f, f->first + n, 2, cells);
    for (long c = 0; c < f->channels; c += WIDTH) {
        const long left = f->channels - c;
        const V bias = f->bias ? KERNEL(part)(f->bias + c, left) : (V){0};
        V s[2][4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            V m[4];
            for (int i = 0; i < 4; i++)
                m[i] = KERNEL(part)(from + (4 * i + j) * f->step + c, left);
            s[0][j] = m[0] + m[1] + m[2], s[1][j] = m[1] - m[2] - m[3];
        }
        for (int i = 0; i < 2; i++) {
            if (cells[2 * i])
                KERNEL(leave_part)(cells[2 * i] + c, s[i][0] + s[i][1] + s[i][2] + bias, left);
            if (cells[2 * i + 1])
                KERNEL(leave_part)(cells[2 * i + 1] + c, s[i][1] - s[i][2] - s[i][3] + bias, left);
        }
    }
}

/* Its adjoint: from gradients of cells to those of products. */
static void KERNEL(from_cells)(const struct filtering *f, long n)
{
    float *cells[4], *to = f->products + n * f->channels;
    KERNEL(cells_of)(f, f->first + n, 2, cells);
    for (long c = 0; c < f->channels; c += WIDTH) {
        const long left = f->channels - c;
        V s[4][2];
        for (int j = 0; j < 2; j++) {
            const V a = cells[j] ? KERNEL(part)(cells[j] + c, left) : (V){0};
            const V b = cells[2 + j] ? KERNEL(part)(cells[2 + j] + c, left) : (V){0};
            s[0][j] = a, s[1][j] = a + b, s[2][j] = a - b, s[3][j] = -b;
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            float *row = to + 4 * i * f->step + c;
            KERNEL(leave_part)(row, s[i][0], left);
            KERNEL(leave_part)(row + f->step, s[i][0] + s[i][1], left);
            KERNEL(leave_part)(row + 2 * f->step, s[i][0] - s[i][1], left);
            KERNEL(leave_part)(row + 3 * f->step, -s[i][1], left);
        }
    }
}

static void KERNEL(filtering)(void *argument)
{
    struct filtering *f = argument;
    const int scattered = f->pass == FROM_SUMS; /* patches meet in cells, so that threads take channels */
    for (;;) {
        const long portion = __atomic_fetch_add(&f->next, 1, __ATOMIC_RELAXED), first = portion * LANES;
        if (first >= (scattered ? f->channels : f->count))
            return;
        if (scattered) {
            for (long n = 0; n < f->count; n++)
                KERNEL(from_sums)(f, n, first, first + LANES < f->channels ? first + LANES : f->channels);
            continue;
        }
        for (long n = first; n < f->count && n < first + LANES; n++)
            if (f->pass == TO_SUMS)
                KERNEL(to_sums)(f, n);
            else if (f->pass == TO_CELLS)
                KERNEL(to_cells)(f, n);
            else
                KERNEL(from_cells)(f, n);
    }
}

#undef V
#undef U
#undef INLINE
