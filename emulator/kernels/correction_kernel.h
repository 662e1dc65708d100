/* Controls that are moved along a few directions, what they then amount to, and the gradients of both, after
 * `columns_kernel.h` and in its blocks. Over 300 lines, since a move and its gradient share the control and its block. */

/* A block of a control's level after its move. */
struct KERNEL(control) {
    float value[BLOCK];
    float size[BLOCK];  /* what its variance is per unit of; 0 where it is held at a bound */
    float slope[BLOCK]; /* derivative of the value by the field, the variance being fixed */
    float grown[BLOCK]; /* derivative of the size by the field, held or not */
};

/* A control's variance, which is the weight of a sum of its sizes. */
INLINE double KERNEL(variance)(const struct correction *f, int control, long batch, int k)
{
    const int levels = f->columns->levels, first = MEASURED + (2 * control - 1) * levels;
    const double *weights = f->weights + batch * (MEASURED + 4 * levels);
    return weights[control == 0 ? PRESSED : control < 3 ? first + k : RAIN_SIZE + control - 3];
}

/* `value = x + (total + along) variance size + uniform`, rounded with a share of a unit in the last place that the
 * place in the field tells (`emulator/conservation/rounding.py`). */
INLINE void KERNEL(move)(const struct correction *f, int control, long batch, int k, int levels, long first, int count,
                         const float *along, int slopes, struct KERNEL(control) *to, float *squares, float *bound)
{
    typedef int bits __attribute__((may_alias));
    const long at = k * f->columns->cells + first;
    const int relative = f->relative[control], clipped = f->bounded[control] == FIRST;
    const int held = f->bounded[control] == AFTER;
    const double *totals = f->totals + batch * TOTALS;
    const float variance = (float)KERNEL(variance)(f, control, batch, k);
    const float everywhere = (float)(variance * totals[control]);
    const float uniform = control < 3 ? 0 : (float)totals[UNIFORM + control - 3];
    float room[BLOCK], from[BLOCK];
    const float *x = KERNEL(level)(f->x[control], batch * f->step[control] + at, count, room);
    const uint32_t place = (uint32_t)at;
    ALL from[i] = clipped && x[i] < 0 ? 0 : x[i];
    if (relative == SIZED)
        ALL to->size[i] = held ? (x[i] > 0 ? x[i] : 0) : __builtin_fabsf(x[i]);
    else
        ALL to->size[i] = relative ? from[i] : 1;
    ALL {
        const bits exponent = ((const bits *)from)[i] & 0x7f800000;
        const float pattern = (float)(int32_t)((place + (uint32_t)i + 1) * PATTERN_STEP) * PATTERN_SIZE;
        float unit;
        memcpy(&unit, &exponent, sizeof unit);
        to->value[i] = from[i] + ((everywhere + variance * along[i]) * to->size[i] + (uniform + unit * pattern));
    }
    if (slopes)
        ALL {
            const int above = x[i] > 0;
            to->grown[i] = !relative ? 0 : clipped || held ? above : relative == SIZED && x[i] < 0 ? -1 : 1;
            to->slope[i] = (clipped && !above ? 0 : 1) + (everywhere + variance * along[i]) * to->grown[i];
        }
    if (held)
        ALL {
            const int free = !(to->value[i] < 0);
            if (slopes)
                to->slope[i] = to->value[i] > 0 ? to->slope[i] : 0;
            to->value[i] = free ? to->value[i] : 0;
            to->size[i] = free ? to->size[i] : 0;
            bound[i] += free ? 0 : 1;
        }
    if (clipped)
        ALL bound[i] += x[i] < 0;
    ALL squares[i] += (to->value[i] - x[i]) * (to->value[i] - x[i]);
    if (f->to[control] && !f->start)
        memcpy(f->to[control] + (batch * levels + k) * f->columns->cells + first, to->value, sizeof(float) * count);
}

