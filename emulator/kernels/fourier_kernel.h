/* Fourier transforms of WIDTH columns at a time, included once for every instruction set with its own KERNEL(name).
 *
 * A column is one channel of a pair of latitudes that mirror each other. Their sum and difference are the real and the
 * imaginary part of one complex sequence, whose transform gives the spectra of both. Stockham's self-sorting passes of
 * radix 2, 3, 4, 5 and 8 go between two buffers that fit the first-level cache; the lanes of a vector are columns, so that
 * no pass shuffles within vectors. */

typedef float KERNEL(vector) __attribute__((vector_size(4 * WIDTH)));
typedef float KERNEL(unaligned) __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
#define V KERNEL(vector)
#define U KERNEL(unaligned)
#define INLINE static inline __attribute__((always_inline))

INLINE V KERNEL(load)(const float *from, int lanes)
{
    if (lanes == WIDTH)
        return *(const U *)from;
    V value = {0};
    memcpy(&value, from, sizeof(float) * lanes);
    return value;
}

INLINE void KERNEL(store)(float *to, V value, int lanes)
{
    if (lanes == WIDTH)
        *(U *)to = value;
    else
        memcpy(to, &value, sizeof(float) * lanes);
}

/* y[q + s (r p + k)] = w^(k p) sum_j x[q + s (p + j n / r)] exp(-2 pi i j k / r), w = exp(-2 pi i / n). */

#define READ(j) V r##j = x[2 * (q + s * (p + (j) * m))], i##j = x[2 * (q + s * (p + (j) * m)) + 1]
#define WRITE(k, re, im)                                                                                               \
    do {                                                                                                               \
        V re_ = (re), im_ = (im);                                                                                      \
        V *to = y + 2 * (q + s * (radix * p + (k)));                                                                   \
        float c = w[2 * (k) - 2], d = w[2 * (k) - 1];                                                                  \
        to[0] = re_ * c - im_ * d;                                                                                     \
        to[1] = re_ * d + im_ * c;                                                                                     \
    } while (0)
#define WRITE_FIRST(re, im)                                                                                            \
    do {                                                                                                               \
        V *to = y + 2 * (q + s * radix * p);                                                                           \
        to[0] = (re);                                                                                                  \
        to[1] = (im);                                                                                                  \
    } while (0)

static void KERNEL(radix2)(int n, int s, const float *w, const V *x, V *y)
{
    const int radix = 2, m = n / radix;
    for (int p = 0; p < m; p++, w += 2 * (radix - 1))
        for (int q = 0; q < s; q++) {
            READ(0); READ(1);
            WRITE_FIRST(r0 + r1, i0 + i1);
            WRITE(1, r0 - r1, i0 - i1);
        }
}

static void KERNEL(radix3)(int n, int s, const float *w, const V *x, V *y)
{
    const int radix = 3, m = n / radix;
    const float h = 0.86602540378443864676f;
    for (int p = 0; p < m; p++, w += 2 * (radix - 1))
        for (int q = 0; q < s; q++) {
            READ(0); READ(1); READ(2);
            V tr = r1 + r2, ti = i1 + i2, dr = (r1 - r2) * h, di = (i1 - i2) * h;
            V mr = r0 - tr * 0.5f, mi = i0 - ti * 0.5f;
            WRITE_FIRST(r0 + tr, i0 + ti);
            WRITE(1, mr + di, mi - dr);
            WRITE(2, mr - di, mi + dr);
        }
}

static void KERNEL(radix4)(int n, int s, const float *w, const V *x, V *y)
{
    const int radix = 4, m = n / radix;
    for (int p = 0; p < m; p++, w += 2 * (radix - 1))
        for (int q = 0; q < s; q++) {
            READ(0); READ(1); READ(2); READ(3);
            V ar = r0 + r2, ai = i0 + i2, br = r0 - r2, bi = i0 - i2;
            V cr = r1 + r3, ci = i1 + i3, dr = r1 - r3, di = i1 - i3;
            WRITE_FIRST(ar + cr, ai + ci);
            WRITE(1, br + di, bi - dr);
            WRITE(2, ar - cr, ai - ci);
            WRITE(3, br - di, bi + dr);
        }
}

