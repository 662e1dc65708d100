/* The two steps of the spherical transform, the mixing of channels between them, two gradients and the column integrals of
 * budgets, on float32, for `emulator/kernels`. Plain C, no Python.
 *
 * Spectra are `(part, order, row, channel)` with the rows of a hemisphere, the equator first where there is one; one is for
 * even and one for odd degrees. Cells may lie in any order of longitudes and rows. Coefficients lie in the order of
 * `emulator/sphere/tables.py` (blocks of orders, in them the even, then the odd degrees, for each degree the real, then
 * the imaginary parts of the block's orders), or `(degree, order, part, channel)`. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Instruction sets of x86 beyond the one that the compiler was told of, chosen as the library runs. PORTABLE leaves them out,
 * and NARROW AVX-512 alone, so that what other processors take can be tried on these. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(PORTABLE)
#define CHOOSES
#include <immintrin.h>
#endif

#include "structures.h"
#include "attention.h"
#include "filtering.h"

/* WIDTH numbers are a vector of the instruction set: wider ones would be kept in memory, not in registers. ROWS x VECTORS are
 * the accumulators of products, as many as the registers hold; for AVX-512 4 x 4 are as fast as 6 x 4. */
#ifdef CHOOSES
#define KERNEL(name) name##_avx512
#define WIDTH 16
#define ROWS 4
#define VECTORS 4
#define MIXING_ROWS 4
#define MIXING_VECTORS 2
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx2,fma"))), apply_to = function)
#include "instruction_set.h"
#pragma clang attribute pop
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx2,fma")
#include "instruction_set.h"
#pragma GCC pop_options
#endif
#undef KERNEL
#undef WIDTH
#undef VECTORS
#undef MIXING_ROWS
#undef MIXING_VECTORS
#define KERNEL(name) name##_avx2
#define WIDTH 8
#define VECTORS 2
#define MIXING_ROWS 2
#define MIXING_VECTORS 1
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#include "instruction_set.h"
#pragma clang attribute pop
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#include "instruction_set.h"
#pragma GCC pop_options
#endif
#undef KERNEL
#undef WIDTH
#undef ROWS
#undef VECTORS
#undef MIXING_ROWS
#undef MIXING_VECTORS
#endif
/* What every compiler and processor takes: SSE has 16 registers of four numbers, NEON 32. */
#define KERNEL(name) name##_plain
#define WIDTH 4
#ifdef __x86_64__
#define ROWS 2
#define MIXING_VECTORS 1
#else
#define ROWS 4
#define MIXING_VECTORS 2
#endif
#define VECTORS 4
#define MIXING_ROWS 2
#include "instruction_set.h"
#undef KERNEL
#undef WIDTH
#undef ROWS
#undef VECTORS

/* Products of bfloat16 numbers, where compiler and processor have them */
#if defined(CHOOSES) && !defined(__clang__) && __GNUC__ >= 11
#define HAS_HALF
#define KERNEL(name) name##_half
#define WIDTH 16
#define ROWS 4
#define VECTORS 4
#define GROUP 2
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512bf16,avx2,fma")
#include "gelu_kernel.h"
#include "product_kernel.h"
#include "mixing_kernel.h"
#include "perceptron_kernel.h"
#pragma GCC pop_options
#endif