/* The derivatives by surface pressure at which the problem was made linear; zeros before they are known. */
INLINE void KERNEL(linear)(const struct correction *f, long batch, long first, int count, float (*room)[BLOCK],
                           const float **linear)
{
    for (int n = 0; n < 3; n++)
        linear[n] = KERNEL(level)(f->slopes, (batch * 3 + n) * f->columns->cells + first, count, room[n]);
}

/* What surface pressure is moved by along its derivatives, per unit of variance and size. */
INLINE void KERNEL(pressed)(const struct correction *f, long batch, const float **linear, float *along)
{
    const double *to = f->totals + batch * TOTALS + ALONG;
    ALL along[i] = (float)(to[0] * linear[0][i] + to[1] * linear[1][i] + to[2] * linear[2][i]);
}

/* Temperature and humidity of a level after their moves, with the winds. */
INLINE void KERNEL(state)(const struct correction *f, long batch, int k, long first, int count, int slopes,
                          struct KERNEL(control) *warm, struct KERNEL(control) *vapour, float (*squares)[BLOCK],
                          float (*bound)[BLOCK], struct KERNEL(cells) *cells)
{
    static const float none[BLOCK];
    const int levels = f->columns->levels;
    KERNEL(gather)(f->columns, batch, k, first, count, cells);
    KERNEL(move)(f, 1, batch, k, levels, first, count, none, slopes, warm, squares[1], bound[1]);
    KERNEL(move)(f, 2, batch, k, levels, first, count, none, slopes, vapour, squares[2], bound[2]);
    cells->t = warm->value;
    cells->q = vapour->value;
}

/* Means of a control's size on a level and of that times the layer's thickness, for what they are needed. */
INLINE void KERNEL(sizes)(const struct correction *f, int control, long batch, int k, const struct KERNEL(control) *x,
                          const double *thickness, const double *area, double *sums)
{
    double sum[BLOCK];
    const int moves = KERNEL(variance)(f, control, batch, k) != 0;
    sums[0] = sums[f->columns->levels] = 0;
    if (moves && f->relative[control])
        sums[0] = KERNEL(over)(KERNEL(wide)(x->size, sum), area);
    if (moves) {
        ALL sum[i] = x->size[i] * thickness[i];
        sums[f->columns->levels] = KERNEL(over)(sum, area);
    }
}

/* The latent heat flux after a change of evaporation: the square of its own change. */
INLINE double KERNEL(heated)(const struct correction *f, long batch, long first, int count, const float *evaporation,
                             const double *area)
{
    double square[BLOCK];
    float room[2][BLOCK], to[BLOCK];
    const float *heat = KERNEL(level)(f->heat, batch * f->heat_step + first, count, room[0]);
    const float *before = KERNEL(level)(f->x[4], batch * f->step[4] + first, count, room[1]);
    const float latent = (float)f->columns->numbers[1];
    ALL to[i] = heat[i] + latent * (evaporation[i] - before[i]);
    ALL square[i] = ((double)to[i] - heat[i]) * ((double)to[i] - heat[i]);
    if (!f->start)
        memcpy(f->to_heat + batch * f->columns->cells + first, to, sizeof(float) * count);
    return KERNEL(over)(square, area);
}

