/* Perceptrons on the rows of edges or nodes, tile by tile, included once for every instruction set.
 *
 * A tile's rows go through gathering, both products, SiLU, norm, residual and segment sums while they stay in the cache; so
 * do all products of the gradient. A part of the rows begins with a receiver's first edge and has sums of its own for the
 * gradients of weights, so that results do not depend on how many threads there are.
 *
 * Over 300 lines, since a tile's way forward and back shares its layout and its sums. */

#define V KERNEL(vector)
#define U KERNEL(unaligned)
#define W KERNEL(whole)
#define INLINE static inline __attribute__((always_inline))

INLINE float KERNEL(total)(V x)
{
    float part[WIDTH];
    memcpy(part, &x, sizeof part);
    for (int n = 0; n < WIDTH - 8; n++)
        part[n] += part[n + 8];
    for (int n = 1; n < (WIDTH < 8 ? WIDTH : 8); n *= 2)
        for (int i = 0; i + n < WIDTH && i < 8; i += 2 * n)
            part[i] += part[i + n];
    return part[0];
}

/* 1 / (1 + exp(-x)): a power of two times a polynomial for 2^r, |r| <= 1/2, to 1e-7 of itself
 * (coefficients by the exchange of the largest errors). */
INLINE V KERNEL(sigmoid)(V x)
{
    const V most = (V){0} + 126.0f, least = (V){0} - 126.0f;
    const float shift = 12582912.0f; /* 1.5 * 2^23: the sum's last bits are a rounded whole number */
    V t = x * -1.44269504088896f;
    t = (V)(((W)t & (t < most)) | ((W)most & ~(t < most)));
    t = (V)(((W)t & (t > least)) | ((W)least & ~(t > least)));
    const V rounded = t + shift, r = t - (rounded - shift);
    V e = r * 1.326472731e-03f + 9.671512991e-03f;
    e = e * r + 5.550733581e-02f;
    e = e * r + 2.402224243e-01f;
    e = e * r + 6.931470037e-01f;
    e = e * r + 1.0f;
    e = (V)((W)e + ((W)rounded << 23));
    return 1.0f / (1.0f + e);
}

/* The rows of part `part`, which begin and end with those of a receiver. */
INLINE long KERNEL(part_start)(const struct messages *f, long part)
{
    long edge = f->edges * part / f->parts;
    if (f->targets && part < f->parts)
        while (edge > 0 && f->targets[edge] == f->targets[edge - 1])
            edge++;
    return edge < f->edges ? edge : f->edges;
}

/* What the first layer gives for `rows` rows from the row `first` on. */
INLINE void KERNEL(hidden_values)(const struct messages *f, long first, int rows, int width, int inputs, float *h)
{
    const long batch = f->batch;
    if (f->start)
        for (int n = 0; n < rows; n++)
            memcpy(h + n * width, f->start, sizeof(float) * width);
    for (int n = 0; n < rows && f->senders; n++) {
        const long edge = (first + n) / batch, sample = (first + n) - edge * batch;
        const float *own = f->senders + ((f->origins ? f->origins[edge] : edge) * batch + sample) * width;
        const float *other = f->receivers ? f->receivers + (f->targets[edge] * batch + sample) * width : NULL;
        const float *shared = f->shared ? f->shared + edge * width : NULL;
        for (int c = 0; c < width; c += WIDTH) {
            V value = *(const U *)(own + c);
            if (other)
                value += *(const U *)(other + c);
            if (shared)
                value += *(const U *)(shared + c);
            *(U *)(h + n * width + c) = value;
        }
    }
    if (f->x)
        KERNEL(layer_product)(rows, width, f->x + first * inputs, inputs, 1, f->first, width, inputs, h, width, h, width);
}

