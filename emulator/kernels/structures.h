/* What the kernels are called with, their constants, and how threads share their work. */

#define LANES 16  /* what rows are padded to, in numbers: a cache line, whole vectors of every instruction set */
#define PORTION 4 /* vectors of columns that a thread takes at a time for its Fourier transforms */
#define GELU_PORTION 16384
#define NORM_PORTION 256

struct fourier {
    float *cells, *spectra[2]; /* even and odd degrees */
    const float *onto;     /* backward, what the cells are added to, in their order; NULL for nothing */
    const float *twiddles; /* (cos, -sin) of every pass in turn */
    const int *radices;    /* of every pass; their product is the number of longitudes */
    const long *places;    /* of every longitude in the cells, in floats as all that follow */
    const long *north, *south; /* of every row of the hemisphere and of its mirror image */
    const long *order_places;  /* of every order in the spectra */
    int longitudes, truncation, has_equator, backward;
    int apart;  /* spectra are those of the rows themselves, not of their sums and differences; a row without a mirror image
                 * has no place among the second ones */
    int joined; /* whether the rows between two longitudes follow each other, so that vectors may reach across them */
    long channels, columns, part_step; /* columns of a spectrum; from real parts to imaginary ones */
    long next; /* the first column that no thread has taken */
};

struct legendre {
    float *coefficients, *spectra[2];
    const float *table; /* for every block and parity of degree: `(order, degree, row)` */
    const int *blocks;  /* where each of them starts and stops; spectra have the orders of all blocks, one after the other */
    float *rows;        /* in place of spectra: the rows themselves, as other processes send them; NULL for none */
    float *room;        /* of every thread, for the sums and differences of an order's rows */
    /* where the first order's real part of every row of the hemisphere lies and of its mirror image, -1 for none, and from
     * there to its imaginary part, then to the next order's real part, and so on */
    const long *north, *south, *north_step, *south_step;
    int count, degrees, orders, half, backward; /* count: of blocks; orders: that spectra have room for */
    int dense; /* whether coefficients are `(degree, order, part, channel)` */
    long channels;
    long room_size, threads; /* that have room */
    long next; /* the first order that no thread has taken */
};

struct winds {
    float *spectra[2], *doubled[2]; /* `(part, order, row, batch, component, vector)`, and with twice the rows */
    int backward;
    long orders, half, batch, vectors;
    long next; /* the first order that no thread has taken */
};

struct mixing {
    const float *from, *weight; /* `(row, batch, input)`; `(degree, input, 2, output)`, real ones `(degree, input, output)` */
    float *to;                  /* `(row, batch, output)`; for gradients, those of the result */
    float *g_from, *g_weight;   /* NULL for the mixing itself */
    float *room;                /* of every thread */
    const int *blocks;          /* of orders, where each starts and stops */
    int count, degrees, batch, real;
    long inputs, outputs; /* whole vectors for products of bfloat16 and real weights */
    long room_size, threads; /* that have room */
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
    float *sums;    /* `(portion, 2, column)` */
    float *factors; /* `(3, column)` */
    int summing;    /* whether this pass forms the sums or the gradient of x */
    long cells, columns;
    long next; /* the first portion that no thread has taken */
};

struct moments { /* an instance norm */
    const float *x;              /* `(cell, column)`; columns are batch, then channel */
    const float *scale, *shift;  /* of every channel */
    float *to, *mean, *rstd;     /* mean and 1 / standard deviation of every column */
    float *sums;    /* `(portion, 2, column)` */
    float *factors; /* `(2, column)` */
    int summing;    /* whether this pass forms the sums or the result */
    long cells, columns, channels;
    double epsilon; /* of the variance */
    long next; /* the first portion that no thread has taken */
};

struct row_norm { /* a layer norm, scaled, shifted and added to something */
    const float *x, *onto;    /* `(batch, row, width)` */
    const float *modulation;  /* shift, then scale of every sample, `(batch, 2 * width)` */
    const float *gradient;    /* of the result, NULL for the result itself */
    float *to, *moments;      /* the result or the gradient of x; mean and 1 / standard deviation of every row */
    float *sums;              /* `(batch, portion, 2 * width)`, gradients of the modulation */
    long batch, rows, width;
    double epsilon;           /* of the variance */
    long next;                /* the first portion that no thread has taken */
};

