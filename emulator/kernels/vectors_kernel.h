/* Layers of tangent vectors beside scalars (`emulator/networks/vectors.py`), and their gradients; included once for every
 * instruction set, after fourier_kernel.h and gelu_kernel.h. Vectors are first all eastward, then all northward components. */

#define V KERNEL(vector)
#define W KERNEL(whole)
#define INLINE static inline __attribute__((always_inline))

/* `at` runs over n numbers, `some` of them at a time; the last ones with some of those before, where there are enough. */
#define OVER(n)                                                                                                        \
    for (long start = 0, some = n < WIDTH ? n : WIDTH, at = 0; start < n;                                              \
         start += WIDTH, at = start + some <= n ? start : n - some)

/* 1 / sqrt(x) of normal numbers by Newton's method, to 2e-7 of itself. */
INLINE V KERNEL(inverse_root)(V x)
{
    V y = (V)(0x5f3759df - ((W)x >> 1));
    for (int n = 0; n < 4; n++)
        y *= 1.5f - 0.5f * x * y * y;
    return y;
}

/* Sums over a portion of the rows: of squares times shares, or of the result's gradient times coefficients. */
static void KERNEL(spectral_sums)(const struct spectral_norm *f, long first, long last)
{
    const long scalars = f->scalars, both = 2 * f->vectors, all = scalars + both;
    float *sums = f->sums + first / NORM_PORTION * f->batch * all;
    memset(sums, 0, sizeof(float) * f->batch * all);
    for (long n = first; n < last; n++)
        for (long b = 0; b < f->batch; b++)
            for (int part = 0; part < 2; part++) {
                const long row = n * f->batch + b, width = part ? both : scalars;
                const float *restrict c = part ? f->b + row * both : f->a + row * scalars;
                float *restrict sum = sums + b * all + part * scalars;
                if (f->gradient) {
                    const float *restrict g = f->gradient + row * all + part * scalars;
                    for (long k = 0; k < width; k++)
                        sum[k] += g[k] * c[k];
                } else {
                    const float share = f->shares[n];
                    for (long k = 0; k < width; k++)
                        sum[k] += share * (c[k] * c[k]);
                }
            }
}

/* What coefficients are multiplied by: a scale over the root of the power, which both parts of a vector share. */
static void KERNEL(spectral_factors)(const struct spectral_norm *f)
{
    const long scalars = f->scalars, vectors = f->vectors, all = scalars + 2 * vectors;
    const long portions = (f->rows + NORM_PORTION - 1) / NORM_PORTION;
    for (long b = 0; b < f->batch; b++)
        for (long k = 0; k < scalars + vectors; k++) {
            double power = 0;
            for (long n = 0; n < portions; n++) {
                const float *sums = f->sums + (n * f->batch + b) * all + k;
                power += k < scalars ? sums[0] : 0.5 * ((double)sums[0] + sums[vectors]);
            }
            const float rstd = (float)(1 / __builtin_sqrt(power + f->epsilon));
            const float factor = f->scale[b * f->scale_step + k] * rstd;
            f->rstd[b * (scalars + vectors) + k] = rstd;
            f->factors[b * all + k] = factor;
            if (k >= scalars)
                f->factors[b * all + vectors + k] = factor;
        }
}

/* The result, or the gradients of coefficients, of a portion of the rows. */
static void KERNEL(spectral_scaled)(const struct spectral_norm *f, long first, long last)
{
    const long scalars = f->scalars, both = 2 * f->vectors, all = scalars + both;
    for (long n = first; n < last; n++)
        for (long b = 0; b < f->batch; b++)
            for (int part = 0; part < 2; part++) {
                const long row = n * f->batch + b, width = part ? both : scalars;
                const float *restrict c = part ? f->b + row * both : f->a + row * scalars;
                const float *restrict factor = f->factors + b * all + part * scalars;
                if (f->gradient) {
                    const float *restrict g = f->gradient + row * all + part * scalars;
                    const float *restrict slope = f->slopes + b * all + part * scalars;
                    float *restrict to = part ? f->g_b + row * both : f->g_a + row * scalars;
                    const float share = f->shares[n];
                    for (long k = 0; k < width; k++)
                        to[k] = g[k] * factor[k] + share * slope[k] * c[k];
                } else {
                    float *restrict to = f->to + row * all + part * scalars;
                    for (long k = 0; k < width; k++)
                        to[k] = c[k] * factor[k];
                }
            }
}

static void KERNEL(spectral_norm)(void *argument)
{
    struct spectral_norm *f = argument;
    for (;;) {
        const long first = NORM_PORTION * __atomic_fetch_add(&f->next, 1, __ATOMIC_RELAXED);
        if (first >= f->rows)
            return;
        const long last = first + NORM_PORTION < f->rows ? first + NORM_PORTION : f->rows;
        if (f->summing)
            KERNEL(spectral_sums)(f, first, last);
        else
            KERNEL(spectral_scaled)(f, first, last);
    }
}

