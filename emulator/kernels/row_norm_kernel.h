/* Layer norm of rows, scaled and shifted by sample and added to what it is called with, and its gradients; included once for
 * every instruction set. Rows are whole vectors of all of them. */

typedef float KERNEL(vector) __attribute__((vector_size(4 * WIDTH)));
typedef float KERNEL(unaligned) __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
#define V KERNEL(vector)
#define U KERNEL(unaligned)
#define INLINE static inline __attribute__((always_inline))

INLINE float KERNEL(lane_sum)(V v)
{
    float part[WIDTH];
    memcpy(part, &v, sizeof part);
    for (int half = WIDTH / 2; half; half /= 2)
        for (int n = 0; n < half; n++)
            part[n] += part[n + half];
    return part[0];
}

static void KERNEL(row_norm_forward)(const struct row_norm *f, long first, long last, const float *shift)
{
    const long width = f->width;
    const float *scale = shift + width, share = 1.0f / (float)width;
    for (long n = first; n < last; n++) {
        const float *x = f->x + n * width, *onto = f->onto + n * width;
        float *to = f->to + n * width;
        V sum = {0}, square = {0};
        for (long c = 0; c < width; c += WIDTH)
            sum += *(const U *)(x + c);
        const float mean = KERNEL(lane_sum)(sum) * share;
        for (long c = 0; c < width; c += WIDTH) {
            const V apart = *(const U *)(x + c) - mean;
            square += apart * apart;
        }
        const float rstd = 1 / __builtin_sqrtf(KERNEL(lane_sum)(square) * share + (float)f->epsilon);
        f->moments[2 * n] = mean;
        f->moments[2 * n + 1] = rstd;
        for (long c = 0; c < width; c += WIDTH)
            *(U *)(to + c) = *(const U *)(onto + c) + (*(const U *)(x + c) - mean) * rstd * *(const U *)(scale + c) +
                             *(const U *)(shift + c);
    }
}

static void KERNEL(row_norm_backward)(const struct row_norm *f, long first, long last, const float *shift, float *sums)
{
    const long width = f->width;
    const float *scale = shift + width, share = 1.0f / (float)width;
    memset(sums, 0, sizeof(float) * 2 * width);
    for (long n = first; n < last; n++) {
        const float *x = f->x + n * width, *g = f->gradient + n * width;
        const float mean = f->moments[2 * n], rstd = f->moments[2 * n + 1];
        float *to = f->to + n * width;
        V sum = {0}, product = {0};
        for (long c = 0; c < width; c += WIDTH) {
            const V gradient = *(const U *)(g + c), normal = (*(const U *)(x + c) - mean) * rstd;
            const V scaled = gradient * *(const U *)(scale + c);
            *(U *)(sums + c) += gradient;
            *(U *)(sums + width + c) += gradient * normal;
            sum += scaled;
            product += scaled * normal;
        }
        const float offset = KERNEL(lane_sum)(sum) * share, slope = KERNEL(lane_sum)(product) * share;
        for (long c = 0; c < width; c += WIDTH) {
            const V normal = (*(const U *)(x + c) - mean) * rstd;
            *(U *)(to + c) = (*(const U *)(g + c) * *(const U *)(scale + c) - offset - normal * slope) * rstd;
        }
    }
}

static void KERNEL(row_norm)(void *argument)
{
    struct row_norm *f = argument;
    const long portions = (f->rows + NORM_PORTION - 1) / NORM_PORTION;
    for (;;) {
        const long portion = __atomic_fetch_add(&f->next, 1, __ATOMIC_RELAXED);
        if (portion >= portions * f->batch)
            return;
        const long sample = portion / portions, row = portion % portions * NORM_PORTION;
        const long count = row + NORM_PORTION < f->rows ? NORM_PORTION : f->rows - row;
        const long first = sample * f->rows + row;
        const float *shift = f->modulation + 2 * sample * f->width;
        if (f->gradient)
            KERNEL(row_norm_backward)(f, first, first + count, shift, f->sums + 2 * portion * f->width);
        else
            KERNEL(row_norm_forward)(f, first, first + count, shift);
    }
}

#undef V
#undef U
#undef INLINE