struct spectral_norm { /* of coefficients of scalars and of vectors, all of a sample by the mean square over the sphere */
    const float *a, *b;      /* `(row, batch, scalars)`, `(row, batch, 2 * vectors)` */
    const float *shares;     /* of every row in the mean square */
    const float *gradient;   /* of the result, NULL for the result itself */
    const float *scale;      /* `(scalars + vectors)`, of every sample `scale_step` numbers on */
    const float *slopes;     /* `(batch, scalars + 2 * vectors)`: by which coefficients enter their own gradient */
    float *factors, *rstd;   /* of that shape, what they are multiplied by; `(batch, scalars + vectors)`, without the scale */
    float *to, *g_a, *g_b;   /* `(row, batch, scalars + 2 * vectors)`; as a and b */
    float *sums;             /* `(portion, batch, scalars + 2 * vectors)` */
    int summing;             /* whether this pass forms the sums */
    long rows, batch, scalars, vectors, scale_step;
    double epsilon;          /* of the mean square */
    long next;               /* the first portion that no thread has taken */
};

struct along {
    const float *x, *other;  /* `(row, 2 * vectors)` */
    const float *gradient;   /* of the result, NULL for the result itself */
    float *to, *g_other;     /* the result `(row, vectors)`, or the gradients of x and of the other */
    long rows, vectors;
    long next;               /* the first portion of rows that no thread has taken */
};

struct gate {
    const float *made;       /* `(row, scalars + vectors)`: the change of scalars, and what gates vectors */
    const float *turned;     /* `(row, 2 * vectors)` that are gated */
    const float *s, *w;      /* `(row, scalars)` and `(row, 2 * vectors)` that they are added to, or gradients of the results */
    float *to_s, *to_w;      /* the results; to_w, for gradients, that of the gated vectors */
    float *g_made;
    int backward;
    long rows, scalars, vectors;
    long next;               /* the first portion of rows that no thread has taken */
};

struct pieces {
    const float *from;
    float *to;
    long rows, count, from_step, to_step; /* a piece is so many numbers of every row, rows lie so far apart */
    long portion;            /* rows that a thread takes at a time */
    long next;               /* the first portion that no thread has taken */
};

struct rearrange { /* maps of every sample and channel as cells, or cells as maps */
    float *maps;        /* `(batch, channel, place)` */
    float *cells;       /* `(cell, batch, channel)` */
    const int64_t *cell; /* at every place of a map */
    int out;            /* whether cells become maps */
    long count, batch, channels;
    long next; /* the first portion of places that no thread has taken */
};

struct compare {
    const char *const *left, *const *right; /* memory to compare, piece by piece */
    const long *sizes;                      /* of the pieces, in bytes */
    int differ;                             /* set where any of them differ */
    long count;
    long next; /* the first piece that no thread has taken */
};

#define SEGMENTS 4

struct normalise {
    const float *from[SEGMENTS];             /* `(batch, channel, cell)` with the step between batch elements below */
    const float *mean[SEGMENTS], *std[SEGMENTS]; /* by channel; NULL for what stays as it is */
    float *to;                               /* `(batch, all, cell)` */
    int gaps[SEGMENTS];                      /* whether what is missing becomes 0 */
    long channels[SEGMENTS], step[SEGMENTS];
    long batch, all, cells;
    long next; /* the first map that no thread has taken */
};

struct finish {
    const float *predicted;                  /* `(batch, prognostic + diagnosed, cell)`, normalised */
    const float *state;                      /* `(batch, prognostic, cell)` with the step between batch elements below */
    const float *resting, *lower, *upper;    /* `(prognostic, cell)` */
    const float *damping, *change;           /* by prognostic channel */
    const float *mean, *std;                 /* by diagnostic channel */
    float *following, *diagnostic;           /* `(batch, prognostic, cell)`, `(batch, diagnosed, cell)` */
    long batch, prognostic, diagnosed, cells, state_step;
    long next; /* the first map that no thread has taken */
};

#define MESSAGE_EPSILON 1e-5f /* of the norm's variance */
#define MESSAGE_ROOM 6144 /* numbers of a tile of rows; a thread keeps four on its stack: 96 KiB */

