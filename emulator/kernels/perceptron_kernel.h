/* One or two linear layers with GELU between them, row by row, and their gradients; included once for every instruction set
 * and precision of the products. Rows of what is multiplied lie in tiles of TILE rows, which the caches hold from the first
 * layer to the last. */

#define V KERNEL(vector)
#define U KERNEL(unaligned)
#define word KERNEL(word)
#define INLINE static inline __attribute__((always_inline))
#define WIDE(n) (((n) + LANES - 1) / LANES * LANES) /* whole vectors */
#define WORDS(n) (((n) + GROUP - 1) / GROUP)

/* Rows as words along them; `wide` in whole vectors. */
INLINE const word *KERNEL(along_rows)(const float *from, long wide, word *room)
{
#if GROUP == 2
    for (long n = 0; n < TILE * wide; n += 2 * WIDTH) {
        const __m512bh both = _mm512_cvtne2ps_pbh((__m512) * (const U *)(from + n + WIDTH), (__m512) * (const U *)(from + n));
        memcpy(room + n / 2, &both, sizeof both);
    }
    return room;
#else
    return from;
#endif
}

/* Rows as words down the columns: two rows in one for pairs. `columns` in whole vectors. */
INLINE const word *KERNEL(down_columns)(const float *from, long columns, word *room)
{
#if GROUP == 2
    for (int r = 0; r < TILE; r += 2)
        for (long n = 0; n < columns; n += WIDTH)
            _mm512_storeu_si512(room + r / 2 * columns + n,
                                KERNEL(pairs)(from + r * columns + n, from + (r + 1) * columns + n));
    return room;
#else
    return from;
#endif
}

/* Whether a tile's rows lie in memory as the products take them: in whole vectors, none left out. */
INLINE int KERNEL(ready)(long width, int count)
{
    return width % LANES == 0 && count == TILE;
}

/* The cells that a tile takes in, `(TILE, taps * inputs)` in whole vectors; zeros where there are none. */
INLINE const float *KERNEL(take_in)(const struct perceptron *f, long first, int count, float *room)
{
    if (!f->source && !f->besides && KERNEL(ready)(f->inputs, count))
        return f->x + first * f->inputs;
    const long wide = WIDE(f->taps * f->inputs + f->more);
    for (int r = 0; r < TILE; r++) {
        float *row = room + r * wide;
        const long item = (first + r) / f->batch, sample = (first + r) % f->batch;
        for (int tap = 0; tap < f->taps; tap++, row += f->inputs) {
            const long source = r >= count ? -1 : f->source ? f->source[tap * f->items + item] : item;
            if (source < 0)
                memset(row, 0, sizeof(float) * f->inputs);
            else
                memcpy(row, f->x + (source * f->batch + sample) * f->inputs, sizeof(float) * f->inputs);
        }
        if (f->besides && r < count)
            memcpy(row, f->besides + (first + r) * f->more, sizeof(float) * f->more);
        else
            memset(row, 0, sizeof(float) * f->more);
        row += f->more;
        memset(row, 0, sizeof(float) * (wide - (long)f->taps * f->inputs - f->more));
    }
    return room;
}

/* A tile's rows of what is stored row by row. */
INLINE const float *KERNEL(get_rows)(const float *from, long width, long first, int count, float *room)
{
    if (KERNEL(ready)(width, count))
        return from + first * width;
    const long wide = WIDE(width);
    memset(room, 0, sizeof(float) * TILE * wide);
    for (int r = 0; r < count; r++)
        memcpy(room + r * wide, from + (first + r) * width, sizeof(float) * width);
    return room;
}

/* Where a tile's rows can be formed: where they belong, or in a room from which `put_rows` takes them there. */
INLINE float *KERNEL(place)(const struct perceptron *f, float *to, long width, long first, int count, float *room)
{
    return KERNEL(ready)(width, count) && !f->target && !f->add ? to + first * width : room;
}

