/* Bytes of numbers that lie byte by byte (all first bytes, then all second ones) put together again. */

static void KERNEL(unshuffle4)(const uint8_t *restrict from, uint8_t *restrict to, long count)
{
    const uint8_t *a = from, *b = from + count, *c = b + count, *d = c + count;
    uint32_t *restrict out = (uint32_t *)to;
    for (long n = 0; n < count; n++)
        out[n] = a[n] | (uint32_t)b[n] << 8 | (uint32_t)c[n] << 16 | (uint32_t)d[n] << 24;
}

static void KERNEL(unshuffle2)(const uint8_t *restrict from, uint8_t *restrict to, long count)
{
    const uint8_t *a = from, *b = from + count;
    uint16_t *restrict out = (uint16_t *)to;
    for (long n = 0; n < count; n++)
        out[n] = (uint16_t)(a[n] | b[n] << 8);
}

static void KERNEL(compare)(void *argument)
{
    struct compare *f = argument;
    for (;;) {
        const long n = __atomic_fetch_add(&f->next, 1, __ATOMIC_RELAXED);
        if (n >= f->count)
            return;
        if (memcmp(f->left[n], f->right[n], f->sizes[n]))
            __atomic_store_n(&f->differ, 1, __ATOMIC_RELAXED);
    }
}
