/* Attention of few queries to few keys, as a Perceiver has it, and its gradients; included once for every instruction set,
 * before attention_kernel.h. Vectors along the keys would be nearly empty; here every lane is a head of a window. LANES of these
 * are turned to `(token, channel, lane)` and go together; their weights are formed again for gradients. */

#define V KERNEL(vector)
#define U KERNEL(unaligned)
#define word KERNEL(word)
#define INLINE static inline __attribute__((always_inline))
#define WIDE(n) (((n) + LANES - 1) / LANES * LANES) /* whole vectors */

/* Where the tokens of the heads from `first` on begin, the last one again and again where there are fewer. */
INLINE void KERNEL(find_lanes)(const struct attention *f, struct lattice at, long first, int count, long *lanes)
{
    for (int n = 0; n < LANES; n++) {
        const long pair = first + (n < count ? n : count - 1), place = pair / f->heads;
        lanes[n] = place / f->samples * at.window + place % f->samples * at.sample + pair % f->heads * f->channels;
    }
}

static void KERNEL(take_lanes)(const struct attention *f, const float *from, struct lattice at, long tokens, long first, int count,
                               float *to)
{
    const long channels = f->channels;
    long lanes[LANES];
    KERNEL(find_lanes)(f, at, first, count, lanes);
    for (long t = 0; t < tokens; t++, from += at.token)
        for (long c = 0; c < channels; c += LANES, to += LANES * LANES) {
            const int some = channels - c < LANES ? (int)(channels - c) : LANES;
#if WIDTH == 16
            __m512i tile[LANES];
            for (int n = 0; n < LANES; n++)
                tile[n] = _mm512_maskz_loadu_epi32((__mmask16)((1 << some) - 1), from + lanes[n] + c);
            KERNEL(turn_tile)(tile, (word *)to, LANES, 0);
#else
            for (int i = 0; i < some; i++)
                for (int n = 0; n < LANES; n++)
                    to[i * LANES + n] = from[lanes[n] + c + i];
#endif
        }
}

static void KERNEL(leave_lanes)(const struct attention *f, const float *from, struct lattice at, long tokens, long first,
                                int count, float *to)
{
    const long channels = f->channels;
    long lanes[LANES];
    KERNEL(find_lanes)(f, at, first, count, lanes);
    for (long t = 0; t < tokens; t++, to += at.token)
        for (long c = 0; c < channels; c += LANES, from += LANES * LANES) {
            const int some = channels - c < LANES ? (int)(channels - c) : LANES;
#if WIDTH == 16
            __m512i tile[LANES];
            float turned[LANES * LANES];
            for (int n = 0; n < LANES; n++)
                tile[n] = _mm512_loadu_si512(from + n * LANES);
            KERNEL(turn_tile)(tile, (word *)turned, LANES, 0);
            for (int n = 0; n < count; n++)
                _mm512_mask_storeu_ps(to + lanes[n] + c, (__mmask16)((1 << some) - 1), _mm512_loadu_ps(turned + n * LANES));
#else
            for (int i = 0; i < some; i++)
                for (int n = 0; n < count; n++)
                    to[lanes[n] + c + i] = from[i * LANES + n];
#endif
        }
}

/* to[k] = sum_c row[c] others[k, c] for `count` of them at a time */
INLINE void KERNEL(few_products_tile)(int count, const float *row, const float *others, long channels, float *to)
{
    V sum[4];
    for (int k = 0; k < count; k++)
        sum[k] = (V){0};
    for (long c = 0; c < channels; c++)
        for (int k = 0; k < count; k++)
            sum[k] += *(const U *)(row + c * LANES) * *(const U *)(others + (k * WIDE(channels) + c) * LANES);
    for (int k = 0; k < count; k++)
        *(U *)(to + k * LANES) = sum[k];
}

INLINE void KERNEL(few_products)(const float *row, const float *others, long count, long channels, float *to)
{
    const long step = WIDE(channels) * LANES;
    long k = 0;
    for (; k + 4 <= count; k += 4)
        KERNEL(few_products_tile)(4, row, others + k * step, channels, to + k * LANES);
    for (; k + 2 <= count; k += 2)
        KERNEL(few_products_tile)(2, row, others + k * step, channels, to + k * LANES);
    if (k < count)
        KERNEL(few_products_tile)(1, row, others + k * step, channels, to + k * LANES);
}