static void KERNEL(radix5)(int n, int s, const float *w, const V *x, V *y)
{
    const int radix = 5, m = n / radix;
    const float c1 = 0.30901699437494742410f, c2 = -0.80901699437494742410f;
    const float s1 = 0.95105651629515357212f, s2 = 0.58778525229247312917f;
    for (int p = 0; p < m; p++, w += 2 * (radix - 1))
        for (int q = 0; q < s; q++) {
            READ(0); READ(1); READ(2); READ(3); READ(4);
            V ar = r1 + r4, ai = i1 + i4, br = r2 + r3, bi = i2 + i3;
            V dr = r1 - r4, di = i1 - i4, er = r2 - r3, ei = i2 - i3;
            V fr = r0 + ar * c1 + br * c2, fi = i0 + ai * c1 + bi * c2;
            V gr = r0 + ar * c2 + br * c1, gi = i0 + ai * c2 + bi * c1;
            V ur = dr * s1 + er * s2, ui = di * s1 + ei * s2;
            V vr = dr * s2 - er * s1, vi = di * s2 - ei * s1;
            WRITE_FIRST(r0 + ar + br, i0 + ai + bi);
            WRITE(1, fr + ui, fi - ur);
            WRITE(2, gr + vi, gi - vr);
            WRITE(3, gr - vi, gi + vr);
            WRITE(4, fr - ui, fi + ur);
        }
}

static void KERNEL(radix8)(int n, int s, const float *w, const V *x, V *y)
{
    const int radix = 8, m = n / radix;
    const float h = 0.70710678118654752440f;
    for (int p = 0; p < m; p++, w += 2 * (radix - 1))
        for (int q = 0; q < s; q++) {
            READ(0); READ(2); READ(4); READ(6);
            V ar = r0 + r4, ai = i0 + i4, br = r0 - r4, bi = i0 - i4;
            V cr = r2 + r6, ci = i2 + i6, dr = r2 - r6, di = i2 - i6;
            V e0r = ar + cr, e0i = ai + ci, e2r = ar - cr, e2i = ai - ci;
            V e1r = br + di, e1i = bi - dr, e3r = br - di, e3i = bi + dr;
            READ(1); READ(3); READ(5); READ(7);
            V fr = r1 + r5, fi = i1 + i5, gr = r1 - r5, gi = i1 - i5;
            V kr = r3 + r7, ki = i3 + i7, lr = r3 - r7, li = i3 - i7;
            V o0r = fr + kr, o0i = fi + ki, o2r = fi - ki, o2i = kr - fr; /* times -i */
            V t1r = gr + li, t1i = gi - lr, t3r = gr - li, t3i = gi + lr;
            V o1r = (t1r + t1i) * h, o1i = (t1i - t1r) * h; /* times (1 - i) / sqrt 2 */
            V o3r = (t3i - t3r) * h, o3i = (t3r + t3i) * -h; /* times -(1 + i) / sqrt 2 */
            WRITE_FIRST(e0r + o0r, e0i + o0i);
            WRITE(1, e1r + o1r, e1i + o1i);
            WRITE(2, e2r + o2r, e2i + o2i);
            WRITE(3, e3r + o3r, e3i + o3i);
            WRITE(4, e0r - o0r, e0i - o0i);
            WRITE(5, e1r - o1r, e1i - o1i);
            WRITE(6, e2r - o2r, e2i - o2i);
            WRITE(7, e3r - o3r, e3i - o3i);
        }
}

/* The transform of `a`, with `b` as scratch; returns the one of the two that holds it. */
static V *KERNEL(transform)(const struct fourier *f, V *a, V *b)
{
    int n = f->longitudes, s = 1;
    const float *w = f->twiddles;
    for (const int *radix = f->radices; n > 1; radix++) {
        switch (*radix) {
        case 2: KERNEL(radix2)(n, s, w, a, b); break;
        case 3: KERNEL(radix3)(n, s, w, a, b); break;
        case 4: KERNEL(radix4)(n, s, w, a, b); break;
        case 5: KERNEL(radix5)(n, s, w, a, b); break;
        case 8: KERNEL(radix8)(n, s, w, a, b); break;
        }
        n /= *radix;
        s *= *radix;
        w += 2 * n * (*radix - 1);
        V *other = a;
        a = b;
        b = other;
    }
    return a;
}

/* Cells of `lanes` columns from `column` on to the spectra of both parities, or of the rows apart; `north` are the northern
 * cells at the first place and `south` their mirror images, NULL at the equator. */