/* The second layer of `active` and its norm without scale and shift, into `normed`; one over its spread into `rstd`. */
INLINE void KERNEL(normed_values)(const struct messages *f, int rows, int width, const float *active, float *normed,
                                  float *rstd)
{
    KERNEL(layer_product)(rows, width, active, width, 1, f->second, width, width, normed, width, NULL, 0);
    for (int n = 0; n < rows; n++) {
        float *m = normed + n * width;
        V sum = {0}, square = {0};
        for (int c = 0; c < width; c += WIDTH) {
            const V value = *(V *)(m + c) + *(const U *)(f->bias + c);
            *(V *)(m + c) = value;
            sum += value;
        }
        const float mean = KERNEL(total)(sum) / (float)width;
        for (int c = 0; c < width; c += WIDTH) {
            const V value = *(V *)(m + c) - mean;
            square += value * value;
        }
        rstd[n] = 1.0f / __builtin_sqrtf(KERNEL(total)(square) / (float)width + MESSAGE_EPSILON);
        for (int c = 0; c < width; c += WIDTH)
            *(V *)(m + c) = (*(V *)(m + c) - mean) * rstd[n];
    }
}

INLINE void KERNEL(messages_ahead)(struct messages *f, int width)
{
    const int most = MESSAGE_ROOM / width / ROWS * ROWS;
    const int inputs = f->start ? f->inputs : width;
    const long batch = f->batch;
    float hidden[MESSAGE_ROOM] __attribute__((aligned(64))), active[MESSAGE_ROOM] __attribute__((aligned(64)));
    float rstd[MESSAGE_ROOM / LANES];
    for (;;) {
        const long part = __atomic_fetch_add(&f->next, 1, __ATOMIC_RELAXED);
        if (part >= f->parts)
            return;
        const long stop = KERNEL(part_start)(f, part + 1) * batch;
        for (long first = KERNEL(part_start)(f, part) * batch; first < stop; first += most) {
            const int rows = stop - first < most ? (int)(stop - first) : most;
            float *h = f->h ? f->h + first * width : hidden;
            KERNEL(hidden_values)(f, first, rows, width, inputs, h);
            for (long n = 0; n < (long)rows * width; n += WIDTH) {
                const V value = *(const U *)(h + n);
                *(V *)(active + n) = value * KERNEL(sigmoid)(value);
                if (f->result)
                    __builtin_prefetch(f->result + first * width + n, 1, 2);
                if (f->h)
                    __builtin_prefetch(h + rows * width + n, 1, 2);
                if (f->x)
                    __builtin_prefetch(f->x + (first + rows) * inputs + n, 0, 2);
            }
            KERNEL(normed_values)(f, rows, width, active, hidden, rstd);
            for (int n = 0; n < rows; n++) {
                const long row = first + n, edge = row / batch, sample = row - edge * batch;
                float *sums = f->sums ? f->sums + (f->targets[edge] * batch + sample) * width : NULL;
                float *result = f->result ? f->result + row * width : NULL;
                const float *residual = f->residual ? f->residual + (f->shared ? edge : row) * width : NULL;
                for (int c = 0; c < width; c += WIDTH) {
                    V value = *(V *)(hidden + n * width + c) * *(const U *)(f->scale + c) + *(const U *)(f->shift + c);
                    if (sums)
                        *(U *)(sums + c) += value;
                    if (residual)
                        value += *(const U *)(residual + c);
                    if (result)
                        *(U *)(result + c) = value;
                }
            }
        }
    }
}

