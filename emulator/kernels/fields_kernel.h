/* What a step does to whole maps before and after its network, in one pass each; included once for every instruction set. */

/* Normalised maps of several fields behind one another. */
static void KERNEL(normalise)(void *argument)
{
    struct normalise *f = argument;
    for (;;) {
        const long row = __atomic_fetch_add(&f->next, 1, __ATOMIC_RELAXED);
        if (row >= f->batch * f->all)
            return;
        long channel = row % f->all;
        int n = 0;
        for (; channel >= f->channels[n]; n++)
            channel -= f->channels[n];
        const float *restrict x = f->from[n] + row / f->all * f->step[n] + channel * f->cells;
        float *restrict to = f->to + row * f->cells;
        if (!f->mean[n]) {
            memcpy(to, x, sizeof(float) * f->cells);
            continue;
        }
        const float mean = f->mean[n][channel], std = f->std[n][channel], most = __FLT_MAX__;
        for (long k = 0; k < f->cells; k++)
            to[k] = (x[k] - mean) / std;
        if (f->gaps[n])
            for (long k = 0; k < f->cells; k++) {
                const float y = to[k] == to[k] ? to[k] : 0;
                to[k] = y > most ? most : y < -most ? -most : y;
            }
    }
}

/* Fields at the end of a step, within their bounds, and diagnostics, from normalised changes and diagnostics. */
static void KERNEL(finish)(void *argument)
{
    struct finish *f = argument;
    const long all = f->prognostic + f->diagnosed, cells = f->cells;
    for (;;) {
        const long row = __atomic_fetch_add(&f->next, 1, __ATOMIC_RELAXED);
        if (row >= f->batch * all)
            return;
        const long batch = row / all, channel = row % all, d = channel - f->prognostic;
        const float *restrict y = f->predicted + row * cells;
        if (d >= 0) {
            const float mean = f->mean[d], std = f->std[d];
            float *restrict to = f->diagnostic + (batch * f->diagnosed + d) * cells;
            for (long k = 0; k < cells; k++)
                to[k] = y[k] * std + mean;
            continue;
        }
        const float *restrict x = f->state + batch * f->state_step + channel * cells;
        const float *restrict rest = f->resting + channel * cells, *restrict least = f->lower + channel * cells;
        const float *restrict most = f->upper + channel * cells;
        const float damping = f->damping[channel], change = f->change[channel];
        float *restrict to = f->following + (batch * f->prognostic + channel) * cells;
        for (long k = 0; k < cells; k++) {
            float value = x[k] + (damping * (rest[k] - x[k]) + change * y[k]);
            value = value < least[k] ? least[k] : value; /* a NaN stays */
            to[k] = value > most[k] ? most[k] : value;
        }
    }
}
