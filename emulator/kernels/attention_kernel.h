/* Attention within small windows, and its gradients; included once for every instruction set, after product_kernel.h and
 * mixing_kernel.h. Of a window and a head all logits lie in a thread's room, so that they never go to memory; for gradients they
 * are formed again. Channels and keys are taken in whole vectors, with zeros and exponentials of zero behind the last ones. */

#define V KERNEL(vector)
#define U KERNEL(unaligned)
#define word KERNEL(word)
#define INLINE static inline __attribute__((always_inline))
#define WIDE(n) (((n) + LANES - 1) / LANES * LANES) /* whole vectors */

/* Rows that are multiplied, or places for such: themselves where they are whole vectors, else copies with zeros behind. */
struct KERNEL(rows) {
    float *at;
    long step;
};

INLINE struct KERNEL(rows) KERNEL(rows_of)(const float *from, long step, long rows, long width, float *room)
{
    if (width % LANES == 0)
        return (struct KERNEL(rows)){(float *)from, step};
    const long wide = WIDE(width);
    for (long r = 0; r < rows; r++) {
        memcpy(room + r * wide, from + r * step, sizeof(float) * width);
        memset(room + r * wide + width, 0, sizeof(float) * (wide - width));
    }
    return (struct KERNEL(rows)){room, wide};
}

INLINE struct KERNEL(rows) KERNEL(rows_for)(float *to, long step, long width, float *room)
{
    return width % LANES == 0 ? (struct KERNEL(rows)){to, step} : (struct KERNEL(rows)){room, WIDE(width)};
}

INLINE void KERNEL(leave)(struct KERNEL(rows) made, float *to, long step, long rows, long width)
{
    if (made.at != to)
        for (long r = 0; r < rows; r++)
            memcpy(to + r * step, made.at + r * made.step, sizeof(float) * width);
}

INLINE float KERNEL(sum_of)(V x)
{
#if WIDTH == 16
    return _mm512_reduce_add_ps((__m512)x);
#else
    float sum = 0;
    for (int n = 0; n < WIDTH; n++)
        sum += x[n];
    return sum;
#endif
}

/* Rows over their lengths with zeros behind, and 1 / the lengths. */
INLINE struct KERNEL(rows) KERNEL(directions)(const float *from, long step, long rows, long width, float *room, float *over)
{
    const long wide = WIDE(width);
    for (long r = 0; r < rows; r++) {
        float *row = room + r * wide;
        V square = {0};
        memcpy(row, from + r * step, sizeof(float) * width);
        memset(row + width, 0, sizeof(float) * (wide - width));
        for (long c = 0; c < wide; c += WIDTH)
            square += *(const U *)(row + c) * *(const U *)(row + c);
        const float length = __builtin_sqrtf(KERNEL(sum_of)(square));
        over[r] = 1 / (length < 1e-12f ? 1e-12f : length);
        for (long c = 0; c < wide; c += WIDTH)
            *(U *)(row + c) *= over[r];
    }
    return (struct KERNEL(rows)){room, wide};
}

/* Gradients of rows from those of their directions, times a factor; the sum of products of directions and their gradients. */
INLINE float KERNEL(of_lengths)(struct KERNEL(rows) made, struct KERNEL(rows) directions, long rows, long wide,
                                const float *over, float factor)
{
    float sum = 0;
    for (long r = 0; r < rows; r++) {
        float *to = made.at + r * made.step;
        const float *own = directions.at + r * directions.step;
        V product = {0};
        for (long c = 0; c < wide; c += WIDTH)
            product += *(const U *)(to + c) * *(const U *)(own + c);
        const float along = KERNEL(sum_of)(product), scale = factor * over[r];
        for (long c = 0; c < wide; c += WIDTH)
            *(U *)(to + c) = (*(const U *)(to + c) - along * *(const U *)(own + c)) * scale;
        sum += along;
    }
    return sum;
}

INLINE float KERNEL(most_of)(V x)
{
#if WIDTH == 16
    return _mm512_reduce_max_ps((__m512)x);
#else
    float most = x[0];
    for (int n = 1; n < WIDTH; n++)
        most = x[n] > most ? x[n] : most;
    return most;
#endif
}

/* to[c, r] = from[r, c], zeros behind the last row; `to` has room for whole vectors of rows and columns. */
INLINE void KERNEL(turn_rows)(const float *from, long step, float *to, long rows, long columns)
{
    const long wide = WIDE(rows);
#if WIDTH == 16
    for (long r = 0; r < rows; r += LANES)
        for (long c = 0; c < columns; c += LANES) {
            const __mmask16 some = columns - c < LANES ? (__mmask16)((1 << (columns - c)) - 1) : (__mmask16)-1;
            __m512i tile[LANES];
            for (int n = 0; n < LANES; n++)
                tile[n] = _mm512_maskz_loadu_epi32(r + n < rows ? some : 0, from + (r + n < rows ? r + n : r) * step + c);
            KERNEL(turn_tile)(tile, (word *)to + c * wide + r, wide, 0);
        }
#else
    for (long c = 0; c < columns; c++)
        memset(to + c * wide + rows, 0, sizeof(float) * (wide - rows));
    KERNEL(turn)(from, step, (word *)to, wide, rows, columns, 0);
#endif
}

