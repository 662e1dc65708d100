/* What the kernel of attention is called with. */

struct lattice { /* steps between rows of tokens, in floats; in a row heads follow each other */
    long window, token, sample;
};

struct attention {
    const float *q, *k, *v;
    const float *steepness; /* of every head: products are those of directions, q and k over their lengths, times it; or NULL */
    const float *bias;     /* `(biases, heads or 1, query, key)`, keys in whole vectors, minus infinity behind the last one */
    const float *gradient; /* of the result, whose rows lie as the result's; NULL for the result itself */
    float *to;
    float *kept; /* `(window, sample, head, 2, query)`: the largest logit, and 1 / the sum of exponentials; NULL to forget them */
    float *g_q, *g_k, *g_v;
    float *sums; /* of every chunk, gradients of a bias that is the same for all, as it lies; NULL where none are wanted */
    float *steepness_sums; /* of every chunk, gradients of the steepness */
    float *room; /* of every thread */
    int few; /* fewer queries and keys than a vector has lanes, with one bias for all windows, heads and queries */
    int queries, keys, channels, heads, bias_heads, bias_step; /* bias_step: from query to query, 0: the same for all */
    long windows, samples, biases, chunk, sums_size, room_size; /* chunk: samples of windows that a thread takes at a time */
    struct lattice q_at, k_at, v_at, to_at, g_q_at, g_k_at, g_v_at;
    double scale;          /* of the products without a steepness */
    long threads, next;    /* threads that have room; the first chunk that no thread has taken */
};