/* Of all that lies between the inputs and the messages only `h` is kept: normed values are computed again, tile by tile. */
INLINE void KERNEL(messages_back)(struct messages *f, int width)
{
    const int most = MESSAGE_ROOM / width / ROWS * ROWS;
    const int inputs = f->start || !f->x ? f->inputs : width;
    const long batch = f->batch, square = (long)width * width, others = (long)inputs * width;
    float gradient[MESSAGE_ROOM] __attribute__((aligned(64))), active[MESSAGE_ROOM] __attribute__((aligned(64)));
    float slope[MESSAGE_ROOM] __attribute__((aligned(64))), normed[MESSAGE_ROOM] __attribute__((aligned(64)));
    float factors[3][MESSAGE_ROOM / LANES];
    for (;;) {
        const long part = __atomic_fetch_add(&f->next, 1, __ATOMIC_RELAXED);
        if (part >= f->parts)
            return;
        float *g_second = f->room + part * (square + others + 4 * width), *g_first = g_second + square;
        float *g_start = g_first + others, *g_bias = g_start + width, *g_scale = g_bias + width, *g_shift = g_scale + width;
        memset(g_second, 0, sizeof(float) * (square + others + 4 * width));
        const long stop = KERNEL(part_start)(f, part + 1) * batch;
        for (long first = KERNEL(part_start)(f, part) * batch; first < stop; first += most) {
            const int rows = stop - first < most ? (int)(stop - first) : most;
            const float *h = f->h ? f->h + first * width : slope;
            if (!f->h)
                KERNEL(hidden_values)(f, first, rows, width, inputs, slope);
            for (long n = 0; n < (long)rows * width; n += WIDTH) {
                const V value = *(const U *)(h + n), s = KERNEL(sigmoid)(value), a = value * s;
                *(V *)(active + n) = a;
                *(V *)(slope + n) = s + a * (1.0f - s);
                if (f->h)
                    __builtin_prefetch(h + rows * width + n, 0, 2);
                if (f->after)
                    __builtin_prefetch(f->after + first * width + n, 1, 2);
                if (f->g_rows)
                    __builtin_prefetch(f->g_rows + first * width + n, 0, 2);
            }
            KERNEL(normed_values)(f, rows, width, active, normed, factors[0]);
            for (int n = 0; n < rows; n++) { /* gradient of the message, and its two means */
                const long row = first + n, edge = row / batch, sample = row - edge * batch;
                const float *g_sums = f->g_sums ? f->g_sums + (f->targets[edge] * batch + sample) * width : NULL;
                const float *g_rows = f->g_rows ? f->g_rows + row * width : NULL;
                V sum = {0}, product = {0};
                for (int c = 0; c < width; c += WIDTH) {
                    V g = {0};
                    if (g_sums)
                        g = *(const U *)(g_sums + c);
                    if (g_rows)
                        g += *(const U *)(g_rows + c);
                    *(V *)(gradient + n * width + c) = g;
                    g *= *(const U *)(f->scale + c);
                    sum += g;
                    product += g * *(V *)(normed + n * width + c);
                }
                factors[1][n] = KERNEL(total)(sum) / (float)width * factors[0][n];
                factors[2][n] = KERNEL(total)(product) / (float)width * factors[0][n];
                if (f->after) /* the row before its message was added */
                    for (int c = 0; c < width; c += WIDTH)
                        *(U *)(f->x + row * width + c) =
                            *(const U *)(f->after + row * width + c) -
                            (*(V *)(normed + n * width + c) * *(const U *)(f->scale + c) + *(const U *)(f->shift + c));
            }
            for (int c = 0; c < width; c += WIDTH) { /* through the norm */
                const V scale = *(const U *)(f->scale + c);
                V sum = {0}, product = {0}, bias = {0};
                for (int n = 0; n < rows; n++) {
                    V g = *(V *)(gradient + n * width + c);
                    const V value = *(V *)(normed + n * width + c);
                    sum += g;
                    product += g * value;
                    g = g * scale * factors[0][n] - (value * factors[2][n] + factors[1][n]);
                    bias += g;
                    *(V *)(gradient + n * width + c) = g;
                }
                *(U *)(g_shift + c) += sum;
                *(U *)(g_scale + c) += product;
                *(U *)(g_bias + c) += bias;
            }
            float *g_h = f->g_h ? f->g_h + first * width : normed;
            KERNEL(layer_product)(rows, width, gradient, width, 1, f->turned, width, width, g_h, width, NULL, 0);
            KERNEL(layer_product)(width, width, gradient, 1, width, active, width, rows, g_second, width, g_second, width);
            for (int n = 0; n < rows; n++) {
                const long row = first + n, edge = row / batch, sample = row - edge * batch;
                float *g_receivers =
                    f->g_receivers ? f->g_receivers + (f->targets[edge] * batch + sample) * width : NULL;
                for (int c = 0; c < width; c += WIDTH) {
                    const V g = *(U *)(g_h + n * width + c) * *(V *)(slope + n * width + c);
                    *(U *)(g_h + n * width + c) = g;
                    if (g_receivers)
                        *(U *)(g_receivers + c) += g;
                }
            }
            if (f->start)
                for (int c = 0; c < width; c += WIDTH) {
                    V sum = *(const U *)(g_start + c);
                    for (int n = 0; n < rows; n++)
                        sum += *(const U *)(g_h + n * width + c);
                    *(U *)(g_start + c) = sum;
                }
            if (f->x)
                KERNEL(layer_product)(inputs, width, f->x + first * inputs, 1, inputs, g_h, width, rows, g_first, width,
                                      g_first, width);
            if (!f->g_x)
                continue;
            float *g_x = f->g_x + first * width;
            if (f->carry && f->g_x != f->g_rows)
                memcpy(g_x, f->g_rows + first * width, sizeof(float) * rows * width);
            KERNEL(layer_product)(rows, width, g_h, width, 1, f->first, width, width, g_x, width,
                                  f->carry ? g_x : NULL, width);
        }
    }
}

