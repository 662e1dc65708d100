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

/* Means of air, water and energy over the sphere and, cell by cell, their derivatives by surface pressure. */
static void KERNEL(columns_block)(const struct columns *f, long batch, long first, int count, double *sums)
{
    const double capacity = f->numbers[0], latent = f->numbers[1], moist = f->numbers[2], inverse = f->numbers[3];
    double ground[BLOCK], thickness[BLOCK], growth[BLOCK], area[BLOCK], orography[BLOCK];
    double amount[3][BLOCK] = {{0}}, slope[3][BLOCK] = {{0}};
    float room[6][BLOCK];
    KERNEL(padded)(f->area, first, count, area);
    KERNEL(padded)(f->orography, first, count, orography);
    KERNEL(ground)(f, batch, first, count, ground);
    for (int k = 0; k < f->levels; k++) {
        const long at = k * f->cells + first;
        const float *t = KERNEL(level)(f->temperature, batch * f->temperature_step + at, count, room[0]);
        const float *u = KERNEL(level)(f->east, batch * f->east_step + at, count, room[1]);
        const float *v = KERNEL(level)(f->north, batch * f->north_step + at, count, room[2]);
        const float *q = KERNEL(level)(f->vapour, batch * f->vapour_step + at, count, room[3]);
        const float *l = KERNEL(level)(f->liquid, batch * f->liquid_step + at, count, room[4]);
        const float *s = KERNEL(level)(f->ice, batch * f->ice_step + at, count, room[5]);
        KERNEL(layer)(f, k, ground, thickness, growth);
        ALL {
            const double water = (double)q[i] + l[i] + s[i];
            const double energy = capacity * t[i] + (latent + moist * t[i]) * q[i] +
                                  0.5 * ((double)u[i] * u[i] + (double)v[i] * v[i]) + orography[i];
            amount[0][i] += thickness[i];
            amount[1][i] += water * thickness[i];
            amount[2][i] += energy * thickness[i];
            slope[0][i] += growth[i];
            slope[1][i] += water * growth[i];
            slope[2][i] += energy * growth[i];
        }
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
    double warm[BLOCK], east[BLOCK], north[BLOCK], vapour[BLOCK], condensed[BLOCK];
    float room[6][BLOCK], slopes[2][BLOCK];
    KERNEL(padded)(f->area, first, count, area);
    KERNEL(padded)(f->orography, first, count, orography);
    KERNEL(ground)(f, batch, first, count, ground);
    const float *g_water = KERNEL(level)(f->g_slopes, (batch * 3 + 1) * f->cells + first, count, slopes[0]);
    const float *g_energy = KERNEL(level)(f->g_slopes, (batch * 3 + 2) * f->cells + first, count, slopes[1]);
    for (int k = 0; k < f->levels; k++) {
        const long at = k * f->cells + first, to = (batch * f->levels + k) * f->cells + first;
        const float *t = KERNEL(level)(f->temperature, batch * f->temperature_step + at, count, room[0]);
        const float *u = KERNEL(level)(f->east, batch * f->east_step + at, count, room[1]);
        const float *v = KERNEL(level)(f->north, batch * f->north_step + at, count, room[2]);
        const float *q = KERNEL(level)(f->vapour, batch * f->vapour_step + at, count, room[3]);
        const float *l = KERNEL(level)(f->liquid, batch * f->liquid_step + at, count, room[4]);
        const float *s = KERNEL(level)(f->ice, batch * f->ice_step + at, count, room[5]);
        KERNEL(layer)(f, k, ground, thickness, growth);
        ALL {
            const double water = (double)q[i] + l[i] + s[i];
            const double energy = capacity * t[i] + (latent + moist * t[i]) * q[i] +
                                  0.5 * ((double)u[i] * u[i] + (double)v[i] * v[i]) + orography[i];
            const double of_water = (g[1] * area[i] * thickness[i] + g_water[i] * growth[i]) * inverse;
            const double of_energy = (g[2] * area[i] * thickness[i] + g_energy[i] * growth[i]) * inverse;
            pressure[i] += (g[0] + g[1] * water + g[2] * energy) * area[i] * growth[i] * inverse;
            warm[i] = of_energy * (capacity + moist * q[i]);
            vapour[i] = of_water + of_energy * (latent + moist * t[i]);
            condensed[i] = of_water;
            east[i] = of_energy * u[i];
            north[i] = of_energy * v[i];
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
    for (;;) {
        const long number = __atomic_fetch_add(&f->next, 1, __ATOMIC_RELAXED);
        if (number >= f->batch * blocks)
            return;
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

/* A block of a control's level with its increment, and the size that its variance is a multiple of, 0 on its bound. */
INLINE void KERNEL(moved)(const struct trial *f, int control, long batch, int k, int levels, long first, int count,
                          const float *along, float *value, float *size, float *squares, float *bound)
{
    typedef int bits __attribute__((may_alias));
    const long cells = f->columns->cells, at = k * cells + first;
    float room[2][BLOCK], result[BLOCK];
    const float *x = KERNEL(level)(f->x[control], batch * f->step[control] + at, count, room[0]);
    const float *pattern = KERNEL(level)(f->pattern[control], at, count, room[1]);
    const float variance = (float)f->variance[control][batch * levels + k];
    const float everywhere = (float)(variance * f->totals[batch * (CONTROLS + 3) + control]);
    if (f->relative[control])
        ALL size[i] = f->bounded[control] ? (x[i] > 0 ? x[i] : 0) : __builtin_fabsf(x[i]);
    else
        ALL size[i] = 1;
    ALL {
        const bits exponent = ((const bits *)x)[i] & 0x7f800000;
        float unit;
        memcpy(&unit, &exponent, sizeof unit);
        result[i] = x[i] + ((everywhere + variance * along[i]) * size[i] + unit * pattern[i]);
    }
    memcpy(f->to[control] + (batch * levels + k) * cells + first, result, sizeof(float) * count);
    memcpy(value, result, sizeof result);
    if (f->bounded[control])
        ALL {
            const int free = !(result[i] < 0);
            value[i] = free ? result[i] : 0;
            size[i] = free ? size[i] : 0;
            bound[i] += free ? 0 : 1;
        }
    ALL squares[i] += (value[i] - x[i]) * (value[i] - x[i]);
}

/* The controls for given multipliers, the amounts of what results, and the sums of which a Newton step consists. */
static void KERNEL(trial_block)(const struct trial *f, long batch, long first, int count, double *sums)
{
    static const float none[BLOCK];
    const struct columns *c = f->columns;
    const double capacity = c->numbers[0], latent = c->numbers[1], inverse = c->numbers[3];
    double ground[BLOCK], thickness[BLOCK], growth[BLOCK], area[BLOCK], orography[BLOCK], sum[BLOCK];
    float along[BLOCK], pressure[BLOCK], spread[BLOCK], temperature[BLOCK], vapour[BLOCK], size[BLOCK];
    double amount[3][BLOCK] = {{0}}, slope[3][BLOCK] = {{0}}, weights[2][BLOCK] = {{0}};
    float squares[CONTROLS][BLOCK] = {{0}}, bound[CONTROLS][BLOCK] = {{0}};
    float room[5][BLOCK], slopes[3][BLOCK];
    const float *linear[3];
    KERNEL(padded)(c->area, first, count, area);
    KERNEL(padded)(c->orography, first, count, orography);
    if (f->x[0]) {
        const double *to = f->totals + batch * (CONTROLS + 3) + CONTROLS;
        for (int n = 0; n < 3; n++)
            linear[n] = KERNEL(level)(f->slopes, (batch * 3 + n) * c->cells + first, count, slopes[n]);
        ALL along[i] = (float)(to[0] * linear[0][i] + to[1] * linear[1][i] + to[2] * linear[2][i]);
        KERNEL(moved)(f, 0, batch, 0, 1, first, count, along, pressure, spread, squares[0], bound[0]);
        ALL ground[i] = pressure[i];
    } else {
        KERNEL(ground)(c, batch, first, count, ground);
    }
    for (int k = 0; k < c->levels; k++) {
        const long at = k * c->cells + first;
        const float *u = KERNEL(level)(c->east, batch * c->east_step + at, count, room[0]);
        const float *v = KERNEL(level)(c->north, batch * c->north_step + at, count, room[1]);
        const float *l = KERNEL(level)(c->liquid, batch * c->liquid_step + at, count, room[2]);
        const float *s = KERNEL(level)(c->ice, batch * c->ice_step + at, count, room[3]);
        KERNEL(layer)(c, k, ground, thickness, growth);
        if (f->x[1]) {
            KERNEL(moved)(f, 1, batch, k, c->levels, first, count, none, temperature, size, squares[1], bound[1]);
            const double variance = f->variance[1][batch * c->levels + k];
            ALL weights[0][i] += variance * size[i] * thickness[i];
        } else {
            const float *t = KERNEL(level)(c->temperature, batch * c->temperature_step + at, count, room[4]);
            ALL temperature[i] = t[i];
        }
        if (f->x[2]) {
            KERNEL(moved)(f, 2, batch, k, c->levels, first, count, none, vapour, size, squares[2], bound[2]);
            const double variance = f->variance[2][batch * c->levels + k];
            ALL weights[1][i] += variance * size[i] * thickness[i];
        } else {
            const float *q = KERNEL(level)(c->vapour, batch * c->vapour_step + at, count, room[4]);
            ALL vapour[i] = q[i];
        }
        ALL {
            const double water = (double)vapour[i] + l[i] + s[i];
            const double energy = capacity * temperature[i] + latent * vapour[i] +
                                  0.5 * ((double)u[i] * u[i] + (double)v[i] * v[i]) + orography[i];
            amount[0][i] += thickness[i];
            amount[1][i] += water * thickness[i];
            amount[2][i] += energy * thickness[i];
            slope[0][i] += growth[i];
            slope[1][i] += water * growth[i];
            slope[2][i] += energy * growth[i];
        }
    }
    memset(sums, 0, sizeof(double) * TRIAL);
    for (int n = 0; n < 3; n++)
        sums[n] = KERNEL(over)(amount[n], area) * inverse;
    for (int n = 0; n < 2; n++)
        sums[3 + n] = KERNEL(over)(weights[n], area);
    for (int n = 0; n < 2; n++)
        if (f->x[3 + n]) {
            KERNEL(moved)(f, 3 + n, batch, 0, 1, first, count, none, vapour, size, squares[3 + n], bound[3 + n]);
            sums[5 + n] = f->variance[3 + n][batch] * KERNEL(over)(KERNEL(wide)(size, sum), area);
            sums[7 + n] = KERNEL(over)(KERNEL(wide)(vapour, sum), area);
        }
    for (int n = 0; n < CONTROLS; n++) {
        sums[18 + n] = KERNEL(over)(KERNEL(wide)(squares[n], sum), area);
        sums[18 + CONTROLS + n] = KERNEL(over)(KERNEL(wide)(bound[n], sum), area);
    }
    for (int n = 0; f->x[0] && n < 3; n++) {
        ALL sum[i] = f->variance[0][batch] * spread[i] * area[i] * linear[n][i] * inverse;
        for (int m = 0; m < 3; m++)
            sums[9 + 3 * m + n] = KERNEL(over)(slope[m], sum);
    }
}

static void KERNEL(trial)(void *argument)
{
    struct trial *f = argument;
    const long cells = f->columns->cells, blocks = (cells + BLOCK - 1) / BLOCK;
    for (;;) {
        const long number = __atomic_fetch_add(&f->next, 1, __ATOMIC_RELAXED);
        if (number >= f->columns->batch * blocks)
            return;
        const long batch = number / blocks, first = number % blocks * BLOCK;
        const int count = cells - first < BLOCK ? (int)(cells - first) : BLOCK;
        KERNEL(trial_block)(f, batch, first, count, f->sums + number * TRIAL);
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
    for (;;) {
        const long number = __atomic_fetch_add(&f->next, 1, __ATOMIC_RELAXED);
        if (number >= f->batch * blocks)
            return;
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

#undef INLINE
#undef ALL