/* Where the tokens of a head begin in a sample of a window. */
INLINE long KERNEL(begin)(struct lattice at, long window, long sample, long head, long channels)
{
    return window * at.window + sample * at.sample + head * channels;
}

/* The logits of a head, `(query, key)`: products of queries and of keys turned, and a bias. */
INLINE void KERNEL(logits)(const struct attention *f, struct KERNEL(rows) q, struct KERNEL(rows) k, float scale,
                           float *turned, const float *bias, float *to)
{
    const long wide = WIDE(f->keys);
    KERNEL(turn_rows)(k.at, k.step, turned, f->keys, f->channels);
    for (long n = 0; n < f->channels * wide; n += WIDTH)
        *(U *)(turned + n) *= scale;
    KERNEL(layer_product)(f->queries, wide, (const word *)q.at, q.step, 1, (const word *)turned, wide, f->channels, to, wide,
                           bias, f->bias_step);
}

static void KERNEL(attention_ahead)(const struct attention *f, float *room, long window, long sample)
{
    const long queries = f->queries, keys = f->keys, channels = f->channels, wide = WIDE(keys), across = WIDE(channels);
    float *turned = room, *weights = turned + across * wide, *of_v = weights + queries * wide;
    float *results = of_v + keys * across, *over = results + queries * across;
    float *of_q = over + queries + keys, *of_k = of_q + queries * across;
    for (long head = 0; head < f->heads; head++) {
        const float *own = f->q + KERNEL(begin)(f->q_at, window, sample, head, channels);
        const float *key = f->k + KERNEL(begin)(f->k_at, window, sample, head, channels);
        const float *value = f->v + KERNEL(begin)(f->v_at, window, sample, head, channels);
        float *to = f->to + KERNEL(begin)(f->to_at, window, sample, head, channels);
        const long place = f->bias_heads > 1 ? head : 0, size = f->bias_step ? queries * wide : wide;
        const float *bias = f->bias + (window % f->biases * f->bias_heads + place) * size;
        float *kept = f->kept ? f->kept + ((window * f->samples + sample) * f->heads + head) * 2 * queries : NULL;
        const struct KERNEL(rows) v = KERNEL(rows_of)(value, f->v_at.token, keys, channels, of_v);
        const struct KERNEL(rows) made = KERNEL(rows_for)(to, f->to_at.token, channels, results);
        struct KERNEL(rows) q = {(float *)own, f->q_at.token}, k = {(float *)key, f->k_at.token};
        if (f->steepness) {
            q = KERNEL(directions)(own, q.step, queries, channels, of_q, over);
            k = KERNEL(directions)(key, k.step, keys, channels, of_k, over + queries);
        }
        KERNEL(logits)(f, q, k, f->steepness ? f->steepness[head] : (float)f->scale, turned, bias, weights);
        for (long n = 0; n < queries; n++) {
            float *row = weights + n * wide;
            V largest = *(const U *)row, sum = {0};
            for (long c = WIDTH; c < wide; c += WIDTH)
                largest = KERNEL(larger)(*(const U *)(row + c), largest);
            const float most = KERNEL(most_of)(largest);
            for (long c = 0; c < wide; c += WIDTH) {
                const V weight = KERNEL(weight_of)(most - *(const U *)(row + c));
                sum += weight;
                *(U *)(row + c) = weight;
            }
            over[n] = 1 / KERNEL(sum_of)(sum);
            if (kept)
                kept[n] = most, kept[queries + n] = over[n];
        }
        KERNEL(layer_product)((int)queries, across, (const word *)weights, wide, 1, (const word *)v.at, v.step, (int)keys,
                              made.at, made.step, NULL, 0);
        for (long n = 0; n < queries; n++)
            for (long c = 0; c < across; c += WIDTH)
                *(U *)(made.at + n * made.step + c) *= over[n];
        KERNEL(leave)(made, to, f->to_at.token, queries, channels);
    }
}