/* The controls for given totals, the amounts of what results, and the sums that a Newton step consists of. */
static void KERNEL(trial_block)(const struct correction *f, long batch, long first, int count, double *sums)
{
    static const float none[BLOCK];
    const struct columns *c = f->columns;
    const int levels = c->levels;
    const double inverse = c->numbers[3];
    double ground[BLOCK], thickness[BLOCK], growth[BLOCK], area[BLOCK], orography[BLOCK], sum[BLOCK], lost[BLOCK] = {0};
    double water[BLOCK], energy[BLOCK], amount[3][BLOCK] = {{0}}, slope[3][BLOCK] = {{0}};
    float along[BLOCK], squares[CONTROLS][BLOCK] = {{0}}, bound[CONTROLS][BLOCK] = {{0}}, room[3][BLOCK];
    struct KERNEL(control) pressure, warm, vapour, flux;
    struct KERNEL(cells) cells;
    const float *linear[3];
    KERNEL(padded)(c->area, first, count, area);
    KERNEL(padded)(c->orography, first, count, orography);
    if (f->start) {
        memset(along, 0, sizeof along);
    } else {
        KERNEL(linear)(f, batch, first, count, room, linear);
        KERNEL(pressed)(f, batch, linear, along);
    }
    KERNEL(move)(f, 0, batch, 0, 1, first, count, along, 0, &pressure, squares[0], bound[0]);
    ALL ground[i] = pressure.value[i];
    for (int k = 0; k < levels; k++) {
        KERNEL(layer)(c, k, ground, thickness, growth);
        KERNEL(state)(f, batch, k, first, count, 0, &warm, &vapour, squares, bound, &cells);
        KERNEL(contents)(c, &cells, orography, water, energy);
        KERNEL(accumulate)(thickness, water, energy, amount);
        KERNEL(accumulate)(growth, water, energy, slope);
        if (f->start) {
            const float *x = KERNEL(level)(f->x[2], batch * f->step[2] + k * c->cells + first, count, room[0]);
            ALL lost[i] += ((double)x[i] - vapour.value[i]) * thickness[i];
        }
        KERNEL(sizes)(f, 1, batch, k, &warm, thickness, area, sums + MEASURED + k);
        KERNEL(sizes)(f, 2, batch, k, &vapour, thickness, area, sums + MEASURED + 2 * levels + k);
    }
    for (int n = 0; n < 3; n++) {
        sums[n] = KERNEL(over)(amount[n], area) * inverse;
        ALL slope[n][i] *= inverse;
        if (f->start)
            KERNEL(narrow)(f->slopes, (batch * 3 + n) * c->cells + first, count, slope[n]);
    }
    sums[CLIPPED_HUMIDITY] = KERNEL(over)(lost, area) * inverse;
    for (int n = 3; n < CONTROLS; n++) {
        KERNEL(move)(f, n, batch, 0, 1, first, count, none, 0, &flux, squares[n], bound[n]);
        sums[n] = KERNEL(over)(KERNEL(wide)(flux.value, sum), area);
        sums[RAIN_SIZE + n - 3] = KERNEL(over)(KERNEL(wide)(flux.size, sum), area);
        if (n == 3) {
            const float *x = KERNEL(level)(f->x[n], batch * f->step[n] + first, count, room[0]);
            ALL sum[i] = (double)x[i] - flux.value[i];
            sums[CLIPPED_RAIN] = KERNEL(over)(sum, area);
        }
    }
    sums[HEATED] = f->to_heat ? KERNEL(heated)(f, batch, first, count, flux.value, area) : 0;
    memset(sum, 0, sizeof sum);
    for (int n = 0; f->start && n < FLUXES; n++) {
        const float *x = KERNEL(level)(f->flux[n], batch * f->flux_step[n] + first, count, room[0]);
        ALL sum[i] += f->sign[n] * (double)x[i];
    }
    sums[GAIN] = KERNEL(over)(sum, area);
    sums[PRESSURE_SIZE] = KERNEL(over)(KERNEL(wide)(pressure.size, sum), area);
    for (int n = 0; n < CONTROLS; n++) {
        sums[SQUARES + n] = KERNEL(over)(KERNEL(wide)(squares[n], sum), area);
        sums[ON_BOUND + n] = KERNEL(over)(KERNEL(wide)(bound[n], sum), area);
    }
    memset(sums + PRESSED, 0, sizeof(double) * (RAIN_SIZE - PRESSED));
    KERNEL(linear)(f, batch, first, count, room, linear);
    for (int m = 0; KERNEL(variance)(f, 0, batch, 0) != 0 && m < 3; m++) {
        ALL slope[m][i] *= pressure.size[i];
        sums[PRESSED + m] = KERNEL(over)(slope[m], area);
        for (int n = 0; n < 3; n++) {
            ALL sum[i] = slope[m][i] * linear[n][i];
            sums[PRESSED_ALONG + 3 * m + n] = KERNEL(over)(sum, area);
        }
    }
}