/* Components of vectors along others, over the root of 1 and the other's square; or the gradients of both. */
static void KERNEL(along)(void *argument)
{
    struct along *f = argument;
    const long n = f->vectors;
    for (;;) {
        const long first = NORM_PORTION * __atomic_fetch_add(&f->next, 1, __ATOMIC_RELAXED);
        if (first >= f->rows)
            return;
        const long last = first + NORM_PORTION < f->rows ? first + NORM_PORTION : f->rows;
        for (long row = first; row < last; row++) {
            const float *x = f->x + 2 * row * n, *other = f->other + 2 * row * n;
            OVER(n)
            {
                const V x0 = KERNEL(load)(x + at, some), x1 = KERNEL(load)(x + n + at, some);
                const V y0 = KERNEL(load)(other + at, some), y1 = KERNEL(load)(other + n + at, some);
                const V shrink = KERNEL(inverse_root)(y0 * y0 + y1 * y1 + 1.0f), product = x0 * y0 + x1 * y1;
                if (!f->gradient) {
                    KERNEL(store)(f->to + row * n + at, product * shrink, some);
                    continue;
                }
                const V g = KERNEL(load)(f->gradient + row * n + at, some) * shrink;
                const V back = g * product * shrink * shrink;
                float *to = f->to + 2 * row * n + at, *g_other = f->g_other + 2 * row * n + at;
                KERNEL(store)(to, y0 * g, some);
                KERNEL(store)(to + n, y1 * g, some);
                KERNEL(store)(g_other, x0 * g - y0 * back, some);
                KERNEL(store)(g_other + n, x1 * g - y1 * back, some);
            }
        }
    }
}

/* Twice the logistic function. */
INLINE V KERNEL(opening)(V x)
{
    const W negative = x < 0.0f;
    const V size = (V)(((W)-x & negative) | ((W)x & ~negative));
    const V e = KERNEL(decay)(KERNEL(at_most)(size, 86.0f)), above = 2.0f / (1.0f + e), below = e * above;
    return (V)(((W)below & negative) | ((W)above & ~negative));
}

/* Scalars plus their change, and vectors plus gated ones; or the gradients of the change, the gate and the gated ones. */
static void KERNEL(gate)(void *argument)
{
    struct gate *f = argument;
    const long scalars = f->scalars, n = f->vectors, all = scalars + n;
    for (;;) {
        const long first = NORM_PORTION * __atomic_fetch_add(&f->next, 1, __ATOMIC_RELAXED);
        if (first >= f->rows)
            return;
        const long last = first + NORM_PORTION < f->rows ? first + NORM_PORTION : f->rows;
        for (long row = first; row < last; row++) {
            const float *restrict s = f->s + row * scalars, *restrict change = f->made + row * all;
            float *restrict to = f->backward ? f->g_made + row * all : f->to_s + row * scalars;
            if (f->backward)
                memcpy(to, s, sizeof(float) * scalars);
            else
                for (long k = 0; k < scalars; k++)
                    to[k] = s[k] + change[k];
            const float *turned = f->turned + 2 * row * n, *w = f->w + 2 * row * n;
            float *to_w = f->to_w + 2 * row * n;
            OVER(n)
            {
                const V open = KERNEL(opening)(KERNEL(load)(change + scalars + at, some));
                const V t0 = KERNEL(load)(turned + at, some), t1 = KERNEL(load)(turned + n + at, some);
                const V w0 = KERNEL(load)(w + at, some), w1 = KERNEL(load)(w + n + at, some);
                if (f->backward) { /* w is the gradient of the result */
                    KERNEL(store)(to + scalars + at, (w0 * t0 + w1 * t1) * open * (1.0f - 0.5f * open), some);
                    KERNEL(store)(to_w + at, w0 * open, some);
                    KERNEL(store)(to_w + n + at, w1 * open, some);
                } else {
                    KERNEL(store)(to_w + at, w0 + t0 * open, some);
                    KERNEL(store)(to_w + n + at, w1 + t1 * open, some);
                }
            }
        }
    }
}

/* Pieces of rows, beside one another or apart. */
static void KERNEL(pieces)(void *argument)
{
    struct pieces *f = argument;
    for (;;) {
        const long row = f->portion * __atomic_fetch_add(&f->next, 1, __ATOMIC_RELAXED);
        if (row >= f->rows)
            return;
        const long last = row + f->portion < f->rows ? row + f->portion : f->rows;
        for (long n = row; n < last; n++)
            memcpy(f->to + n * f->to_step, f->from + n * f->from_step, sizeof(float) * f->count);
    }
}

#undef OVER
#undef V
#undef W
#undef INLINE
