/* Products of a degree's coefficients with its weights, complex or real ones, included once for every instruction set.
 *
 * Of complex weights, real[i, c] = sum_k a p - b q and imaginary[i, c] = sum_k a q + b p, with a = a[i ai + k ak] and b = sign * b[...] one
 * number each and p, q rows of channels: that is the mixing itself, and with sign = -1 its gradient of the weights. In float32
 * from three products (Gauss): the imaginary part is sum_k (a + b) (p + q) less both products of the real one. */

#define V KERNEL(vector)
#define U KERNEL(unaligned)
#define word KERNEL(word)
#define INLINE static inline __attribute__((always_inline))

/* to[c, r] = from[r, c], words with `flip` exclusively-ored into each. Tiles of whole vectors are turned in registers, lanes
 * exchanged over distances of 8, 4, 2 and 1; one by one it took a tenth of the gradients' time with 128 channels. */
#if WIDTH == 16
INLINE void KERNEL(turn_tile)(const __m512i *rows, word *to, long to_step, uint32_t flip)
{
    const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    __m512i tile[LANES];
    for (int n = 0; n < LANES; n++)
        tile[n] = rows[n];
#pragma GCC unroll 4
    for (int s = LANES / 2; s; s /= 2) {
        const __mmask16 far = _mm512_test_epi32_mask(lanes, _mm512_set1_epi32(s));
        const __m512i first = _mm512_mask_add_epi32(lanes, far, lanes, _mm512_set1_epi32(LANES - s));
        const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(s));
#pragma GCC unroll 16
        for (int n = 0; n < LANES; n++)
            if (!(n & s)) {
                const __m512i a = tile[n], b = tile[n + s];
                tile[n] = _mm512_permutex2var_epi32(a, first, b);
                tile[n + s] = _mm512_permutex2var_epi32(a, second, b);
            }
    }
    for (int n = 0; n < LANES; n++)
        _mm512_storeu_si512(to + n * to_step, _mm512_xor_si512(tile[n], _mm512_set1_epi32((int)flip)));
}
#endif

static void KERNEL(turn)(const void *source, long from_step, word *to, long to_step, long rows, long columns, uint32_t flip)
{
    const float *from = source;
    for (long r = 0; r < rows; r += LANES)
        for (long c = 0; c < columns; c += LANES) {
            long high = rows - r < LANES ? rows - r : LANES, wide = columns - c < LANES ? columns - c : LANES;
#if WIDTH == 16
            if (high == LANES && wide == LANES) {
                __m512i tile[LANES];
                for (int n = 0; n < LANES; n++)
                    tile[n] = _mm512_loadu_si512(from + (r + n) * from_step + c);
                KERNEL(turn_tile)(tile, to + c * to_step + r, to_step, flip);
                continue;
            }
#endif
            for (long o = c; o < c + wide; o++)
                for (long i = r; i < r + high; i++) {
                    uint32_t bits;
                    memcpy(&bits, from + i * from_step + o, sizeof bits);
                    bits ^= flip;
                    memcpy(to + o * to_step + i, &bits, sizeof bits);
                }
        }
}

#define MINUS_LOW 0x8000u
#define MINUS_HIGH 0x80000000u

#if GROUP == 1

/* `both`: a + sign * b, in the places of a; `pq`: p + q */
struct KERNEL(factors) {
    const float *a, *b, *both, *p, *q, *pq;
    float *real, *imaginary;
    long ai, ak, from_step, pq_step, to_step;
    float sign;
    int depth, add; /* add: to what the result holds already */
};

/* to[n] = a[n] + sign * b[n] for rows of `width` numbers, one after the other in `to`. */
INLINE void KERNEL(row_sums)(const float *a, const float *b, long step, float sign, long rows, long width, float *to)
{
    for (long r = 0; r < rows; r++, a += step, b += step, to += width)
        for (long n = 0; n < width; n++)
            to[n] = a[n] + sign * b[n];
}

INLINE V KERNEL(some)(const float *from, int lanes)
{
    if (lanes == WIDTH)
        return *(const U *)from;
    V value = {0};
    memcpy(&value, from, sizeof(float) * lanes);
    return value;
}