/* Sum of the products of two rows. */
INLINE double KERNEL(inner)(const float *x, const float *y)
{
    double wide[2][BLOCK];
    return KERNEL(over)(KERNEL(wide)(x, wide[0]), KERNEL(wide)(y, wide[1]));
}

/* Derivatives of a scalar by the totals, by level, from its gradients by the moved controls: `(TOTALS, levels)`-like sums. */
static void KERNEL(pull_block)(const struct correction *f, long batch, long first, int count, double *sums)
{
    static const float none[BLOCK];
    const struct columns *c = f->columns;
    float along[BLOCK], squares[BLOCK] = {0}, bound[BLOCK] = {0}, room[3][BLOCK], mine[BLOCK], one[BLOCK];
    struct KERNEL(control) moved;
    const float *linear[3];
    ALL one[i] = 1;
    KERNEL(linear)(f, batch, first, count, room, linear);
    KERNEL(pressed)(f, batch, linear, along);
    for (int n = 0; n < CONTROLS; n++) {
        const int levels = n == 1 || n == 2 ? c->levels : 1;
        for (int k = 0; k < levels; k++) {
            const long at = batch * f->g_step[n] + k * c->cells + first;
            const float *g = KERNEL(level)(f->g_to[n], at, count, mine);
            KERNEL(move)(f, n, batch, k, levels, first, count, n ? none : along, 0, &moved, squares, bound);
            const double sized = KERNEL(inner)(g, moved.size);
            if (levels > 1 || n == 1 || n == 2) {
                sums[PULLED + (n - 1) * c->levels + k] = sized;
                continue;
            }
            sums[n == 0 ? PULLED_PRESSURE : PULLED_RAIN + 2 * (n - 3)] = sized;
            if (n > 0) {
                sums[PULLED_RAIN_UNIFORM + 2 * (n - 3)] = KERNEL(inner)(g, one);
                continue;
            }
            ALL moved.size[i] *= g[i];
            for (int m = 0; m < 3; m++)
                sums[PULLED_ALONG + m] = KERNEL(inner)(moved.size, linear[m]);
        }
    }
}

