/* GELU and its slope on vectors, included once for every instruction set. */

typedef float KERNEL(vector) __attribute__((vector_size(4 * LANES)));
typedef int KERNEL(whole) __attribute__((vector_size(4 * LANES)));
#define V KERNEL(vector)
#define W KERNEL(whole)
#define INLINE static inline __attribute__((always_inline))

/* exp(-u) for 0 <= u < 87: a power of two times a polynomial on [-log 2 / 2, log 2 / 2], to 2e-7 of itself. */
INLINE V KERNEL(decay)(V u)
{
    const float shift = 12582912.0f; /* 1.5 * 2^23: the sum's last bits are a rounded whole number */
    V rounded = u * -1.44269504088896f + shift, power = rounded - shift;
    V r = -u - power * 0.693359375f + power * 2.12194440e-4f; /* less power * log 2 in two parts */
    V e = r * (1.0f / 720) + 1.0f / 120;
    e = e * r + 1.0f / 24;
    e = e * r + 1.0f / 6;
    e = e * r + 0.5f;
    e = e * r + 1.0f;
    e = e * r + 1.0f;
    W bits = (W)rounded << 23;
    return (V)((W)e + bits);
}

/* Phi(x), the normal distribution by formula 7.1.26 of Abramowitz and Stegun (1964), within 8e-8, and exp(-x^2 / 2), of
 * which it is made. */
INLINE V KERNEL(normal)(V x, V *density)
{
    const V limit = x - x + 86.0f;
    V u = x * x * 0.5f;
    u = (V)(((W)u & (u < limit)) | ((W)limit & ~(u < limit)));
    const V e = *density = KERNEL(decay)(u);
    const W negative = x < 0.0f;
    const V size = (V)((W)x & 0x7fffffff);
    const V t = 1.0f / (size * 0.2316418882f + 1.0f);
    V tail = t * 0.5307027145f - 0.7265760135f;
    tail = tail * t + 0.7107068705f;
    tail = tail * t - 0.142248368f;
    tail = tail * t + 0.127414796f;
    tail = tail * t * e;
    return (V)(((W)tail & negative) | ((W)(1.0f - tail) & ~negative));
}

/* d/dx x Phi(x) = Phi(x) + x phi(x), and x Phi(x). */
INLINE V KERNEL(gelu_slope)(V x, V *value)
{
    V density;
    const V cumulative = KERNEL(normal)(x, &density);
    *value = x * cumulative;
    return cumulative + x * density * 0.3989422804f;
}

INLINE V KERNEL(gelu_value)(V x)
{
    V density;
    return x * KERNEL(normal)(x, &density);
}

#undef V
#undef W
#undef INLINE