INLINE void KERNEL(put)(float *to, V value, int lanes, int add)
{
    if (add)
        value += KERNEL(some)(to, lanes);
    if (lanes == WIDTH)
        *(U *)to = value;
    else
        memcpy(to, &value, sizeof(float) * lanes);
}

INLINE void KERNEL(complex_tile)(int rows, int vectors, int lanes, const struct KERNEL(factors) *f, long i, long c)
{
    V first[MIXING_ROWS][MIXING_VECTORS], second[MIXING_ROWS][MIXING_VECTORS], third[MIXING_ROWS][MIXING_VECTORS];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            first[r][v] = second[r][v] = third[r][v] = (V){0};
    const long ai = f->ai, start = i * ai;
    const float *a = f->a + start, *b = f->b + start, *both = f->both + start, *p = f->p + c, *q = f->q + c, *pq = f->pq + c;
    for (int k = 0; k < f->depth; k++, a += f->ak, b += f->ak, both += f->ak) {
        V pk[MIXING_VECTORS], qk[MIXING_VECTORS], sk[MIXING_VECTORS];
        for (int v = 0; v < vectors; v++) {
            pk[v] = KERNEL(some)(p + v * WIDTH, lanes);
            qk[v] = KERNEL(some)(q + v * WIDTH, lanes);
            sk[v] = KERNEL(some)(pq + v * WIDTH, lanes);
        }
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < vectors; v++) {
                first[r][v] += pk[v] * a[r * ai];
                second[r][v] += qk[v] * b[r * ai];
                third[r][v] += sk[v] * both[r * ai];
            }
        p += f->from_step, q += f->from_step, pq += f->pq_step;
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) {
            const long place = (i + r) * f->to_step + c + v * WIDTH;
            const V turned = second[r][v] * f->sign;
            KERNEL(put)(f->real + place, first[r][v] - turned, lanes, f->add);
            KERNEL(put)(f->imaginary + place, third[r][v] - first[r][v] - turned, lanes, f->add);
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
    for (; c + MIXING_VECTORS * WIDTH <= columns; c += MIXING_VECTORS * WIDTH)
        KERNEL(complex_strip)(MIXING_VECTORS, WIDTH, rows, f, c);
    for (; c + WIDTH <= columns; c += WIDTH)
        KERNEL(complex_strip)(1, WIDTH, rows, f, c);
    if (c < columns)
        KERNEL(complex_strip)(1, (int)(columns - c), rows, f, c);
}

/* The weights of a degree as the products take them: the sums of both parts, behind them for gradients the conjugate
 * weights with outputs first, of which the sums are then. */
static void KERNEL(mixing_weights)(const struct mixing *f, const float *weight, word *sums)
{
    const long in = f->inputs, out = f->outputs;
    word *turned = sums + in * out;
    if (f->g_weight) {
        KERNEL(turn)(weight, 2 * out, turned, 2 * in, in, out, 0);
        KERNEL(turn)(weight + out, 2 * out, turned + in, 2 * in, in, out, MINUS_HIGH);
        KERNEL(row_sums)(turned, turned + in, 2 * in, 1, out, in, sums);
    } else {
        KERNEL(row_sums)(weight, weight + out, 2 * out, 1, in, out, sums);
    }
}

/* Coefficients of a degree, imaginary parts `parts` rows behind the real ones, times its weights. */
static void KERNEL(mix_degree)(const struct mixing *f, const float *c, const float *weight, word *room, float *to, long parts,
                               int valid)
{
    const long in = f->inputs, out = f->outputs;
    float *both = room + in * out;
    KERNEL(row_sums)(c, c + parts * in, in, 1, valid, in, both);
    struct KERNEL(factors) ahead = {.a = c, .b = c + parts * in, .both = both, .p = weight, .q = weight + out, .pq = room,
                                    .real = to, .imaginary = to + parts * out, .ai = in, .ak = 1, .from_step = 2 * out,
                                    .pq_step = out, .to_step = out, .sign = 1, .depth = (int)in};
    KERNEL(complex_product)(valid, out, &ahead);
}

