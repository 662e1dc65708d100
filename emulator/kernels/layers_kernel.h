/* Gradients of GELU, the instance norm and its gradient, included once for every instruction set. */

typedef float KERNEL(vector) __attribute__((vector_size(4 * WIDTH)));
typedef float KERNEL(unaligned) __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef int KERNEL(whole) __attribute__((vector_size(4 * WIDTH)));
#define V KERNEL(vector)
#define U KERNEL(unaligned)
#define W KERNEL(whole)
#define INLINE static inline __attribute__((always_inline))

static void KERNEL(gelu)(void *argument)
{
    struct gelu *f = argument;
    for (;;) {
        const long first = __atomic_fetch_add(&f->next, GELU_PORTION, __ATOMIC_RELAXED);
        if (first >= f->count)
            return;
        const long last = first + GELU_PORTION < f->count ? first + GELU_PORTION : f->count;
        long n = first;
        for (; n + WIDTH <= last; n += WIDTH) {
            V value;
            *(U *)(f->to + n) = *(const U *)(f->gradient + n) * KERNEL(gelu_slope)(*(const U *)(f->x + n), &value);
        }
        if (n < last) {
            V x = {0}, g = {0}, value;
            memcpy(&x, f->x + n, sizeof(float) * (last - n));
            memcpy(&g, f->gradient + n, sizeof(float) * (last - n));
            g *= KERNEL(gelu_slope)(x, &value);
            memcpy(f->to + n, &g, sizeof(float) * (last - n));
        }
    }
}

/* Sums over a portion of the cells, row by row as they lie in memory: of the gradient, and of the gradient times x. */
static void KERNEL(norm_sums)(const struct norm *f, long portion)
{
    const long step = f->columns, first = portion * NORM_PORTION;
    const long last = first + NORM_PORTION < f->cells ? first + NORM_PORTION : f->cells;
    float *sums = f->sums + 2 * portion * step, *products = sums + step;
    memset(sums, 0, sizeof(float) * 2 * step);
    for (long n = first; n < last; n += 4) {
        const int rows = last - n < 4 ? (int)(last - n) : 4;
        const float *g = f->gradient + n * step, *x = f->x + n * step;
        long c = 0;
        for (; c + WIDTH <= step; c += WIDTH) {
            V s = *(const U *)(sums + c), p = *(const U *)(products + c);
            for (int r = 0; r < rows; r++) {
                const V gradient = *(const U *)(g + r * step + c);
                s += gradient;
                p += gradient * *(const U *)(x + r * step + c);
            }
            *(U *)(sums + c) = s;
            *(U *)(products + c) = p;
        }
        for (; c < step; c++)
            for (int r = 0; r < rows; r++) {
                sums[c] += g[r * step + c];
                products[c] += g[r * step + c] * x[r * step + c];
            }
    }
}

/* Gradients of scale and shift from the sums, and what takes x and its gradient to the gradient of x. */
static void KERNEL(norm_factors)(const struct norm *f)
{
    const long portions = (f->cells + NORM_PORTION - 1) / NORM_PORTION, step = f->columns;
    const float count = 1.0f / (float)f->cells;
    for (long c = 0; c < step; c++) {
        float sum = 0, product = 0;
        for (long n = 0; n < portions; n++) {
            sum += f->sums[2 * n * step + c];
            product += f->sums[(2 * n + 1) * step + c];
        }
        const float g_scale = (product - f->mean[c] * sum) * f->rstd[c], factor = f->scale[c] * f->rstd[c];
        const float slope = -factor * f->rstd[c] * g_scale * count;
        f->g_shift[c] = sum;
        f->g_scale[c] = g_scale;
        f->factors[c] = factor;
        f->factors[step + c] = slope;
        f->factors[2 * step + c] = -factor * sum * count - slope * f->mean[c];
    }
}

