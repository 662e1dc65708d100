/* What the passes of minimal filtering are called with. */

#define TO_SUMS 0
#define FROM_SUMS 1
#define TO_CELLS 2
#define FROM_CELLS 3

struct filtering {
    float *map;      /* `(sample, row, column, channel)` */
    float *products; /* `(16, patch, channel)`, each of the 16 `step` floats after the one before */
    const float *bias;
    int pass, dilation;
    long rows, columns, channels;
    long down, along;        /* patches of a sample */
    long first, count, step; /* patches that are taken */
    long next;               /* the first portion that no thread has taken */
};