INLINE void KERNEL(analyse)(const struct fourier *f, long column, const float *north, const float *south, int lanes,
                            V *a, V *b)
{
    const int n = f->longitudes;
    for (int j = 0; j < n; j++) {
        __builtin_prefetch(north + f->places[j] + LANES); /* the next columns: no hardware foresees steps of a page and more */
        V up = KERNEL(load)(north + f->places[j], lanes);
        if (south) {
            __builtin_prefetch(south + f->places[j] + LANES);
            V down = KERNEL(load)(south + f->places[j], lanes);
            a[2 * j] = f->apart ? up : up + down;
            a[2 * j + 1] = f->apart ? down : up - down;
        } else {
            a[2 * j] = up;
            a[2 * j + 1] = up - up;
        }
    }
    const V *z = KERNEL(transform)(f, a, b);
    const long imaginary = f->part_step;
    for (int k = 0; k < f->truncation; k++) {
        const int mirror = k ? n - k : 0;
        V zr = z[2 * k] * 0.5f, zi = z[2 * k + 1] * 0.5f, mr = z[2 * mirror] * 0.5f, mi = z[2 * mirror + 1] * 0.5f;
        const int other = f->apart ? 0 : k & 1;
        const long place = f->order_places[k] + column;
        float *even = f->spectra[other] + place, *odd = f->spectra[1 - other] + place;
        KERNEL(store)(even, zr + mr, lanes);
        KERNEL(store)(even + imaginary, zi - mi, lanes);
        if (f->apart && !south)
            continue;
        KERNEL(store)(odd, zi + mi, lanes);
        KERNEL(store)(odd + imaginary, mr - zr, lanes);
    }
}

/* The transpose of `analyse`: a backward transform is a forward one with real and imaginary parts exchanged. */
INLINE void KERNEL(synthesise)(const struct fourier *f, long column, float *north, float *south, int lanes, V *a, V *b)
{
    const int n = f->longitudes, apart = f->apart, alone = apart && !south;
    const long imaginary = f->part_step;
    const V zero = {0};
    for (int k = 0; k < f->truncation; k++) {
        const int mirror = k ? n - k : 0;
        const int other = apart ? 0 : k & 1;
        const long place = f->order_places[k] + column;
        const float *even = f->spectra[other] + place, *odd = f->spectra[1 - other] + place;
        V er = KERNEL(load)(even, lanes), ei = KERNEL(load)(even + imaginary, lanes);
        V or = alone ? zero : KERNEL(load)(odd, lanes), oi = alone ? zero : KERNEL(load)(odd + imaginary, lanes);
        if (mirror == k) {
            a[2 * k + 1] = er;
            a[2 * k] = or;
        } else {
            a[2 * k + 1] = (er - oi) * 0.5f;
            a[2 * k] = (ei + or) * 0.5f;
            a[2 * mirror + 1] = (er + oi) * 0.5f;
            a[2 * mirror] = (or - ei) * 0.5f;
        }
    }
    for (int k = f->truncation; k <= n - f->truncation; k++)
        a[2 * k] = a[2 * k + 1] = zero;
    const V *z = KERNEL(transform)(f, a, b);
    for (int j = 0; j < n; j++) {
        V even = z[2 * j + 1], odd = z[2 * j], up = south && !apart ? even + odd : even, down = apart ? odd : even - odd;
        if (f->onto) {
            up += KERNEL(load)(f->onto + (north - f->cells) + f->places[j], lanes);
            if (south)
                down += KERNEL(load)(f->onto + (south - f->cells) + f->places[j], lanes);
        }
        __builtin_prefetch(north + f->places[j] + LANES, 1);
        KERNEL(store)(north + f->places[j], up, lanes);
        if (south) {
            __builtin_prefetch(south + f->places[j] + LANES, 1);
            KERNEL(store)(south + f->places[j], down, lanes);
        }
    }
}

static void KERNEL(fourier)(void *argument)
{
    struct fourier *f = argument;
    const size_t length = 2 * (size_t)f->longitudes;
    char memory[2 * length * sizeof(V) + sizeof(V)];
    V *a = (V *)(((uintptr_t)memory + sizeof(V) - 1) / sizeof(V) * sizeof(V)), *b = a + length;
    const long channels = f->channels, equator = f->has_equator ? channels : 0, all = f->columns;
    for (;;) {
        long first = __atomic_fetch_add(&f->next, PORTION * LANES, __ATOMIC_RELAXED);
        if (first >= all)
            return;
        long last = first + PORTION * LANES < all ? first + PORTION * LANES : all;
        for (long column = first; column < last;) {
            const long row = column / channels, place = column - row * channels;
            long end = f->joined && column >= equator ? all : (row + 1) * channels;
            if (end > last)
                end = last;
            int lanes = end - column < WIDTH ? (int)(end - column) : WIDTH;
            float *north = f->cells + f->north[row] + place;
            float *south = column < equator ? NULL : f->cells + f->south[row] + place;
            if (f->backward) {
                if (lanes == WIDTH)
                    KERNEL(synthesise)(f, column, north, south, WIDTH, a, b);
                else
                    KERNEL(synthesise)(f, column, north, south, lanes, a, b);
            } else {
                if (lanes == WIDTH)
                    KERNEL(analyse)(f, column, north, south, WIDTH, a, b);
                else
                    KERNEL(analyse)(f, column, north, south, lanes, a, b);
            }
            column += lanes;
        }
    }
}

#undef V
#undef U
#undef INLINE
#undef READ
#undef WRITE
#undef WRITE_FIRST