static void KERNEL(mix_degree_back)(const struct mixing *f, const float *c, const float *g, word *room, float *g_c,
                                    float *g_weight, long parts, int valid, int add)
{
    const long in = f->inputs, out = f->outputs;
    float *turned = room + in * out, *differences = turned + 2 * in * out, *sums = differences + valid * in;
    const float *imaginary = c + parts * in, *g_imaginary = g + parts * out;
    KERNEL(row_sums)(c, imaginary, in, -1, valid, in, differences);
    KERNEL(row_sums)(g, g_imaginary, out, 1, valid, out, sums);
    struct KERNEL(factors) weights = {.a = c, .b = imaginary, .both = differences, .p = g, .q = g_imaginary, .pq = sums,
                                      .real = g_weight, .imaginary = g_weight + out, .ai = 1, .ak = in, .from_step = out,
                                      .pq_step = out, .to_step = 2 * out, .sign = -1, .depth = valid, .add = add};
    KERNEL(complex_product)((int)in, out, &weights);
    struct KERNEL(factors) back = {.a = g, .b = g_imaginary, .both = sums, .p = turned, .q = turned + in, .pq = room,
                                   .real = g_c, .imaginary = g_c + parts * in, .ai = out, .ak = 1, .from_step = 2 * in,
                                   .pq_step = in, .to_step = in, .sign = 1, .depth = (int)out};
    KERNEL(complex_product)(valid, in, &back);
}

/* As `mix_degree` for real weights, which both parts of coefficients are multiplied by; widths are whole vectors. */
static void KERNEL(mix_alike)(const struct mixing *f, const float *c, const float *weight, float *to, long parts, int valid)
{
    const long in = f->inputs, out = f->outputs;
    for (int part = 0; part < 2; part++, c += parts * in, to += parts * out)
        KERNEL(layer_product)(valid, out, (const word *)c, in, 1, (const word *)weight, out, (int)in, to, out, NULL, 0);
}

/* `turned`: the weights with outputs first. */
static void KERNEL(mix_alike_back)(const struct mixing *f, const float *c, const float *g, const word *turned, float *g_c,
                                   float *g_weight, long parts, int valid, int add)
{
    const long in = f->inputs, out = f->outputs;
    for (int part = 0; part < 2; part++, c += parts * in, g += parts * out, g_c += parts * in) {
        KERNEL(layer_product)(valid, in, (const word *)g, out, 1, turned, in, (int)out, g_c, in, NULL, 0);
        KERNEL(layer_product)((int)in, out, (const word *)c, 1, in, (const word *)g, out, valid, g_weight, out,
                              add || part ? g_weight : NULL, out);
    }
}
#else
/* A complex number is a word: (p, q) of a weight meets (a, -b) of a coefficient for the real part, (b, a) for the imaginary. */
INLINE void KERNEL(complex_words)(const float *low, const float *high, uint32_t signs, long count, word *to)
{
    for (long n = 0; n < count; n += WIDTH)
        _mm512_storeu_si512(to + n, _mm512_xor_si512(KERNEL(pairs)(low + n, high + n), _mm512_set1_epi32((int)signs)));
}

static void KERNEL(mixing_weights)(const struct mixing *f, const float *weight, word *to)
{
    const long in = f->inputs, out = f->outputs;
    word *rows = f->g_weight ? to + in * out : to;
    for (long i = 0; i < in; i++)
        KERNEL(complex_words)(weight + i * 2 * out, weight + i * 2 * out + out, 0, out, rows + i * out);
    if (f->g_weight)
        KERNEL(turn)(rows, out, to, in, in, out, 0);
}

static void KERNEL(mix_degree)(const struct mixing *f, const float *c, const float *weight, word *room, float *to,
                               long parts, int valid)
{
    const long in = f->inputs, out = f->outputs;
    word *words = room + in * out;
    const float *imaginary = c + parts * in;
    KERNEL(complex_words)(c, imaginary, MINUS_HIGH, valid * in, words);
    KERNEL(layer_product)(valid, out, words, in, 1, room, out, (int)in, to, out, NULL, 0);
    KERNEL(complex_words)(imaginary, c, 0, valid * in, words);
    KERNEL(layer_product)(valid, out, words, in, 1, room, out, (int)in, to + parts * out, out, NULL, 0);
}

