/* Column integrals over the sphere, included once for every instruction set. Cells are taken in blocks, whose sums are kept
 * apart: neither the number of threads nor the rest of the batch changes a bit. All arithmetic is in double. */

#define INLINE static inline __attribute__((always_inline))
#define ALL for (int i = 0; i < BLOCK; i++)

/* A block of a field's level, or zeros where there is no such field; `room` takes what is shorter than a block. */
INLINE const float *KERNEL(level)(const float *field, long offset, int count, float *room)
{
    static const float zeros[BLOCK];
    if (!field)
        return zeros;
    if (count == BLOCK)
        return field + offset;
    memset(room, 0, sizeof(float) * BLOCK);
    return memcpy(room, field + offset, sizeof(float) * count);
}

/* Pressure at the ground in a block. A cell behind the last one has a level's worth of air and no area. */
INLINE void KERNEL(ground)(const struct columns *f, long batch, long first, int count, double *ground)
{
    float room[BLOCK];
    const float *pressure = KERNEL(level)(f->pressure, batch * f->pressure_step + first, count, room);
    ALL ground[i] = pressure[i];
}

/* Thickness of a layer and its derivative by the pressure at the ground. */
INLINE void KERNEL(layer)(const struct columns *f, int k, const double *ground, double *thickness, double *growth)
{
    const double a = f->half_a[k + 1] - f->half_a[k], b = f->half_b[k + 1] - f->half_b[k], top = f->half_a[0];
    if (!f->cut) {
        ALL thickness[i] = a + b * ground[i];
        ALL growth[i] = b;
        return;
    }
    /* Layers end at the ground, and the lowest one reaches down to it. A NaN passes. */
    const double above = f->half_a[k], below = k + 1 < f->levels ? f->half_a[k + 1] : __builtin_inf();
    ALL {
        const double p = ground[i] < top ? top : ground[i];
        const double lower = p > below ? below : p, upper = p > above ? above : p;
        thickness[i] = lower - upper;
        growth[i] = ground[i] > top && ground[i] >= above && ground[i] < below ? 1.0 : 0.0;
    }
}