/* Gradients of the predicted fields, for those of the moved controls and of the amounts that these make up. */
static void KERNEL(push_block)(const struct correction *f, long batch, long first, int count)
{
    static const float none[BLOCK];
    const struct columns *c = f->columns;
    const int levels = c->levels;
    const double capacity = c->numbers[0], latent = c->numbers[1], inverse = c->numbers[3];
    const double *g = f->g_sums + CONTROLS * batch, *to = f->totals + batch * TOTALS + ALONG;
    double ground[BLOCK], base[BLOCK], thickness[BLOCK], growth[BLOCK], of_base[2][BLOCK];
    double area[BLOCK], orography[BLOCK], water[BLOCK], energy[BLOCK], sum[BLOCK] = {0}, east[BLOCK], north[BLOCK];
    float along[BLOCK], squares[CONTROLS][BLOCK] = {{0}}, bound[CONTROLS][BLOCK] = {{0}}, room[3][BLOCK], mine[BLOCK];
    struct KERNEL(control) pressure, warm, vapour, flux;
    struct KERNEL(cells) cells;
    const float *linear[3], *x;
    const double variance = KERNEL(variance)(f, 0, batch, 0), *means = f->means + batch * (3 + 2 * levels);
    KERNEL(padded)(c->area, first, count, area);
    KERNEL(padded)(c->orography, first, count, orography);
    KERNEL(linear)(f, batch, first, count, room, linear);
    KERNEL(pressed)(f, batch, linear, along);
    KERNEL(move)(f, 0, batch, 0, 1, first, count, along, 1, &pressure, squares[0], bound[0]);
    KERNEL(ground)(c, batch, first, count, base);
    ALL ground[i] = pressure.value[i];
    for (int k = 0; k < levels; k++) {
        KERNEL(layer)(c, k, ground, thickness, growth);
        KERNEL(state)(f, batch, k, first, count, 0, &warm, &vapour, squares, bound, &cells);
        KERNEL(contents)(c, &cells, orography, water, energy);
        ALL sum[i] += (g[0] + g[1] * water[i] + g[2] * energy[i]) * area[i] * growth[i] * inverse;
    }
    x = KERNEL(level)(f->g_to[0], batch * f->g_step[0] + first, count, mine);
    ALL {
        const double h = x[i] + sum[i], along_slopes = h * pressure.size[i] * variance;
        of_base[0][i] = along_slopes * to[1];
        of_base[1][i] = along_slopes * to[2];
        sum[i] = h * pressure.slope[i] + means[0] * area[i] * pressure.grown[i];
    }
    KERNEL(narrow)(f->g_x[0], batch * c->cells + first, count, sum);
    for (int k = 0; k < levels; k++) {
        const long at = (batch * levels + k) * c->cells + first;
        double of_water[BLOCK], of_energy[BLOCK];
        KERNEL(state)(f, batch, k, first, count, 1, &warm, &vapour, squares, bound, &cells);
        KERNEL(layer)(c, k, ground, thickness, growth);
        ALL of_water[i] = g[1] * area[i] * thickness[i] * inverse;
        ALL of_energy[i] = g[2] * area[i] * thickness[i] * inverse;
        KERNEL(layer)(c, k, base, thickness, growth);
        ALL water[i] = of_base[0][i] * growth[i] * inverse;
        ALL energy[i] = of_base[1][i] * growth[i] * inverse;
        ALL east[i] = (of_energy[i] + energy[i]) * cells.u[i];
        ALL north[i] = (of_energy[i] + energy[i]) * cells.v[i];
        KERNEL(narrow)(f->g_east, at, count, east);
        KERNEL(narrow)(f->g_north, at, count, north);
        x = KERNEL(level)(f->g_to[1], batch * f->g_step[1] + k * c->cells + first, count, mine);
        double shared = means[3 + k];
        ALL sum[i] = (x[i] + of_energy[i] * capacity) * warm.slope[i] + shared * area[i] * warm.grown[i] +
                     energy[i] * capacity;
        KERNEL(narrow)(f->g_x[1], at, count, sum);
        x = KERNEL(level)(f->g_to[2], batch * f->g_step[2] + k * c->cells + first, count, mine);
        const float *q = KERNEL(level)(f->x[2], batch * f->step[2] + k * c->cells + first, count, room[0]);
        shared = means[3 + levels + k];
        ALL sum[i] = (x[i] + of_water[i] + of_energy[i] * latent) * vapour.slope[i] +
                     shared * area[i] * vapour.grown[i] + (q[i] > 0 ? water[i] + energy[i] * latent : 0);
        KERNEL(narrow)(f->g_x[2], at, count, sum);
    }
    for (int n = 3; n < CONTROLS; n++) {
        KERNEL(move)(f, n, batch, 0, 1, first, count, none, 1, &flux, squares[n], bound[n]);
        x = KERNEL(level)(f->g_to[n], batch * f->g_step[n] + first, count, mine);
        ALL sum[i] = (x[i] + g[n] * area[i]) * flux.slope[i] + means[n - 2] * area[i] * flux.grown[i];
        KERNEL(narrow)(f->g_x[n], batch * c->cells + first, count, sum);
    }
}

static void KERNEL(correction)(void *argument)
{
    struct correction *f = argument;
    const struct columns *c = f->columns;
    const long blocks = (c->cells + BLOCK - 1) / BLOCK;
    const long mine = seat(&f->blocks);
    for (long number; (number = take(&f->blocks, mine, c->batch * blocks)) >= 0;) {
        const long batch = number / blocks, first = number % blocks * BLOCK;
        const int count = c->cells - first < BLOCK ? (int)(c->cells - first) : BLOCK;
        if (f->g_sums)
            KERNEL(push_block)(f, batch, first, count);
        else if (f->pull)
            KERNEL(pull_block)(f, batch, first, count, f->sums + number * (PULLED + 2 * c->levels));
        else
            KERNEL(trial_block)(f, batch, first, count, f->sums + number * (MEASURED + 4 * c->levels));
    }
}

#undef INLINE
#undef ALL