#ifdef NARROW
#define WIDEST 0
#else
#define WIDEST __builtin_cpu_supports("avx512f")
#endif
#ifdef CHOOSES
#define BEST(name)                                                                                                     \
    (WIDEST                                                                  ? name##_avx512                          \
     : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? name##_avx2                                  \
                                                                             : name##_plain)
#else
#define BEST(name) name##_plain
#endif

typedef void (*task)(void *);
/* GOMP_parallel of the OpenMP that the caller's threads belong to, or NULL for one thread */
typedef void (*region)(task, void *, unsigned, unsigned);

/* `emulator_NAME` works through a structure of `emulator_NAME_size` bytes on so many threads, each of which takes portion
 * after portion. */
#define ENTRY(name, kernel, portions)                                                                                  \
    const long emulator_##name##_size = sizeof(struct kernel);                                                         \
    void emulator_##name(struct kernel *work, region parallel, unsigned threads)                                       \
    {                                                                                                                  \
        memset(&work->portions, 0, sizeof work->portions);                                                             \
        if (parallel && threads > 1)                                                                                   \
            parallel(BEST(kernel), work, threads, 0);                                                                  \
        else                                                                                                           \
            BEST(kernel)(work);                                                                                        \
    }

/* The same where every thread has room of its own. */
#define ENTRY_WITH_ROOM(name, kernel)                                                                                  \
    ENTRY(name##_again, kernel, next)                                                                                  \
    const long emulator_##name##_size = sizeof(struct kernel);                                                         \
    void emulator_##name(struct kernel *work, region parallel, unsigned threads)                                       \
    {                                                                                                                  \
        work->threads = 0;                                                                                             \
        emulator_##name##_again(work, parallel, threads);                                                              \
    }

ENTRY(fourier, fourier, next)
ENTRY(legendre, legendre, next)
ENTRY(winds, winds, next)
ENTRY_WITH_ROOM(mixing, mixing)
ENTRY(gelu_backward, gelu, next)
ENTRY(norm_pass, norm, next)
ENTRY(moments_pass, moments, next)
ENTRY(row_norm, row_norm, next)
ENTRY(spectral_norm_pass, spectral_norm, next)
ENTRY(along, along, next)
ENTRY(gate, gate, next)
ENTRY(pieces, pieces, next)
ENTRY(rearrange, rearrange, next)
ENTRY(filtering, filtering, next)
ENTRY(compare, compare, next)
ENTRY(normalise, normalise, next)
ENTRY(finish, finish, next)
ENTRY(messages, messages, next)
ENTRY(maps, maps, next)
ENTRY(columns, columns, blocks)
ENTRY(dither, dither, next)
ENTRY(departure, departure, blocks)
ENTRY(correction, correction, blocks)
ENTRY_WITH_ROOM(perceptron, perceptron)
ENTRY_WITH_ROOM(stencil, stencil)
ENTRY_WITH_ROOM(attention, attention)

/* Constants that Python counts with (layout.py); a test compares them. */
#define LAYOUT(name) const long emulator_layout_##name = name;
LAYOUT(LANES) LAYOUT(NORM_PORTION) LAYOUT(TILE) LAYOUT(BLOCK) LAYOUT(CONTROLS) LAYOUT(FLUXES)
LAYOUT(ALONG) LAYOUT(UNIFORM) LAYOUT(TOTALS) LAYOUT(SIZED) LAYOUT(SIGNED) LAYOUT(FIRST) LAYOUT(AFTER)
LAYOUT(RAIN) LAYOUT(EVAPORATION) LAYOUT(GAIN) LAYOUT(CLIPPED_HUMIDITY) LAYOUT(CLIPPED_RAIN) LAYOUT(SQUARES) LAYOUT(ON_BOUND)
LAYOUT(PRESSED) LAYOUT(PRESSED_ALONG) LAYOUT(RAIN_SIZE) LAYOUT(EVAPORATION_SIZE) LAYOUT(PRESSURE_SIZE) LAYOUT(HEATED)
LAYOUT(MEASURED) LAYOUT(PULLED_PRESSURE) LAYOUT(PULLED_ALONG) LAYOUT(PULLED_RAIN) LAYOUT(PULLED_RAIN_UNIFORM)
LAYOUT(PULLED_EVAPORATION) LAYOUT(PULLED_EVAPORATION_UNIFORM) LAYOUT(PULLED)

const long emulator_norm_sums_size = sizeof(struct norm), emulator_norm_gradient_size = sizeof(struct norm);
void emulator_norm_sums(struct norm *work, region parallel, unsigned threads)
{
    work->summing = 1;
    emulator_norm_pass(work, parallel, threads);
    BEST(norm_factors)(work);
}

void emulator_norm_gradient(struct norm *work, region parallel, unsigned threads)
{
    work->summing = 0;
    emulator_norm_pass(work, parallel, threads);
}

/* Calls of `emulator_...`, one after the other. */
struct recorded {
    void (*function)(void *work, region parallel, unsigned threads);
    void *work;
};

void emulator_run(const struct recorded *calls, long count, region parallel, unsigned threads)
{
    for (long n = 0; n < count; n++)
        calls[n].function(calls[n].work, parallel, threads);
}

/* Samples, each of which a thread takes through calls of its own from end to end. */
struct spread {
    const struct recorded *const *calls; /* of every thread, `length` of them, */
    float *const *inputs, *const *outputs; /* and where they find what they take and leave what they give */
    const float *x;
    float *to;
    long length, input_size, output_size, count;
    long threads; /* that have calls */
    long next;    /* the first sample that no thread has taken */
};

static void spread(void *argument)
{
    struct spread *f = argument;
    const long mine = __atomic_fetch_add(&f->threads, 1, __ATOMIC_RELAXED);
    for (;;) {
        const long n = __atomic_fetch_add(&f->next, 1, __ATOMIC_RELAXED);
        if (n >= f->count)
            return;
        memcpy(f->inputs[mine], f->x + n * f->input_size, sizeof(float) * f->input_size);
        emulator_run(f->calls[mine], f->length, NULL, 1);
        memcpy(f->to + n * f->output_size, f->outputs[mine], sizeof(float) * f->output_size);
    }
}

const long emulator_spread_size = sizeof(struct spread);
void emulator_spread(struct spread *work, region parallel, unsigned threads)
{
    work->threads = work->next = 0;
    parallel(spread, work, threads, 0);
}

const long emulator_norm_forward_size = sizeof(struct moments);
void emulator_norm_forward(struct moments *work, region parallel, unsigned threads)
{
    work->summing = 1;
    emulator_moments_pass(work, parallel, threads);
    BEST(moment_factors)(work);
    work->summing = 0;
    emulator_moments_pass(work, parallel, threads);
}

const long emulator_spectral_sums_size = sizeof(struct spectral_norm), emulator_spectral_scaled_size = sizeof(struct spectral_norm);
void emulator_spectral_sums(struct spectral_norm *work, region parallel, unsigned threads)
{
    work->summing = 1;
    emulator_spectral_norm_pass(work, parallel, threads);
}

void emulator_spectral_scaled(struct spectral_norm *work, region parallel, unsigned threads)
{
    work->summing = 0;
    emulator_spectral_norm_pass(work, parallel, threads);
}

const long emulator_spectral_norm_size = sizeof(struct spectral_norm);
void emulator_spectral_norm(struct spectral_norm *work, region parallel, unsigned threads)
{
    emulator_spectral_sums(work, parallel, threads);
    BEST(spectral_factors)(work);
    emulator_spectral_scaled(work, parallel, threads);
}

void emulator_daylight(const double *high, const double *flat, const double *turn, double *total, long instants, long rows,
                       long columns)
{
    BEST(daylight)(high, flat, turn, total, instants, rows, columns);
}

void emulator_pack(const float *from, long tap, long down, long across, long taps, long depth, long width, void *to)
{
    BEST(pack)(from, tap, down, across, taps, depth, width, to);
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

/* Whether there are products of bfloat16 numbers. */
int emulator_has_half(void)
{
#ifdef HAS_HALF
    return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
#else
    return 0;
#endif
}

#ifdef HAS_HALF
#undef BEST
#define BEST(name) name##_half
ENTRY_WITH_ROOM(perceptron_half, perceptron)
ENTRY_WITH_ROOM(mixing_half, mixing)

void emulator_pack_half(const float *from, long tap, long down, long across, long taps, long depth, long width, void *to)
{
    pack_half(from, tap, down, across, taps, depth, width, to);
}
#endif