/* to[c] = sum_k weights[k step] others[k, c] */
INLINE void KERNEL(few_sums)(const float *weights, long step, const float *others, long count, long channels, float *to)
{
    for (long c = 0; c < channels; c++) {
        V sum = {0};
        for (long k = 0; k < count; k++)
            sum += *(const U *)(weights + k * step * LANES) * *(const U *)(others + (k * WIDE(channels) + c) * LANES);
        *(U *)(to + c * LANES) = sum;
    }
}

INLINE void KERNEL(few_weights)(const struct attention *f, const float *query, const float *keys, float *weights)
{
    const float scale = (float)f->scale;
    V largest = {0}, sum = {0};
    KERNEL(few_products)(query, keys, f->keys, f->channels, weights);
    for (long k = 0; k < f->keys; k++) {
        const V logit = *(const U *)(weights + k * LANES) * scale + f->bias[k];
        largest = k ? KERNEL(larger)(logit, largest) : logit;
        *(U *)(weights + k * LANES) = logit;
    }
    for (long k = 0; k < f->keys; k++) {
        const V weight = KERNEL(weight_of)(largest - *(const U *)(weights + k * LANES));
        sum += weight;
        *(U *)(weights + k * LANES) = weight;
    }
    for (long k = 0; k < f->keys; k++)
        *(U *)(weights + k * LANES) /= sum;
}

/* The heads of windows from `first` to `last`. */
static void KERNEL(attention_few)(const struct attention *f, float *room, long first, long last)
{
    const long queries = f->queries, keys = f->keys, channels = f->channels, row = WIDE(channels) * LANES;
    float *q = room, *k = q + queries * row, *v = k + keys * row, *result = v + keys * row; /* result: or its gradient */
    float *weights = result + queries * row, *slopes = weights + queries * keys * LANES;
    float *g_q = slopes + queries * keys * LANES, *g_k = g_q + queries * row, *g_v = g_k + keys * row;
    for (; first < last; first += LANES) {
        const int count = last - first < LANES ? (int)(last - first) : LANES;
        KERNEL(take_lanes)(f, f->q, f->q_at, queries, first, count, q);
        KERNEL(take_lanes)(f, f->k, f->k_at, keys, first, count, k);
        KERNEL(take_lanes)(f, f->v, f->v_at, keys, first, count, v);
        if (f->gradient)
            KERNEL(take_lanes)(f, f->gradient, f->to_at, queries, first, count, result);
        for (long l = 0; l < LANES; l += WIDTH) {
            for (long n = 0; n < queries; n++) {
                float *weight = weights + n * keys * LANES + l, *slope = slopes + n * keys * LANES + l;
                V mean = {0};
                KERNEL(few_weights)(f, q + n * row + l, k + l, weight);
                if (!f->gradient) {
                    KERNEL(few_sums)(weight, 1, v + l, keys, channels, result + n * row + l);
                    continue;
                }
                KERNEL(few_products)(result + n * row + l, v + l, keys, channels, slope);
                for (long i = 0; i < keys; i++)
                    mean += *(const U *)(weight + i * LANES) * *(const U *)(slope + i * LANES);
                for (long i = 0; i < keys; i++) {
                    const V pull = *(const U *)(weight + i * LANES) * (*(const U *)(slope + i * LANES) - mean);
                    *(U *)(slope + i * LANES) = pull * (float)f->scale;
                }
                KERNEL(few_sums)(slope, 1, k + l, keys, channels, g_q + n * row + l);
            }
            for (long i = 0; f->gradient && i < keys; i++) {
                KERNEL(few_sums)(slopes + i * LANES + l, keys, q + l, queries, channels, g_k + i * row + l);
                KERNEL(few_sums)(weights + i * LANES + l, keys, result + l, queries, channels, g_v + i * row + l);
            }
        }
        if (!f->gradient) {
            KERNEL(leave_lanes)(f, result, f->to_at, queries, first, count, f->to);
            continue;
        }
        KERNEL(leave_lanes)(f, g_q, f->g_q_at, queries, first, count, f->g_q);
        KERNEL(leave_lanes)(f, g_k, f->g_k_at, keys, first, count, f->g_k);
        KERNEL(leave_lanes)(f, g_v, f->g_v_at, keys, first, count, f->g_v);
    }
}

#undef V
#undef U
#undef word
#undef INLINE
#undef WIDE