INLINE void KERNEL(put_rows)(const struct perceptron *f, const float *from, float *to, long width, long first, int count)
{
    if (KERNEL(place)(f, to, width, first, count, NULL) == from)
        return;
    for (int r = 0; r < count; r++) {
        const long item = (first + r) / f->batch, place = f->target ? f->target[item] : item;
        float *row = to + (place * f->batch + (first + r) % f->batch) * width;
        if (f->add)
            for (long n = 0; n < width; n++)
                row[n] += from[r * WIDE(width) + n];
        else
            memcpy(row, from + r * WIDE(width), sizeof(float) * width);
    }
}

static void KERNEL(perceptron_ahead)(const struct perceptron *f, float *room, long first, int count)
{
    const int depth = f->taps * f->inputs + f->more;
    const long deep = WIDE(depth), middle = WIDE(f->hidden), wide = WIDE(f->outputs);
    float *more = room + TILE * deep, *others = more + TILE * middle;
    word *words = (word *)(others + TILE * wide);
    const word *a = KERNEL(along_rows)(KERNEL(take_in)(f, first, count, room), deep, words);
    float *out = KERNEL(place)(f, f->to, f->outputs, first, count, others);
    const float *start = f->second ? f->second_bias : f->first_bias;
    if (f->residual) {
        for (int r = 0; r < count; r++) {
            const float *row = f->residual + (f->alike ? (first + r) / f->batch : first + r) * f->outputs;
            if (start)
                for (long n = 0; n < f->outputs; n++)
                    out[r * wide + n] = row[n] + start[n];
            else
                memcpy(out + r * wide, row, sizeof(float) * f->outputs);
        }
        start = out;
    }
    const long step = f->residual ? wide : 0;
    if (!f->second) {
        KERNEL(layer_product)(TILE, wide, a, WORDS(deep), 1, f->first, wide, WORDS(depth), out, wide, start, step);
    } else {
        float *hidden = f->before ? KERNEL(place)(f, f->before, f->hidden, first, count, more) : more;
        KERNEL(layer_product)(TILE, middle, a, WORDS(deep), 1, f->first, middle, WORDS(depth), hidden, middle, f->first_bias, 0);
        if (f->before)
            KERNEL(put_rows)(f, hidden, f->before, f->hidden, first, count);
        for (long n = 0; n < TILE * middle; n += WIDTH)
            *(U *)(more + n) = KERNEL(gelu_value)(*(const U *)(hidden + n));
        a = KERNEL(along_rows)(more, middle, words);
        KERNEL(layer_product)(TILE, wide, a, WORDS(middle), 1, f->second, wide, WORDS(f->hidden), out, wide, start, step);
    }
    if (f->activate)
        for (long n = 0; n < TILE * wide; n += WIDTH)
            *(U *)(out + n) = KERNEL(gelu_value)(*(const U *)(out + n));
    KERNEL(put_rows)(f, out, f->to, f->outputs, first, count);
}

INLINE void KERNEL(column_sums)(const float *from, long wide, float *to)
{
    for (long n = 0; n < wide; n += WIDTH) {
        V sum = *(const U *)(to + n);
        for (int r = 0; r < TILE; r++)
            sum += *(const U *)(from + r * wide + n);
        *(U *)(to + n) = sum;
    }
}

