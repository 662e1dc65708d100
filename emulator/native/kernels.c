/* The two steps of the spherical transform, the mixing of channels between them, two gradients and the column integrals of
 * budgets, on float32, for `emulator/native`. Plain C, no Python.
 *
 * Spectra are `(part, order, row, channel)` with the rows of a hemisphere, the equator first where there is one; one is for
 * even and one for odd degrees. Cells may lie in any order of longitudes and rows. Coefficients lie in the order of
 * `emulator/spherical_kernels.py` (blocks of orders, in them the even, then the odd degrees, for each degree the real, then
 * the imaginary parts of the block's orders), or `(degree, order, part, channel)`. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LANES 16  /* columns in a vector: a cache line */
#define PORTION 4 /* vectors of columns that a thread takes at a time for its Fourier transforms */
#define GELU_PORTION 16384
#define NORM_PORTION 256

struct fourier {
    float *cells, *spectra[2]; /* even and odd degrees */
    const float *twiddles; /* (cos, -sin) of every pass in turn */
    const int *radices;    /* of every pass; their product is the number of longitudes */
    const long *places;    /* of every longitude in the cells, in floats as all that follow */
    const long *north, *south; /* of every row of the hemisphere and of its mirror image */
    int longitudes, truncation, orders, has_equator, backward;
    int joined; /* whether the rows between two longitudes follow each other, so that vectors may reach across them */
    long channels, spectrum_step;
    long next; /* the first column that no thread has taken */
};

struct legendre {
    float *coefficients, *spectra[2];
    const float *table; /* for every block and parity of degree: `(order, degree, row)` */
    int degrees, orders, width, half, flipped, backward;
    int dense; /* whether coefficients are `(degree, order, part, channel)` */
    long channels;
    long next; /* the first order that no thread has taken */
};

struct mixing {
    const float *from, *weight; /* `(row, batch, input)`; `(degree, input, 2, output)` */
    float *to;                  /* `(row, batch, output)`; for gradients, those of the result */
    float *g_from, *g_weight;   /* NULL for the mixing itself */
    float *turned;              /* for gradients: room for as many floats as the weights */
    int degrees, width, batch;
    long inputs, outputs;
    long next; /* the number of degrees that threads have taken */
};

struct gelu {
    const float *x, *gradient;
    float *to;
    long count;
    long next; /* the first number that no thread has taken */
};

struct norm {
    const float *x, *gradient;          /* `(cell, column)` */
    const float *scale, *mean, *rstd;   /* of every column */
    float *to, *g_scale, *g_shift;
    long cells, columns;
    long next; /* the first column that no thread has taken */
};

#define BLOCK 128 /* cells whose column sums a thread forms at a time */

struct columns {
    /* `(batch, level, cell)` with the step between batch elements below; NULL where there is none */
    const float *pressure, *temperature, *east, *north, *vapour, *liquid, *ice;
    const double *half_a, *half_b, *area, *orography;
    const double *numbers; /* heat capacity, latent heat, energy by temperature and humidity, 1 / gravity */
    double *sums;          /* `(batch, block, 3)`: air, water, energy; or `(batch, block, level)` */
    float *slopes;         /* `(batch, 3, cell)`: derivatives by surface pressure */
    const double *g_sums;  /* `(batch, 3)`, NULL for the sums themselves */
    const float *g_slopes;
    float *g_pressure, *g_temperature, *g_east, *g_north, *g_vapour, *g_condensed;
    int levels;
    int cut;      /* whether layers end at the ground, as on pressure levels */
    int by_layer; /* whether to sum `vapour` times the layers' thickness where `ice` is not negative, level by level */
    long batch, cells;
    long pressure_step, temperature_step, east_step, north_step, vapour_step, liquid_step, ice_step;
    long next; /* the first block that no thread has taken */
};

#define CONTROLS 5 /* surface pressure, temperature, humidity, precipitation, evaporation */
/* Sums of a trial: 3 amounts, 4 weights, 2 means, 3 x 3 products of derivatives by surface pressure; and of every control
 * the square of its change and the share of the cells on its bound, the sums over levels. */
#define TRIAL 28

struct trial {
    const struct columns *columns; /* the fields that no multiplier moves */
    const float *x[CONTROLS];      /* as predicted; NULL for what is no control */
    const float *pattern[CONTROLS];
    float *to[CONTROLS];
    const double *variance[CONTROLS]; /* `(batch, level)` */
    const double *totals; /* `(batch, control + 3)`: what is added per unit of variance; to pressure also along `slopes` */
    const float *slopes;              /* `(batch, 3, cell)`: those of the linearisation */
    double *sums;                     /* `(batch, block, TRIAL)` */
    int relative[CONTROLS], bounded[CONTROLS];
    long step[CONTROLS];
    long next; /* the first block that no thread has taken */
};