static void KERNEL(attention_back)(const struct attention *f, float *room, long window, long sample, float *sums,
                                   float *steepness_sums)
{
    const long queries = f->queries, keys = f->keys, channels = f->channels, wide = WIDE(keys), across = WIDE(channels);
    float *turned = room, *weights = turned + across * wide, *slopes = weights + queries * wide;
    float *of_q = slopes + queries * wide, *of_g = of_q + queries * across, *of_k = of_g + queries * across;
    float *results = of_k + keys * across, *over = results + (queries > keys ? queries : keys) * across;
    for (long head = 0; head < f->heads; head++) {
        const float *own = f->q + KERNEL(begin)(f->q_at, window, sample, head, channels);
        const float *key = f->k + KERNEL(begin)(f->k_at, window, sample, head, channels);
        const float *value = f->v + KERNEL(begin)(f->v_at, window, sample, head, channels);
        const float *gradient = f->gradient + KERNEL(begin)(f->to_at, window, sample, head, channels);
        float *g_q = f->g_q + KERNEL(begin)(f->g_q_at, window, sample, head, channels);
        float *g_k = f->g_k + KERNEL(begin)(f->g_k_at, window, sample, head, channels);
        float *g_v = f->g_v + KERNEL(begin)(f->g_v_at, window, sample, head, channels);
        const long place = f->bias_heads > 1 ? head : 0, size = f->bias_step ? queries * wide : wide;
        const float *bias = f->bias + (window % f->biases * f->bias_heads + place) * size;
        const float *kept = f->kept + ((window * f->samples + sample) * f->heads + head) * 2 * queries;
        const struct KERNEL(rows) q = f->steepness
            ? KERNEL(directions)(own, f->q_at.token, queries, channels, of_q, over)
            : KERNEL(rows_of)(own, f->q_at.token, queries, channels, of_q);
        const struct KERNEL(rows) g = KERNEL(rows_of)(gradient, f->to_at.token, queries, channels, of_g);
        const struct KERNEL(rows) k = f->steepness
            ? KERNEL(directions)(key, f->k_at.token, keys, channels, of_k, over + queries)
            : KERNEL(rows_of)(key, f->k_at.token, keys, channels, of_k);
        /* of directions the scale follows when their gradients are formed */
        const float steepness = f->steepness ? f->steepness[head] : (float)f->scale, scale = f->steepness ? 1 : steepness;
        KERNEL(logits)(f, q, k, steepness, turned, bias, weights);
        KERNEL(turn_rows)(value, f->v_at.token, turned, keys, channels);
        KERNEL(layer_product)((int)queries, wide, (const word *)g.at, g.step, 1, (const word *)turned, wide, (int)channels,
                              slopes, wide, NULL, 0);
        for (long n = 0; n < queries; n++) {
            float *row = weights + n * wide, *slope = slopes + n * wide;
            V sum = {0};
            for (long c = 0; c < wide; c += WIDTH) {
                const V weight = KERNEL(weight_of)(kept[n] - *(const U *)(row + c)) * kept[queries + n];
                *(U *)(row + c) = weight;
                sum += weight * *(const U *)(slope + c);
            }
            const float mean = KERNEL(sum_of)(sum);
            float *own_sums = sums ? sums + place * size + n * f->bias_step : NULL;
            for (long c = 0; c < wide; c += WIDTH) {
                const V pull = *(const U *)(row + c) * (*(const U *)(slope + c) - mean);
                if (own_sums)
                    *(U *)(own_sums + c) += pull;
                *(U *)(slope + c) = pull * scale;
            }
        }
        struct KERNEL(rows) made = KERNEL(rows_for)(g_v, f->g_v_at.token, channels, results);
        KERNEL(layer_product)((int)keys, across, (const word *)weights, 1, wide, (const word *)g.at, g.step, (int)queries,
                              made.at, made.step, NULL, 0);
        KERNEL(leave)(made, g_v, f->g_v_at.token, keys, channels);
        made = KERNEL(rows_for)(g_k, f->g_k_at.token, channels, results);
        KERNEL(layer_product)((int)keys, across, (const word *)slopes, 1, wide, (const word *)q.at, q.step, (int)queries,
                              made.at, made.step, NULL, 0);
        if (f->steepness)
            KERNEL(of_lengths)(made, k, keys, across, over + queries, steepness);
        KERNEL(leave)(made, g_k, f->g_k_at.token, keys, channels);
        made = KERNEL(rows_for)(g_q, f->g_q_at.token, channels, results);
        KERNEL(layer_product)((int)queries, across, (const word *)slopes, wide, 1, (const word *)k.at, k.step, (int)keys,
                              made.at, made.step, NULL, 0);
        if (f->steepness)
            steepness_sums[head] += KERNEL(of_lengths)(made, q, queries, across, over, steepness);
        KERNEL(leave)(made, g_q, f->g_q_at.token, queries, channels);
    }
}

static void KERNEL(attention)(void *argument)
{
    struct attention *f = argument;
    const long all = f->windows * f->samples;
    float *room = f->room + f->room_size * __atomic_fetch_add(&f->threads, 1, __ATOMIC_RELAXED);
    for (;;) {
        const long chunk = __atomic_fetch_add(&f->next, 1, __ATOMIC_RELAXED), first = chunk * f->chunk;
        if (first >= all)
            return;
        const long last = first + f->chunk < all ? first + f->chunk : all;
        float *sums = f->sums ? f->sums + chunk * f->sums_size : NULL;
        float *steepness_sums = f->steepness_sums ? f->steepness_sums + chunk * f->heads : NULL;
        if (sums)
            memset(sums, 0, sizeof(float) * f->sums_size);
        if (steepness_sums)
            memset(steepness_sums, 0, sizeof(float) * f->heads);
        if (f->few) {
            KERNEL(attention_few)(f, room, first * f->heads, last * f->heads);
            continue;
        }
        for (long n = first; n < last; n++) {
            if (f->gradient)
                KERNEL(attention_back)(f, room, n / f->samples, n % f->samples, sums, steepness_sums);
            else
                KERNEL(attention_ahead)(f, room, n / f->samples, n % f->samples);
        }
    }
}

#undef V
#undef U
#undef word
#undef INLINE
#undef WIDE