/* `sums`: first weights `(taps * inputs, hidden)`, their bias, second weights `(hidden, outputs)`, their bias. */
static void KERNEL(perceptron_back)(const struct perceptron *f, float *room, long first, int count, float *sums)
{
    const int depth = f->taps * f->inputs, width = f->second ? f->hidden : f->outputs;
    const long deep = WIDE(depth), middle = WIDE(width), wide = WIDE(f->outputs);
    float *hidden = room + TILE * deep, *slopes = hidden + TILE * middle, *more = slopes + TILE * middle;
    word *words = (word *)(more + TILE * wide), *others = words + TILE * (deep > middle ? deep : middle);
    float *first_bias = sums + deep * middle, *second = first_bias + middle, *second_bias = second + middle * wide;
    const float *g = KERNEL(get_rows)(f->gradient, f->outputs, first, count, more), *gradient = g;
    const word *a, *b;
    if (f->second) {
        a = KERNEL(along_rows)(g, wide, words);
        KERNEL(layer_product)(TILE, middle, a, WORDS(wide), 1, f->second, middle, WORDS(f->outputs), slopes, middle, NULL, 0);
        const float *before = KERNEL(get_rows)(f->before, f->hidden, first, count, hidden);
        for (long n = 0; n < TILE * middle; n += WIDTH) {
            V value, slope = KERNEL(gelu_slope)(*(const U *)(before + n), &value);
            *(U *)(hidden + n) = value;
            *(U *)(slopes + n) *= slope;
        }
        gradient = slopes;
        a = KERNEL(down_columns)(hidden, middle, words);
        b = KERNEL(down_columns)(g, wide, others);
        KERNEL(layer_product)(f->hidden, wide, a, 1, middle, b, wide, WORDS(TILE), second, wide, second, wide);
        KERNEL(column_sums)(g, wide, second_bias);
    }
    a = KERNEL(down_columns)(KERNEL(take_in)(f, first, count, room), deep, words);
    b = KERNEL(down_columns)(gradient, middle, others);
    KERNEL(layer_product)(depth, middle, a, 1, deep, b, middle, WORDS(TILE), sums, middle, sums, middle);
    KERNEL(column_sums)(gradient, middle, first_bias);
    if (f->g_before)
        KERNEL(put_rows)(f, gradient, f->g_before, width, first, count);
    if (!f->to)
        return;
    float *to = KERNEL(place)(f, f->to, f->inputs, first, count, room);
    a = KERNEL(along_rows)(gradient, middle, words);
    KERNEL(layer_product)(TILE, deep, a, WORDS(middle), 1, f->first, deep, WORDS(width), to, deep, NULL, 0);
    KERNEL(put_rows)(f, to, f->to, f->inputs, first, count);
}

static void KERNEL(perceptron)(void *argument)
{
    struct perceptron *f = argument;
    const long rows = f->items * f->batch;
    float *room = f->room + f->room_size * __atomic_fetch_add(&f->threads, 1, __ATOMIC_RELAXED);
    for (;;) {
        const long chunk = __atomic_fetch_add(&f->next, 1, __ATOMIC_RELAXED), first = chunk * f->chunk;
        if (first >= rows)
            return;
        const long last = first + f->chunk < rows ? first + f->chunk : rows;
        float *sums = f->sums + chunk * f->sums_size;
        if (f->gradient)
            memset(sums, 0, sizeof(float) * f->sums_size);
        for (long n = first; n < last; n += TILE) {
            const int count = last - n < TILE ? (int)(last - n) : TILE;
            if (f->gradient)
                KERNEL(perceptron_back)(f, room, n, count, sums);
            else
                KERNEL(perceptron_ahead)(f, room, n, count);
        }
    }
}

/* A matrix `(taps, depth, width)` of any steps as words, `(WORDS(taps * depth), width)` in whole vectors. */
static void KERNEL(pack)(const float *from, long tap, long down, long across, long taps, long depth, long width,
                         word *to)
{
    const long wide = WIDE(width);
#if GROUP == 1
    if (down == 1 && width == wide) { /* rows are columns: turned in registers */
        for (long t = 0; t < taps; t++)
            KERNEL(turn)(from + t * tap, across, to + t * depth * wide, wide, width, depth, 0);
        return;
    }
    if (across == 1) {
        for (long k = 0; k < taps * depth; k++) {
            memcpy(to + k * wide, from + k / depth * tap + k % depth * down, sizeof(float) * width);
            memset(to + k * wide + width, 0, sizeof(float) * (wide - width));
        }
        return;
    }
#endif
    for (long k = 0; k < WORDS(taps * depth); k++)
        for (long n = 0; n < wide; n++) {
            float part[GROUP];
            for (int g = 0; g < GROUP; g++) {
                const long at = k * GROUP + g;
                part[g] = n < width && at < taps * depth ? from[at / depth * tap + at % depth * down + n * across] : 0;
            }
#if GROUP == 2
            to[k * wide + n] = (word)KERNEL(pair)(part[0], part[1]);
#else
            to[k * wide + n] = part[0];
#endif
        }
}

#undef V
#undef U
#undef word
#undef INLINE
#undef WIDE
#undef WORDS