struct dither {
    const float *x, *increment, *pattern;
    float *to;
    int everywhere; /* whether a level has one increment */
    long batch, levels, cells, x_step, increment_step, increment_level;
    long next; /* the first level that no thread has taken */
};

struct departure {
    const float *x, *y;
    const double *area;
    double *sums; /* `(batch, block)` */
    int levels;
    long batch, cells, x_step, y_step;
    long next; /* the first block that no thread has taken */
};

/* ROWS x VECTORS accumulators of the products: as many as the instruction set's registers hold, 4 x 4 as fast as 6 x 4 */
#if defined(__x86_64__) && defined(__GNUC__)
#define KERNEL(name) name##_avx512
#define ROWS 4
#define VECTORS 4
#define MIXING_ROWS 4
#define MIXING_VECTORS 2
#pragma GCC push_options
#pragma GCC target("avx512f,avx2,fma")
#include "fourier_kernel.h"
#include "legendre_kernel.h"
#include "mixing_kernel.h"
#include "layers_kernel.h"
#include "columns_kernel.h"
#include "bytes_kernel.h"
#include "daylight_kernel.h"
#pragma GCC pop_options
#undef KERNEL
#undef VECTORS
#undef MIXING_ROWS
#undef MIXING_VECTORS
#define KERNEL(name) name##_avx2
#define VECTORS 1
#define MIXING_ROWS 2
#define MIXING_VECTORS 1
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#include "fourier_kernel.h"
#include "legendre_kernel.h"
#include "mixing_kernel.h"
#include "layers_kernel.h"
#include "columns_kernel.h"
#include "bytes_kernel.h"
#include "daylight_kernel.h"
#pragma GCC pop_options
#undef KERNEL
#undef ROWS
#undef VECTORS
#undef MIXING_ROWS
#undef MIXING_VECTORS
#endif
#define KERNEL(name) name##_plain
#define ROWS 2
#define VECTORS 1
#define MIXING_ROWS 1
#define MIXING_VECTORS 1
#include "fourier_kernel.h"
#include "legendre_kernel.h"
#include "mixing_kernel.h"
#include "layers_kernel.h"
#include "columns_kernel.h"
#include "bytes_kernel.h"
#include "daylight_kernel.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define BEST(name)                                                                                                     \
    (__builtin_cpu_supports("avx512f")                                       ? name##_avx512                          \
     : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? name##_avx2                                  \
                                                                             : name##_plain)
#else
#define BEST(name) name##_plain
#endif

typedef void (*task)(void *);
/* GOMP_parallel of the OpenMP that the caller's threads belong to, or NULL for one thread */
typedef void (*region)(task, void *, unsigned, unsigned);

/* `emulator_NAME` works through a structure on so many threads, each of which takes portion after portion. */
#define ENTRY(name, structure, kernel)                                                                                 \
    void emulator_##name(struct structure *work, region parallel, unsigned threads)                                    \
    {                                                                                                                  \
        work->next = 0;                                                                                                \
        if (parallel && threads > 1)                                                                                   \
            parallel(BEST(kernel), work, threads, 0);                                                                  \
        else                                                                                                           \
            BEST(kernel)(work);                                                                                        \
    }

ENTRY(fourier, fourier, fourier)
ENTRY(legendre, legendre, legendre)
ENTRY(mixing, mixing, mixing)
ENTRY(gelu_backward, gelu, gelu)
ENTRY(norm_backward, norm, norm)
ENTRY(columns, columns, columns)
ENTRY(dither, dither, dither)
ENTRY(departure, departure, departure)
ENTRY(trial, trial, trial)

void emulator_daylight(const double *high, const double *flat, const double *turn, double *total, long instants, long rows,
                       long columns)
{
    BEST(daylight)(high, flat, turn, total, instants, rows, columns);
}

#include "chunks_kernel.h"

/* `count` numbers of 2 or 4 bytes; `to` is aligned to them */
void emulator_unshuffle(const uint8_t *from, uint8_t *to, long count, long size)
{
    if (size == 4)
        BEST(unshuffle4)(from, to, count);
    else
        BEST(unshuffle2)(from, to, count);
}