/* The gradient of x in a portion of the cells. */
static void KERNEL(norm_gradient)(const struct norm *f, long portion)
{
    const long step = f->columns, first = portion * NORM_PORTION;
    const long last = first + NORM_PORTION < f->cells ? first + NORM_PORTION : f->cells;
    const float *factor = f->factors, *slope = factor + step, *offset = slope + step;
    for (long n = first; n < last; n++) {
        const float *restrict g = f->gradient + n * step, *restrict x = f->x + n * step;
        float *restrict to = f->to + n * step;
        for (long c = 0; c < step; c++)
            to[c] = x[c] * slope[c] + offset[c] + g[c] * factor[c];
    }
}

static void KERNEL(norm)(void *argument)
{
    struct norm *f = argument;
    for (;;) {
        const long portion = __atomic_fetch_add(&f->next, 1, __ATOMIC_RELAXED);
        if (portion * NORM_PORTION >= f->cells)
            return;
        if (f->summing)
            KERNEL(norm_sums)(f, portion);
        else
            KERNEL(norm_gradient)(f, portion);
    }
}

/* Sums over a portion of the cells of x less its first row, which keeps squares small, and of their squares: 16 cells at a time. */
static void KERNEL(moment_sums)(const struct moments *f, long portion)
{
    const long step = f->columns, first = portion * NORM_PORTION;
    const long last = first + NORM_PORTION < f->cells ? first + NORM_PORTION : f->cells;
    float *sums = f->sums + 2 * portion * step, *squares = sums + step;
    memset(sums, 0, sizeof(float) * 2 * step);
    for (long n = first; n < last; n += 16) {
        const int rows = last - n < 16 ? (int)(last - n) : 16;
        const float *x = f->x + n * step;
        long c = 0;
        for (; c + WIDTH <= step; c += WIDTH) {
            const V start = *(const U *)(f->x + c);
            V s = {0}, p = {0};
            for (int r = 0; r < rows; r++) {
                const V apart = *(const U *)(x + r * step + c) - start;
                s += apart;
                p += apart * apart;
            }
            *(U *)(sums + c) += s;
            *(U *)(squares + c) += p;
        }
        for (; c < step; c++) {
            float s = 0, p = 0;
            for (int r = 0; r < rows; r++) {
                const float apart = x[r * step + c] - f->x[c];
                s += apart;
                p += apart * apart;
            }
            sums[c] += s;
            squares[c] += p;
        }
    }
}

/* Moments of the columns, and what takes x to the result. */
static void KERNEL(moment_factors)(const struct moments *f)
{
    const long portions = (f->cells + NORM_PORTION - 1) / NORM_PORTION, step = f->columns;
    for (long c = 0; c < step; c++) {
        double sum = 0, square = 0;
        for (long n = 0; n < portions; n++) {
            sum += f->sums[2 * n * step + c];
            square += f->sums[(2 * n + 1) * step + c];
        }
        sum /= (double)f->cells;
        const double variance = square / (double)f->cells - sum * sum, mean = f->x[c] + sum;
        const double rstd = 1 / __builtin_sqrt((variance > 0 || variance != variance ? variance : 0) + f->epsilon);
        const double factor = f->scale[c % f->channels] * rstd;
        f->mean[c] = (float)mean;
        f->rstd[c] = (float)rstd;
        f->factors[c] = (float)factor;
        f->factors[step + c] = (float)(f->shift[c % f->channels] - mean * factor);
    }
}

static void KERNEL(moments)(void *argument)
{
    struct moments *f = argument;
    const float *factor = f->factors, *offset = factor + f->columns;
    for (;;) {
        const long portion = __atomic_fetch_add(&f->next, 1, __ATOMIC_RELAXED), first = portion * NORM_PORTION;
        if (first >= f->cells)
            return;
        if (f->summing) {
            KERNEL(moment_sums)(f, portion);
            continue;
        }
        const long last = first + NORM_PORTION < f->cells ? first + NORM_PORTION : f->cells;
        for (long n = first; n < last; n++) {
            const float *restrict x = f->x + n * f->columns;
            float *restrict to = f->to + n * f->columns;
            for (long c = 0; c < f->columns; c++)
                to[c] = x[c] * factor[c] + offset[c];
        }
    }
}

#undef V
#undef U
#undef W
#undef INLINE