struct messages {
    /* Rows are `(edge, batch)` with `width` numbers, a multiple of LANES; NULL for what there is none of. */
    float *x;                                    /* what the first layer multiplies, rows of `inputs` numbers */
    const float *start;                          /* its bias, or: */
    const float *shared, *senders, *receivers;   /* `(edge,)`, `(node, batch)` twice: what else the first layer adds up */
    const int64_t *origins, *targets;                   /* nodes of every edge; NULL: the edge's own number; none */
    const float *first, *second; /* weights `(in, out)`; for gradients first is `(out, in)` without start */
    const float *turned;                         /* the second one `(out, in)`, for gradients */
    const float *bias, *scale, *shift;           /* of the second layer and of the norm */
    const float *residual;                       /* added to messages, `(edge,)` with `shared` */
    float *h;                                    /* kept for gradients; if not, it is computed again from start and x */
    float *sums, *result;                        /* `(receiver, batch)`; rows */
    const float *g_sums, *g_rows;                /* gradients of messages by receiver and by row */
    const float *after;                          /* x plus the messages, from which gradients get x back */
    float *g_h, *g_receivers, *g_x;              /* g_h may be h */
    float *room; /* for every part: gradients of second, first `(in, out)`, start, bias, scale, shift */
    int width, inputs, backward, carry; /* carry: whether the gradient of x begins with `g_rows` */
    long edges, batch, parts;
    long next; /* the first part that no thread has taken */
};

#define MAPS 3

struct maps { /* linear layers of the same rows; NULL for what there is none of */
    const float *x;                          /* `(row, width)` */
    const float *weight[MAPS], *bias[MAPS];  /* `(in, out)`; for gradients `(out, in)` */
    float *y[MAPS];                          /* their results or, for gradients, those of the results */
    float *g_x;                              /* added to */
    float *room; /* for every part: gradients of every weight, then of every bias */
    int width, count, backward;
    long rows, parts;
    long next; /* the first part that no thread has taken */
};

#define TILE 32 /* rows that go through a perceptron together */

struct perceptron {
    const float *x;      /* `(cell, batch, inputs)` */
    const float *besides; /* `(cell, batch, more)`: further inputs, behind those of x; NULL for none */
    const void *first, *second;           /* weights as words, for gradients the transposed ones; no second for one layer */
    const float *first_bias, *second_bias; /* in whole vectors, NULL for none */
    const float *residual; /* `(cell, batch, outputs)`: what the result is added to; NULL for nothing */
    const int *source;   /* `(tap, item)`: the cell that an item takes in, -1 for none; NULL for its own */
    const int *target;   /* the cell that an item is, NULL for its own */
    float *before;       /* `(cell, batch, hidden)`: what the activation takes */
    float *to;           /* the result, or the gradient of x, NULL for none */
    const float *gradient; /* of the result, NULL for the result itself */
    float *g_before;     /* `(cell, batch, hidden)`, NULL for none */
    float *sums;         /* gradients of weights and biases, `(chunk, sums_size)` */
    float *room;         /* of every thread */
    int taps, inputs, more, hidden, outputs;
    int add, activate, alike; /* add to what the result holds; GELU of the result; the residual is that of all samples */
    long items, batch;
    long chunk;          /* rows whose gradients of weights are summed together */
    long sums_size, room_size;
    long threads;        /* that have room */
    long next;           /* the first chunk that no thread has taken */
};

struct stencil { /* rows are `(cell, batch)`, widths whole vectors */
    const float *x;          /* `(cell, batch, inputs)` */
    const int *source;       /* `(16, patch)`: cells of a patch of 4 x 4, -1 for none */
    const int *target;       /* `(4, patch)`: the cells in its middle, -1 for none */
    const float *first;      /* transformed weights, `(16, inputs, hidden)` */
    const float *first_bias; /* NULL for none */
    const float *second;     /* `(hidden, outputs)` */
    const float *residual;   /* `(cell, batch, outputs)`: what the result is added to; NULL for nothing */
    float *before, *to;      /* what the activation takes, NULL where nobody wants it; the result */
    float *room;             /* of every thread */
    int inputs, hidden, outputs;
    long patches, batch, room_size;
    long threads;            /* that have room */
    long next;               /* the first tile of patches that no thread has taken */
};

#define BLOCK 128 /* cells whose column sums a thread forms at a time */

/* Portions of work that threads take from two ends, every other thread from the front. From call to call on the same fields
 * a portion then stays with a core, and so in its cache: with one end, two threads were hardly faster than one. */
struct ends {
    long seats, taken, front, back;
};

static long seat(struct ends *e)
{
    return __atomic_fetch_add(&e->seats, 1, __ATOMIC_RELAXED);
}

