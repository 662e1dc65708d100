/* Exponentials, GELU and its slope on vectors, included once for every instruction set. */

typedef float KERNEL(vector) __attribute__((vector_size(4 * WIDTH)));
typedef int KERNEL(whole) __attribute__((vector_size(4 * WIDTH)));
#define V KERNEL(vector)
#define W KERNEL(whole)
#define INLINE static inline __attribute__((always_inline))

/* The lesser of both; NaN stays. */
INLINE V KERNEL(at_most)(V x, float most)
{
#if WIDTH == 16
    return (V)_mm512_min_ps(_mm512_set1_ps(most), (__m512)x);
#else
    const V limit = (V){0} + most;
    const W above = x > most;
    return (V)(((W)limit & above) | ((W)x & ~above));
#endif
}

#define EXPONENT 12582912.0f /* 1.5 * 2^23: the last bits of what it is added to are a whole number */

/* exp(-u) as 2^(power - EXPONENT) times what is returned, a polynomial on [-log 2 / 2, log 2 / 2], to 2e-7 of itself. */
INLINE V KERNEL(decay_parts)(V u, V *power)
{
    const V rounded = u * -1.44269504088896f + EXPONENT, whole = rounded - EXPONENT;
    V r = -u - whole * 0.693359375f + whole * 2.12194440e-4f; /* less whole * log 2 in two parts */
    V e = r * (1.0f / 720) + 1.0f / 120;
    e = e * r + 1.0f / 24;
    e = e * r + 1.0f / 6;
    e = e * r + 0.5f;
    e = e * r + 1.0f;
    e = e * r + 1.0f;
    *power = rounded;
    return e;
}

/* exp(-u) for 0 <= u < 87. */
INLINE V KERNEL(decay)(V u)
{
    V power, e = KERNEL(decay_parts)(u, &power);
    return (V)((W)e + ((W)power << 23));
}

/* exp(-u), 0 beyond 80; NaN stays, though its bits with an exponent added to them need not be NaN. */
INLINE V KERNEL(weight_of)(V u)
{
#if WIDTH == 16
    V power, e = KERNEL(decay_parts)(u, &power);
    const __mmask16 near = _mm512_cmp_ps_mask((__m512)u, _mm512_set1_ps(80), _CMP_NGT_UQ);
    return (V)_mm512_maskz_scalef_ps(near, (__m512)e, (__m512)(power - EXPONENT));
#else
    const W far = u > 80.0f;
    const V near = KERNEL(at_most)(u, 80.0f);
    return (V)((W)KERNEL(decay)(near) & ~far) + (near - near);
#endif
}

/* The larger of both, b where one is NaN. */
INLINE V KERNEL(larger)(V a, V b)
{
#if WIDTH == 16
    return (V)_mm512_max_ps((__m512)a, (__m512)b);
#else
    const W above = a > b;
    return (V)(((W)a & above) | ((W)b & ~above));
#endif
}

/* Phi(x), the normal distribution: 1/2 + x P(x^2) / Q(x^2), fitted by reweighted least squares (Lawson 1961) for the least
 * largest error where |x| < 5.2, 6e-8 and in float32 2e-7; beyond it 0 or nearly 1. */
INLINE V KERNEL(normal)(V x)
{
    const W far = x < -5.2f;
    x = KERNEL(at_most)(x, 5.2f);
    const V y = x * x;
    V above = y * 5.840719821e-06f + 3.142684816e-04f;
    above = above * y + 5.518764378e-03f;
    above = above * y + 4.959391678e-02f;
    above = above * y + 3.989419173e-01f;
    V below = y * 5.019070708e-07f + 1.127427509e-04f;
    below = below * y + 2.703776115e-03f;
    below = below * y + 3.734010178e-02f;
    below = below * y + 2.909742793e-01f;
    below = below * y + 1.0f;
    return (V)((W)(x * above / below + 0.5f) & ~far);
}

/* d/dx x Phi(x) = Phi(x) + x phi(x), and x Phi(x). */
INLINE V KERNEL(gelu_slope)(V x, V *value)
{
    const V cumulative = KERNEL(normal)(x), density = KERNEL(decay)(KERNEL(at_most)(x * x * 0.5f, 86.0f)) * 0.3989422804f;
    *value = x * cumulative;
    return cumulative + x * density;
}

INLINE V KERNEL(gelu_value)(V x)
{
    return x * KERNEL(normal)(x);
}

#undef V
#undef W
#undef INLINE