static void KERNEL(mix_degree_back)(const struct mixing *f, const float *c, const float *g, word *room, float *g_c,
                                    float *g_weight, long parts, int valid, int add)
{
    const long in = f->inputs, out = f->outputs;
    word *gradient = room + in * out, *words = gradient + valid * out;
    const float *imaginary = c + parts * in, *g_imaginary = g + parts * out;
    KERNEL(complex_words)(g, g_imaginary, 0, valid * out, gradient);
    KERNEL(layer_product)(valid, in, gradient, out, 1, room, in, (int)out, g_c, in, NULL, 0);
    KERNEL(complex_words)(g_imaginary, g, MINUS_HIGH, valid * out, words);
    KERNEL(layer_product)(valid, in, words, out, 1, room, in, (int)out, g_c + parts * in, in, NULL, 0);
    KERNEL(complex_words)(c, imaginary, 0, valid * in, words);
    KERNEL(layer_product)((int)in, out, words, 1, in, gradient, out, valid, g_weight, 2 * out, add ? g_weight : NULL,
                          2 * out);
    KERNEL(complex_words)(imaginary, c, MINUS_LOW, valid * in, words);
    KERNEL(layer_product)((int)in, out, words, 1, in, gradient, out, valid, g_weight + out, 2 * out,
                          add ? g_weight + out : NULL, 2 * out);
}
#endif

static void KERNEL(mixing)(void *argument)
{
    struct mixing *f = argument;
    const long in = f->inputs, out = f->outputs;
    word *room = (word *)(f->room + f->room_size * __atomic_fetch_add(&f->threads, 1, __ATOMIC_RELAXED));
    for (;;) {
        const int degree = f->degrees - 1 - (int)__atomic_fetch_add(&f->next, 1, __ATOMIC_RELAXED);
        if (degree < 0)
            return;
        const long size = (f->real ? 1 : 2) * in * out;
        const float *weight = f->weight + degree * size;
        float *g_weight = f->g_weight ? f->g_weight + degree * size : NULL;
        if (!f->real)
            KERNEL(mixing_weights)(f, weight, room);
        else if (g_weight)
            KERNEL(turn)(weight, out, room, in, in, out, 0);
        long position = 0;
        int met = 0; /* whether a block has had the degree */
        for (int block = 0; block < f->count; block++) {
            const int start = f->blocks[2 * block], stop = f->blocks[2 * block + 1];
            const long rows = 2 * (long)(stop - start) * f->batch;
            const int q = degree & 1;
            const long even = (f->degrees + 1) / 2 - start / 2, odd = f->degrees / 2 - start / 2;
            if (degree >= start) {
                const long place = position + (q ? even : 0) * rows + (degree / 2 - start / 2) * rows;
                const long valid = (degree + 1 < stop ? degree + 1 - start : stop - start) * f->batch;
                const float *c = f->from + place * in, *g = f->to + place * out;
                float *result = g_weight ? f->g_from + place * in : f->to + place * out;
                const long columns = g_weight ? in : out;
#if GROUP == 1
                if (f->real && g_weight)
                    KERNEL(mix_alike_back)(f, c, g, room, result, g_weight, rows / 2, (int)valid, met);
                else if (f->real)
                    KERNEL(mix_alike)(f, c, weight, result, rows / 2, (int)valid);
                else
#endif
                if (g_weight)
                    KERNEL(mix_degree_back)(f, c, g, room, result, g_weight, rows / 2, (int)valid, met);
                else
                    KERNEL(mix_degree)(f, c, weight, room, result, rows / 2, (int)valid);
                memset(result + valid * columns, 0, sizeof(float) * (rows / 2 - valid) * columns);
                memset(result + (rows / 2 + valid) * columns, 0, sizeof(float) * (rows / 2 - valid) * columns);
                met = 1;
            } else if (start / 2 * 2 + q <= degree) { /* the degree just below the block's orders, stored as zeros */
                float *to = (g_weight ? f->g_from : f->to) + (position + (q ? even : 0) * rows +
                                                              (degree / 2 - start / 2) * rows) * (g_weight ? in : out);
                memset(to, 0, sizeof(float) * rows * (g_weight ? in : out));
            }
            position += (even + odd) * rows;
        }
        if (g_weight && !met)
            memset(g_weight, 0, sizeof(float) * size);
    }
}

#undef V
#undef U
#undef word
#undef INLINE
#undef MINUS_LOW
#undef MINUS_HIGH
