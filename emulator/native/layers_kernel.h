/* Gradients of GELU and of the instance norm, included once for every instruction set. */

typedef float KERNEL(vector) __attribute__((vector_size(4 * LANES)));
typedef float KERNEL(unaligned) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int KERNEL(whole) __attribute__((vector_size(4 * LANES)));
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
        for (; n + LANES <= last; n += LANES) {
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

/* One strip of columns: their sums of the gradient and of the gradient times x, then the gradient of x. */
INLINE void KERNEL(norm_strip)(const struct norm *f, long column, int lanes)
{
    const long step = f->columns;
    V sums = {0}, products = {0};
    for (long first = 0; first < f->cells; first += NORM_PORTION) { /* in parts, for rounding */
        const long last = first + NORM_PORTION < f->cells ? first + NORM_PORTION : f->cells;
        V s[4] = {{0}}, p[4] = {{0}};
        for (long n = first; n < last; n++) {
            V g = {0}, x = {0};
            if (lanes == LANES) {
                g = *(const U *)(f->gradient + n * step + column);
                x = *(const U *)(f->x + n * step + column);
            } else {
                memcpy(&g, f->gradient + n * step + column, sizeof(float) * lanes);
                memcpy(&x, f->x + n * step + column, sizeof(float) * lanes);
            }
            s[n & 3] += g;
            p[n & 3] += g * x;
        }
        sums += (s[0] + s[1]) + (s[2] + s[3]);
        products += (p[0] + p[1]) + (p[2] + p[3]);
    }
    V scale = {0}, mean = {0}, rstd = {0};
    memcpy(&scale, f->scale + column, sizeof(float) * lanes);
    memcpy(&mean, f->mean + column, sizeof(float) * lanes);
    memcpy(&rstd, f->rstd + column, sizeof(float) * lanes);
    const V g_scale = (products - mean * sums) * rstd, factor = scale * rstd;
    const float count = 1.0f / (float)f->cells;
    const V slope = -factor * rstd * g_scale * count, offset = -factor * sums * count - slope * mean;
    memcpy(f->g_shift + column, &sums, sizeof(float) * lanes);
    memcpy(f->g_scale + column, &g_scale, sizeof(float) * lanes);
    for (long n = 0; n < f->cells; n++) {
        const float *g = f->gradient + n * step + column, *x = f->x + n * step + column;
        float *to = f->to + n * step + column;
        if (lanes == LANES) {
            *(U *)to = *(const U *)x * slope + offset + *(const U *)g * factor;
        } else {
            for (int i = 0; i < lanes; i++)
                to[i] = x[i] * slope[i] + offset[i] + g[i] * factor[i];
        }
    }
}

static void KERNEL(norm)(void *argument)
{
    struct norm *f = argument;
    for (;;) {
        const long column = __atomic_fetch_add(&f->next, LANES, __ATOMIC_RELAXED);
        if (column >= f->columns)
            return;
        if (f->columns - column >= LANES)
            KERNEL(norm_strip)(f, column, LANES);
        else
            KERNEL(norm_strip)(f, column, (int)(f->columns - column));
    }
}

#undef V
#undef U
#undef W
#undef INLINE
