/* Complex products of a degree's coefficients with its weights, included once for every instruction set.
 *
 * real[i, c] = sum_k a p - b q and imaginary[i, c] = sum_k a q + b p, with a = a[i ai + k ak] and b = sign * b[...] one
 * number each and p, q rows of channels: that is the mixing itself, and with sign = -1 its gradient of the weights. */

typedef float KERNEL(vector) __attribute__((vector_size(4 * LANES)));
typedef float KERNEL(unaligned) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
#define V KERNEL(vector)
#define U KERNEL(unaligned)
#define INLINE static inline __attribute__((always_inline))

struct KERNEL(factors) {
    const float *a, *b, *p, *q;
    float *real, *imaginary;
    long ai, ak, from_step, to_step;
    float sign;
    int depth, add; /* add: to what the result holds already */
};

INLINE V KERNEL(some)(const float *from, int lanes)
{
    if (lanes == LANES)
        return *(const U *)from;
    V value = {0};
    memcpy(&value, from, sizeof(float) * lanes);
    return value;
}

INLINE void KERNEL(put)(float *to, V value, int lanes, int add)
{
    if (add)
        value += KERNEL(some)(to, lanes);
    if (lanes == LANES)
        *(U *)to = value;
    else
        memcpy(to, &value, sizeof(float) * lanes);
}

INLINE void KERNEL(complex_tile)(int rows, int vectors, int lanes, const struct KERNEL(factors) *f, long i, long c)
{
    V real[MIXING_ROWS][MIXING_VECTORS], imaginary[MIXING_ROWS][MIXING_VECTORS];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            real[r][v] = imaginary[r][v] = (V){0};
    const float *a = f->a + i * f->ai, *b = f->b + i * f->ai, *p = f->p + c, *q = f->q + c;
    const long ai = f->ai;
    for (int k = 0; k < f->depth; k++, a += f->ak, b += f->ak, p += f->from_step, q += f->from_step) {
        V pk[MIXING_VECTORS], qk[MIXING_VECTORS];
        for (int v = 0; v < vectors; v++) {
            pk[v] = KERNEL(some)(p + v * LANES, lanes);
            qk[v] = KERNEL(some)(q + v * LANES, lanes);
        }
        for (int r = 0; r < rows; r++) {
            const float x = a[r * ai], y = f->sign * b[r * ai];
            for (int v = 0; v < vectors; v++) {
                real[r][v] += pk[v] * x - qk[v] * y;
                imaginary[r][v] += qk[v] * x + pk[v] * y;
            }
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) {
            const long place = (i + r) * f->to_step + c + v * LANES;
            KERNEL(put)(f->real + place, real[r][v], lanes, f->add);
            KERNEL(put)(f->imaginary + place, imaginary[r][v], lanes, f->add);
        }
}

INLINE void KERNEL(complex_strip)(int vectors, int lanes, int rows, const struct KERNEL(factors) *f, long c)
{
    int i = 0;
    for (; i + MIXING_ROWS <= rows; i += MIXING_ROWS)
        KERNEL(complex_tile)(MIXING_ROWS, vectors, lanes, f, i, c);
    for (; i < rows; i++)
        KERNEL(complex_tile)(1, vectors, lanes, f, i, c);
}

static void KERNEL(complex_product)(int rows, long columns, const struct KERNEL(factors) *f)
{
    long c = 0;
    for (; c + MIXING_VECTORS * LANES <= columns; c += MIXING_VECTORS * LANES)
        KERNEL(complex_strip)(MIXING_VECTORS, LANES, rows, f, c);
    for (; c + LANES <= columns; c += LANES)
        KERNEL(complex_strip)(1, LANES, rows, f, c);
    if (c < columns)
        KERNEL(complex_strip)(1, (int)(columns - c), rows, f, c);
}

static void KERNEL(mixing)(void *argument)
{
    struct mixing *f = argument;
    const long in = f->inputs, out = f->outputs;
    for (;;) {
        const int degree = f->degrees - 1 - (int)__atomic_fetch_add(&f->next, 1, __ATOMIC_RELAXED);
        if (degree < 0)
            return;
        const float *weight = f->weight + degree * 2 * in * out;
        float *g_weight = f->g_weight ? f->g_weight + degree * 2 * in * out : NULL;
        float *turned = f->turned ? f->turned + degree * 2 * in * out : NULL;
        if (turned) /* the conjugate weights, outputs first: what takes gradients back to the coefficients */
            for (long i = 0; i < in; i++)
                for (long o = 0; o < out; o++) {
                    turned[o * 2 * in + i] = weight[i * 2 * out + o];
                    turned[o * 2 * in + in + i] = -weight[i * 2 * out + out + o];
                }
        long position = 0;
        for (int start = 0, stop; start < f->degrees; start = stop) {
            stop = start + f->width < f->degrees ? start + f->width : f->degrees;
            const long rows = 2 * (long)(stop - start) * f->batch;
            const int q = degree & 1;
            const long even = (f->degrees + 1) / 2 - start / 2, odd = f->degrees / 2 - start / 2;
            if (degree >= start) {
                const long place = position + (q ? even : 0) * rows + (degree / 2 - start / 2) * rows;
                const long valid = (degree + 1 < stop ? degree + 1 - start : stop - start) * f->batch;
                const float *c = f->from + place * in, *g = f->to + place * out;
                if (g_weight) {
                    struct KERNEL(factors) weights = {c, c + rows / 2 * in, g, g + rows / 2 * out, g_weight,
                                                      g_weight + out, 1, in, out, 2 * out, -1.0f, (int)valid, start > 0};
                    KERNEL(complex_product)((int)in, out, &weights);
                    float *g_c = f->g_from + place * in;
                    struct KERNEL(factors) back = {g, g + rows / 2 * out, turned, turned + in, g_c, g_c + rows / 2 * in,
                                                   out, 1, 2 * in, in, 1.0f, (int)out, 0};
                    KERNEL(complex_product)((int)valid, in, &back);
                    memset(g_c + valid * in, 0, sizeof(float) * (rows / 2 - valid) * in);
                    memset(g_c + (rows / 2 + valid) * in, 0, sizeof(float) * (rows / 2 - valid) * in);
                } else {
                    float *to = f->to + place * out;
                    struct KERNEL(factors) ahead = {c, c + rows / 2 * in, weight, weight + out, to, to + rows / 2 * out,
                                                    in, 1, 2 * out, out, 1.0f, (int)in, 0};
                    KERNEL(complex_product)((int)valid, out, &ahead);
                    memset(to + valid * out, 0, sizeof(float) * (rows / 2 - valid) * out);
                    memset(to + (rows / 2 + valid) * out, 0, sizeof(float) * (rows / 2 - valid) * out);
                }
            } else if (start / 2 * 2 + q <= degree) { /* the degree just below the block's orders, stored as zeros */
                float *to = (g_weight ? f->g_from : f->to) + (position + (q ? even : 0) * rows +
                                                              (degree / 2 - start / 2) * rows) * (g_weight ? in : out);
                memset(to, 0, sizeof(float) * rows * (g_weight ? in : out));
            }
            position += (even + odd) * rows;
        }
    }
}

#undef V
#undef U
#undef INLINE