static void KERNEL(messages)(void *argument)
{
    struct messages *f = argument;
    if (f->width == 128) /* loops unrolled for a common width */
        f->backward ? KERNEL(messages_back)(f, 128) : KERNEL(messages_ahead)(f, 128);
    else
        f->backward ? KERNEL(messages_back)(f, f->width) : KERNEL(messages_ahead)(f, f->width);
}

INLINE void KERNEL(maps_ahead)(struct maps *f, int width)
{
    const int most = MESSAGE_ROOM / width / ROWS * ROWS;
    for (;;) {
        const long part = __atomic_fetch_add(&f->next, 1, __ATOMIC_RELAXED);
        if (part >= f->parts)
            return;
        const long stop = f->rows * (part + 1) / f->parts;
        for (long first = f->rows * part / f->parts; first < stop; first += most) {
            const int rows = stop - first < most ? (int)(stop - first) : most;
            const float *x = f->x + first * width;
            for (int j = 0; j < f->count; j++) {
                float *y = f->y[j] + first * width;
                if (f->bias[j])
                    for (int n = 0; n < rows; n++)
                        memcpy(y + n * width, f->bias[j], sizeof(float) * width);
                KERNEL(layer_product)(rows, width, x, width, 1, f->weight[j], width, width, y, width,
                                      f->bias[j] ? y : NULL, width);
            }
        }
    }
}

INLINE void KERNEL(maps_back)(struct maps *f, int width)
{
    const int most = MESSAGE_ROOM / width / ROWS * ROWS;
    const long square = (long)width * width;
    for (;;) {
        const long part = __atomic_fetch_add(&f->next, 1, __ATOMIC_RELAXED);
        if (part >= f->parts)
            return;
        float *g_weight = f->room + part * f->count * (square + width), *g_bias = g_weight + f->count * square;
        memset(g_weight, 0, sizeof(float) * f->count * (square + width));
        const long stop = f->rows * (part + 1) / f->parts;
        for (long first = f->rows * part / f->parts; first < stop; first += most) {
            const int rows = stop - first < most ? (int)(stop - first) : most;
            const float *x = f->x + first * width;
            float *g_x = f->g_x + first * width;
            for (int j = 0; j < f->count; j++) {
                const float *g = f->y[j] + first * width;
                KERNEL(layer_product)(rows, width, g, width, 1, f->weight[j], width, width, g_x, width, g_x, width);
                KERNEL(layer_product)(width, width, g, 1, width, x, width, rows, g_weight + j * square, width,
                                      g_weight + j * square, width);
                for (int c = 0; c < width; c += WIDTH) {
                    V sum = *(const U *)(g_bias + j * width + c);
                    for (int n = 0; n < rows; n++)
                        sum += *(const U *)(g + n * width + c);
                    *(U *)(g_bias + j * width + c) = sum;
                }
            }
        }
    }
}

static void KERNEL(maps)(void *argument)
{
    struct maps *f = argument;
    if (f->width == 128) /* loops unrolled for a common width */
        f->backward ? KERNEL(maps_back)(f, 128) : KERNEL(maps_ahead)(f, 128);
    else
        f->backward ? KERNEL(maps_back)(f, f->width) : KERNEL(maps_ahead)(f, f->width);
}

#undef V
#undef U
#undef W
#undef INLINE