/* The next of `count` portions for the thread on a seat, or -1. */
static long take(struct ends *e, long seat, long count)
{
    if (__atomic_fetch_add(&e->taken, 1, __ATOMIC_RELAXED) >= count)
        return -1;
    if (seat % 2)
        return count - 1 - __atomic_fetch_add(&e->back, 1, __ATOMIC_RELAXED);
    return __atomic_fetch_add(&e->front, 1, __ATOMIC_RELAXED);
}

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
    struct ends blocks;
};

#define CONTROLS 5 /* surface pressure, temperature, humidity, precipitation, evaporation */
#define ALONG 5    /* of the totals: after one for each control those of pressure along its derivatives, */
#define UNIFORM 8  /* and what is added to precipitation and evaporation everywhere */
#define TOTALS 10
#define FLUXES 8
#define PATTERN_STEP 2654435769u            /* the golden ratio's share of 2^32 */
#define PATTERN_SIZE (0.998f * 0x1p-32f * 0x1p-23f) /* which becomes half a unit in the last place of 1, to either side */
enum { SIZED = 1, SIGNED }; /* whether a control's variance is per unit of its magnitude, or of its value */
enum { FIRST = 1, AFTER };  /* whether a control's negative values are clipped before it moves, or afterwards */

/* Sums of a trial, means over the sphere, those over levels being sums. GAIN and what clipping took are of the start. */
enum {
    RAIN = 3, EVAPORATION,       /* after the amounts of air, water and energy */
    GAIN,                        /* the net flux */
    CLIPPED_HUMIDITY, CLIPPED_RAIN, /* what clipping took, of humidity in columns */
    SQUARES,                     /* of every control's change */
    ON_BOUND = SQUARES + CONTROLS,   /* every control's share on its bound */
    PRESSED = ON_BOUND + CONTROLS,   /* derivatives of the amounts by pressure times its size, 3, */
    PRESSED_ALONG = PRESSED + 3, /* and these times those of the linearisation, 3 x 3 */
    RAIN_SIZE = PRESSED_ALONG + 9, EVAPORATION_SIZE, PRESSURE_SIZE,
    HEATED,                      /* square of the change of the latent heat flux */
    MEASURED                     /* then by level the size of temperature, that times the layer's thickness, twice for humidity */
};
/* Sums of gradients by moved controls. */
enum {
    PULLED_PRESSURE,       /* times its size, */
    PULLED_ALONG,          /* and times that and its derivatives, 3 */
    PULLED_RAIN = PULLED_ALONG + 3, PULLED_RAIN_UNIFORM, /* times its size, and itself */
    PULLED_EVAPORATION, PULLED_EVAPORATION_UNIFORM,
    PULLED                 /* then by level of temperature and of humidity times their sizes */
};

struct correction {
    const struct columns *columns;        /* the fields as predicted */
    const float *x[CONTROLS];             /* as predicted; NULL for what no budget counts */
    float *to[CONTROLS];                  /* after the move; NULL for what is not wanted */
    const float *g_to[CONTROLS];          /* gradients of the moved controls */
    float *g_x[CONTROLS];                 /* gradients of the predicted ones; NULL for what is not wanted */
    const float *flux[FLUXES];            /* those whose sum, by `sign`, is a column's net gain of energy */
    float *g_east, *g_north;
    const float *heat;     /* the latent heat flux, which follows evaporation, */
    float *to_heat;        /* and what becomes of it; NULL where it stays */
    const double *totals;  /* `(batch, TOTALS)` */
    const double *weights; /* of the sums of a trial: those of sizes have their control's variance, by level */
    const double *means;   /* gradients of mean sizes: of pressure, precipitation, evaporation, and 2 by level */
    const double *g_sums; /* `(batch, 5)`: of air, water, energy, precipitation, evaporation; NULL but for gradients */
    float *slopes;        /* `(batch, 3, cell)`: derivatives by surface pressure at the start, where they are written */
    double *sums;         /* `(batch, block, ...)` */
    int relative[CONTROLS], bounded[CONTROLS], sign[FLUXES];
    int start; /* whether this is the first trial, at totals of zero, of which only the sums are wanted */
    int pull;  /* whether to sum the gradients of the moved controls */
    long step[CONTROLS], g_step[CONTROLS], flux_step[FLUXES], heat_step;
    struct ends blocks;
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
    struct ends blocks;
};