/* Sum of `x` times the block's areas. */
INLINE double KERNEL(over)(const double *x, const double *area)
{
    double lanes[8] = {0};
    for (int i = 0; i < BLOCK; i += 8)
        for (int j = 0; j < 8; j++)
            lanes[j] += x[i + j] * area[i + j];
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

INLINE const double *KERNEL(wide)(const float *from, double *to)
{
    ALL to[i] = from[i];
    return to;
}

INLINE void KERNEL(padded)(const double *from, long first, int count, double *to)
{
    memset(to, 0, sizeof(double) * BLOCK);
    memcpy(to, from + first, sizeof(double) * count);
}

INLINE void KERNEL(narrow)(float *to, long offset, int count, const double *values)
{
    if (to)
        for (int i = 0; i < count; i++)
            to[offset + i] = (float)values[i];
}

/* Air, water and energy of a column, or their derivatives, with one more layer. */
INLINE void KERNEL(accumulate)(const double *layer, const double *water, const double *energy, double (*amount)[BLOCK])
{
    ALL {
        amount[0][i] += layer[i];
        amount[1][i] += water[i] * layer[i];
        amount[2][i] += energy[i] * layer[i];
    }
}

/* One level of a block: temperature, winds, humidity, liquid and ice. */
struct KERNEL(cells) {
    const float *t, *u, *v, *q, *l, *s;
    float room[6][BLOCK];
};

INLINE void KERNEL(gather)(const struct columns *f, long batch, int k, long first, int count, struct KERNEL(cells) *x)
{
    const long at = k * f->cells + first;
    x->t = KERNEL(level)(f->temperature, batch * f->temperature_step + at, count, x->room[0]);
    x->u = KERNEL(level)(f->east, batch * f->east_step + at, count, x->room[1]);
    x->v = KERNEL(level)(f->north, batch * f->north_step + at, count, x->room[2]);
    x->q = KERNEL(level)(f->vapour, batch * f->vapour_step + at, count, x->room[3]);
    x->l = KERNEL(level)(f->liquid, batch * f->liquid_step + at, count, x->room[4]);
    x->s = KERNEL(level)(f->ice, batch * f->ice_step + at, count, x->room[5]);
}

/* Water and energy of a kilogram of air. */
INLINE void KERNEL(contents)(const struct columns *f, const struct KERNEL(cells) *x, const double *orography,
                             double *water, double *energy)
{
    const double capacity = f->numbers[0], latent = f->numbers[1], moist = f->numbers[2];
    ALL {
        const double t = x->t[i], u = x->u[i], v = x->v[i], q = x->q[i];
        water[i] = q + x->l[i] + x->s[i];
        energy[i] = capacity * t + (latent + moist * t) * q + 0.5 * (u * u + v * v) + orography[i];
    }
}

/* Means of air, water and energy over the sphere and, cell by cell, their derivatives by surface pressure. */
static void KERNEL(columns_block)(const struct columns *f, long batch, long first, int count, double *sums)
{
    const double inverse = f->numbers[3];
    double ground[BLOCK], thickness[BLOCK], growth[BLOCK], area[BLOCK], orography[BLOCK];
    double water[BLOCK], energy[BLOCK], amount[3][BLOCK] = {{0}}, slope[3][BLOCK] = {{0}};
    struct KERNEL(cells) x;
    KERNEL(padded)(f->area, first, count, area);
    KERNEL(padded)(f->orography, first, count, orography);
    KERNEL(ground)(f, batch, first, count, ground);
    for (int k = 0; k < f->levels; k++) {
        KERNEL(gather)(f, batch, k, first, count, &x);
        KERNEL(layer)(f, k, ground, thickness, growth);
        KERNEL(contents)(f, &x, orography, water, energy);
        KERNEL(accumulate)(thickness, water, energy, amount);
        KERNEL(accumulate)(growth, water, energy, slope);
    }
    for (int n = 0; n < 3; n++) {
        sums[n] = KERNEL(over)(amount[n], area) * inverse;
        ALL slope[n][i] *= inverse;
        KERNEL(narrow)(f->slopes, (batch * 3 + n) * f->cells + first, count, slope[n]);
    }
}

/* Gradients of all fields for those of the means and of the derivatives by surface pressure, which are linear in them. */
static void KERNEL(columns_back)(const struct columns *f, long batch, long first, int count)
{
    const double capacity = f->numbers[0], latent = f->numbers[1], moist = f->numbers[2], inverse = f->numbers[3];
    const double *g = f->g_sums + 3 * batch;
    double ground[BLOCK], thickness[BLOCK], growth[BLOCK], area[BLOCK], orography[BLOCK], pressure[BLOCK] = {0};
    double water[BLOCK], energy[BLOCK], warm[BLOCK], east[BLOCK], north[BLOCK], vapour[BLOCK], condensed[BLOCK];
    float slopes[2][BLOCK];
    struct KERNEL(cells) x;
    KERNEL(padded)(f->area, first, count, area);
    KERNEL(padded)(f->orography, first, count, orography);
    KERNEL(ground)(f, batch, first, count, ground);
    const float *g_water = KERNEL(level)(f->g_slopes, (batch * 3 + 1) * f->cells + first, count, slopes[0]);
    const float *g_energy = KERNEL(level)(f->g_slopes, (batch * 3 + 2) * f->cells + first, count, slopes[1]);
    for (int k = 0; k < f->levels; k++) {
        const long to = (batch * f->levels + k) * f->cells + first;
        KERNEL(gather)(f, batch, k, first, count, &x);
        KERNEL(layer)(f, k, ground, thickness, growth);
        KERNEL(contents)(f, &x, orography, water, energy);
        ALL {
            const double of_water = (g[1] * area[i] * thickness[i] + g_water[i] * growth[i]) * inverse;
            const double of_energy = (g[2] * area[i] * thickness[i] + g_energy[i] * growth[i]) * inverse;
            pressure[i] += (g[0] + g[1] * water[i] + g[2] * energy[i]) * area[i] * growth[i] * inverse;
            warm[i] = of_energy * (capacity + moist * x.q[i]);
            vapour[i] = of_water + of_energy * (latent + moist * x.t[i]);
            condensed[i] = of_water;
            east[i] = of_energy * x.u[i];
            north[i] = of_energy * x.v[i];
        }
        KERNEL(narrow)(f->g_temperature, to, count, warm);
        KERNEL(narrow)(f->g_vapour, to, count, vapour);
        KERNEL(narrow)(f->g_condensed, to, count, condensed);
        KERNEL(narrow)(f->g_east, to, count, east);
        KERNEL(narrow)(f->g_north, to, count, north);
    }
    KERNEL(narrow)(f->g_pressure, batch * f->cells + first, count, pressure);
}

/* Means of a field, or of 1, times the thickness of its layers, level by level, where another field is not negative. */
static void KERNEL(layers_block)(const struct columns *f, long batch, long first, int count, double *sums)
{
    double ground[BLOCK], thickness[BLOCK], growth[BLOCK], area[BLOCK];
    float room[BLOCK];
    KERNEL(padded)(f->area, first, count, area);
    KERNEL(ground)(f, batch, first, count, ground);
    for (int k = 0; k < f->levels; k++) {
        KERNEL(layer)(f, k, ground, thickness, growth);
        if (f->ice) {
            const long at = batch * f->ice_step + k * f->cells + first;
            const float *where = KERNEL(level)(f->ice, at, count, room);
            ALL thickness[i] = where[i] >= 0 ? thickness[i] : 0;
        }
        if (f->vapour) {
            const long at = batch * f->vapour_step + k * f->cells + first;
            const float *x = KERNEL(level)(f->vapour, at, count, room);
            ALL thickness[i] *= x[i];
        }
        sums[k] = KERNEL(over)(thickness, area);
    }
}

static void KERNEL(columns)(void *argument)
{
    struct columns *f = argument;
    const long blocks = (f->cells + BLOCK - 1) / BLOCK;
    const long mine = seat(&f->blocks);
    for (long number; (number = take(&f->blocks, mine, f->batch * blocks)) >= 0;) {
        const long batch = number / blocks, first = number % blocks * BLOCK;
        const int count = f->cells - first < BLOCK ? (int)(f->cells - first) : BLOCK;
        if (f->g_sums)
            KERNEL(columns_back)(f, batch, first, count);
        else if (f->by_layer)
            KERNEL(layers_block)(f, batch, first, count, f->sums + number * f->levels);
        else
            KERNEL(columns_block)(f, batch, first, count, f->sums + number * 3);
    }
}

/* One level of one member at a time: `x + increment` with the pattern's share of a unit in the last place. */
static void KERNEL(dither)(void *argument)
{
    typedef int bits __attribute__((may_alias));
    struct dither *f = argument;
    for (;;) {
        const long number = __atomic_fetch_add(&f->next, 1, __ATOMIC_RELAXED);
        if (number >= f->batch * f->levels)
            return;
        const long batch = number / f->levels, level = number % f->levels;
        const float *x = f->x + batch * f->x_step + level * f->cells, *pattern = f->pattern + level * f->cells;
        const float *increment = f->increment + batch * f->increment_step + level * f->increment_level;
        float *to = f->to + number * f->cells;
        if (f->everywhere) {
            for (long n = 0; n < f->cells; n++) {
                const bits unit = ((const bits *)x)[n] & 0x7f800000;
                float size;
                memcpy(&size, &unit, sizeof size);
                to[n] = x[n] + (increment[0] + size * pattern[n]);
            }
        } else {
            for (long n = 0; n < f->cells; n++) {
                const bits unit = ((const bits *)x)[n] & 0x7f800000;
                float size;
                memcpy(&size, &unit, sizeof size);
                to[n] = x[n] + (increment[n] + size * pattern[n]);
            }
        }
    }
}

/* Mean square of `x - y` over the sphere, the sum over levels, block by block. */
static void KERNEL(departure)(void *argument)
{
    struct departure *f = argument;
    const long blocks = (f->cells + BLOCK - 1) / BLOCK;
    const long mine = seat(&f->blocks);
    for (long number; (number = take(&f->blocks, mine, f->batch * blocks)) >= 0;) {
        const long batch = number / blocks, first = number % blocks * BLOCK;
        const int count = f->cells - first < BLOCK ? (int)(f->cells - first) : BLOCK;
        double squares[BLOCK] = {0}, area[BLOCK];
        float room[2][BLOCK];
        KERNEL(padded)(f->area, first, count, area);
        for (int k = 0; k < f->levels; k++) {
            const float *x = KERNEL(level)(f->x, batch * f->x_step + k * f->cells + first, count, room[0]);
            const float *y = KERNEL(level)(f->y, batch * f->y_step + k * f->cells + first, count, room[1]);
            ALL {
                const double d = (double)x[i] - y[i];
                squares[i] += d * d;
            }
        }
        f->sums[number] = KERNEL(over)(squares, area);
    }
}

