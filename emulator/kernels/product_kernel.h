/* Matrix products of words: floats, or with GROUP 2 pairs of bfloat16 numbers that follow each other along the sum, which is
 * formed in float32. Included once for every instruction set and precision. */

typedef float KERNEL(vector) __attribute__((vector_size(4 * WIDTH)));
typedef float KERNEL(unaligned) __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef int KERNEL(whole) __attribute__((vector_size(4 * WIDTH)));
#define V KERNEL(vector)
#define U KERNEL(unaligned)
#define W KERNEL(whole)
#define INLINE static inline __attribute__((always_inline))
#if GROUP == 2
#define MULTIPLY_ADD(sum, b, a) (V) _mm512_dpbf16_ps((__m512)(sum), (__m512bh)(b), (__m512bh)_mm512_set1_epi32(a))
typedef int KERNEL(word) __attribute__((may_alias));
#define B W
#else
#define MULTIPLY_ADD(sum, b, a) (sum) + (b) * (a)
typedef float KERNEL(word) __attribute__((may_alias));
#define B V
#endif
#define word KERNEL(word)

/* Tiles of few vectors have twice the rows: a sum waits for its last addition, so that many have to be under way. */

/* c[r, n] = start[r, n] + sum_k a[r ai + k ak] b[k, n]: start is what c holds already, a bias with a step of 0, or NULL. */
INLINE void KERNEL(layer_product_tile)(int rows, int vectors, const word *a, long ai, long ak, const word *b, long b_step,
                                       int depth, float *c, long c_step, const float *start, long start_step)
{
    V sum[2 * ROWS][VECTORS];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            sum[r][v] = start ? (V) * (const U *)(start + r * start_step + v * WIDTH) : (V){0};
    for (int k = 0; k < depth; k++, a += ak, b += b_step) {
        B bk[VECTORS];
        for (int v = 0; v < vectors; v++)
            memcpy(&bk[v], b + v * WIDTH, sizeof(B));
        for (int r = 0; r < rows; r++) {
            const word ar = a[r * ai];
            for (int v = 0; v < vectors; v++)
                sum[r][v] = MULTIPLY_ADD(sum[r][v], bk[v], ar);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            *(U *)(c + r * c_step + v * WIDTH) = sum[r][v];
}

INLINE void KERNEL(layer_product_strip)(int vectors, int rows, const word *a, long ai, long ak, const word *b, long b_step,
                                        int depth, float *c, long c_step, const float *start, long start_step)
{
    int r = 0;
    for (; 2 * vectors <= VECTORS && r + 2 * ROWS <= rows; r += 2 * ROWS)
        KERNEL(layer_product_tile)(2 * ROWS, vectors, a + r * ai, ai, ak, b, b_step, depth, c + r * c_step, c_step,
                                   start ? start + r * start_step : NULL, start_step);
    for (; r + ROWS <= rows; r += ROWS)
        KERNEL(layer_product_tile)(ROWS, vectors, a + r * ai, ai, ak, b, b_step, depth, c + r * c_step, c_step,
                                   start ? start + r * start_step : NULL, start_step);
    for (; r < rows; r++)
        KERNEL(layer_product_tile)(1, vectors, a + r * ai, ai, ak, b, b_step, depth, c + r * c_step, c_step,
                                   start ? start + r * start_step : NULL, start_step);
}

/* Columns in whole vectors. */
static void KERNEL(layer_product)(int rows, long columns, const word *a, long ai, long ak, const word *b, long b_step,
                                  int depth, float *c, long c_step, const float *start, long start_step)
{
    long n = 0;
    for (; n + VECTORS * WIDTH <= columns; n += VECTORS * WIDTH)
        KERNEL(layer_product_strip)(VECTORS, rows, a, ai, ak, b + n, b_step, depth, c + n, c_step,
                                    start ? start + n : NULL, start_step);
    for (; VECTORS > 2 && n + 2 * WIDTH <= columns; n += 2 * WIDTH)
        KERNEL(layer_product_strip)(2, rows, a, ai, ak, b + n, b_step, depth, c + n, c_step, start ? start + n : NULL,
                                    start_step);
    for (; n < columns; n += WIDTH)
        KERNEL(layer_product_strip)(1, rows, a, ai, ak, b + n, b_step, depth, c + n, c_step, start ? start + n : NULL,
                                    start_step);
}

#if GROUP == 2
INLINE uint32_t KERNEL(rounded)(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return x == x ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : 0x7fc0; /* to nearest, ties to even */
}

INLINE uint32_t KERNEL(pair)(float low, float high)
{
    return KERNEL(rounded)(low) | KERNEL(rounded)(high) << 16;
}

/* Words of the numbers of two vectors. */
INLINE __m512i KERNEL(pairs)(const float *low, const float *high)
{
    const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(high), _mm512_loadu_ps(low));
    const __m512i first = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(both));
    const __m512i second = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(both, 1));
    return _mm512_or_si512(first, _mm512_slli_epi32(second, 16));
}
#endif

#undef V
#undef U
#undef W
#undef B
#undef word
#undef INLINE
#undef MULTIPLY_ADD
