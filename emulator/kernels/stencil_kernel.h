/* A linear layer on 3 x 3 cells, GELU and a second layer, included once for every instruction set, after perceptron_kernel.h.
 *
 * Winograd's minimal filtering (Lavin and Gray 2016): two by two cells at a time need 16 products of a channel in place of 36.
 * Patches of 4 x 4 cells become 16 sums B'dB, which weights G g G' multiply, and A'mA are the cells. TILE patches go through it
 * together, in the second-level cache. */

#define V KERNEL(vector)
#define U KERNEL(unaligned)
#define INLINE static inline __attribute__((always_inline))
#define PATCH 16
#define APART(width) (TILE * (width) + LANES) /* of sums and products: at a power of two they would fall into one set of a cache */

/* Sums of patches, `(PATCH, TILE, inputs)`: rows are pairs of a patch and a sample. */
static void KERNEL(patch_sums)(const struct stencil *f, long first, int count, const float *none, float *sums)
{
    const long in = f->inputs, step = APART(in);
    for (int r = 0; r < TILE; r++) {
        const long patch = (first + r) / f->batch, sample = (first + r) % f->batch;
        const float *from[PATCH];
        for (int n = 0; n < PATCH; n++) {
            const long cell = r < count ? f->source[n * f->patches + patch] : -1;
            from[n] = cell < 0 ? none : f->x + (cell * f->batch + sample) * in;
        }
        for (long c = 0; c < in; c += WIDTH) {
            V t[4][4];
            float *to = sums + r * in + c;
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) {
                const V a = *(const U *)(from[j] + c), b = *(const U *)(from[4 + j] + c);
                const V d = *(const U *)(from[8 + j] + c), e = *(const U *)(from[12 + j] + c);
                t[0][j] = a - d, t[1][j] = b + d, t[2][j] = d - b, t[3][j] = b - e;
            }
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                *(U *)(to + (4 * i + 0) * step) = t[i][0] - t[i][2];
                *(U *)(to + (4 * i + 1) * step) = t[i][1] + t[i][2];
                *(U *)(to + (4 * i + 2) * step) = t[i][2] - t[i][1];
                *(U *)(to + (4 * i + 3) * step) = t[i][1] - t[i][3];
            }
        }
    }
}

/* What the activation takes, `(4, TILE, hidden)`, from products `(PATCH, TILE, hidden)`. */
static void KERNEL(patch_cells)(const struct stencil *f, const float *products, float *cells)
{
    const long wide = f->hidden, step = APART(wide), to = TILE * wide;
    for (long n = 0; n < to; n += WIDTH) {
        const float *from = products + n;
        V s[2][4], bias = {0};
        if (f->first_bias)
            bias = *(const U *)(f->first_bias + n % wide);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            const V a = *(const U *)(from + j * step), b = *(const U *)(from + (4 + j) * step);
            const V d = *(const U *)(from + (8 + j) * step), e = *(const U *)(from + (12 + j) * step);
            s[0][j] = a + b + d, s[1][j] = b - d - e;
        }
        for (int i = 0; i < 2; i++) {
            *(U *)(cells + (2 * i + 0) * to + n) = s[i][0] + s[i][1] + s[i][2] + bias;
            *(U *)(cells + (2 * i + 1) * to + n) = s[i][1] - s[i][2] - s[i][3] + bias;
        }
    }
}

/* The second layer for one cell of every patch. */
static void KERNEL(patch_layer)(const struct stencil *f, int corner, long first, int count, float *cells, float *out)
{
    const long wide = f->hidden, to = f->outputs;
    const int *target = f->target + corner * f->patches;
    for (int r = 0; r < count; r++) {
        const long cell = target[(first + r) / f->batch], row = cell * f->batch + (first + r) % f->batch;
        if (cell < 0)
            continue;
        if (f->before)
            memcpy(f->before + row * wide, cells + r * wide, sizeof(float) * wide);
        if (f->residual)
            memcpy(out + r * to, f->residual + row * to, sizeof(float) * to);
    }
    for (long n = 0; n < TILE * wide; n += WIDTH)
        *(U *)(cells + n) = KERNEL(gelu_value)(*(const U *)(cells + n));
    KERNEL(layer_product)(TILE, to, cells, wide, 1, f->second, to, (int)wide, out, to, f->residual ? out : NULL, to);
    for (int r = 0; r < count; r++) {
        const long cell = target[(first + r) / f->batch], row = cell * f->batch + (first + r) % f->batch;
        if (cell >= 0)
            memcpy(f->to + row * to, out + r * to, sizeof(float) * to);
    }
}

static void KERNEL(stencil)(void *argument)
{
    struct stencil *f = argument;
    const long in = f->inputs, wide = f->hidden;
    float *none = f->room + f->room_size * __atomic_fetch_add(&f->threads, 1, __ATOMIC_RELAXED);
    float *sums = none + in, *products = sums + PATCH * APART(in), *out = products + PATCH * APART(wide);
    memset(none, 0, sizeof(float) * in);
    for (;;) {
        const long first = TILE * __atomic_fetch_add(&f->next, 1, __ATOMIC_RELAXED), rows = f->patches * f->batch;
        if (first >= rows)
            return;
        const int count = rows - first < TILE ? (int)(rows - first) : TILE;
        KERNEL(patch_sums)(f, first, count, none, sums);
        for (int n = 0; n < PATCH; n++)
            KERNEL(layer_product)(TILE, wide, sums + n * APART(in), in, 1, f->first + n * in * wide, wide, (int)in,
                                  products + n * APART(wide), wide, NULL, 0);
        float *cells = sums; /* are not needed any more */
        if (wide > 4 * in)
            cells = out + TILE * f->outputs;
        KERNEL(patch_cells)(f, products, cells);
        for (int corner = 0; corner < 4; corner++)
            KERNEL(patch_layer)(f, corner, first, count, cells + corner * TILE * wide, out);
    }
}

#undef V
#undef U
#undef INLINE
#undef PATCH
#undef APART
