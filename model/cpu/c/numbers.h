/* Vectors of WIDTH numbers, how they are loaded and stored, and functions of their elements. */

#pragma once

#include <stdint.h>
#include <stddef.h>

typedef float vec __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef uint32_t uvec __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef uint16_t hvec __attribute__((vector_size(2 * WIDTH), aligned(2), may_alias));

enum { LANES = WIDTH };

#define INLINE static inline __attribute__((always_inline))

/* Values of `half`: FLOATS for float; HALVES for bfloat16, which is the upper half of a float's bits; NATIVE for bfloat16 on
   a processor that has an instruction for rounding to it. */
enum { FLOATS = 0, HALVES = 1, NATIVE = 2 };

INLINE vec load(const char *p, int half) {
    if (!half) return *(const vec *)p;
    return (vec)(__builtin_convertvector(*(const hvec *)p, uvec) << 16);
}

/* Stores a vector. For bfloat16, numbers are rounded to the nearest value, ties to the even value; NaN stays NaN. */
INLINE void store(char *p, vec v, int half) {
    if (!half) {
        *(vec *)p = v;
        return;
    }
#if defined(__x86_64__) && WIDTH == 16
    if (half == NATIVE) {
        hvec rounded;
        __asm__("vcvtneps2bf16 %g1, %t0" : "=v"(rounded) : "v"(v));
        *(hvec *)p = rounded;
        return;
    }
#endif
    uvec bits = (uvec)v, none = (uvec)(v != v);
    uvec rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    *(hvec *)p = __builtin_convertvector((rounded & ~none) | (none & 0x7fc0), hvec);
}

/* Returns 2 to the power of r, for r from -1/2 to 1/2. */
INLINE vec exp2_small(vec r) {
    vec p = r * 1.327646906e-3f + 9.675541311e-3f;
    p = p * r + 5.550713283e-2f;
    p = p * r + 0.2402211972f;
    p = p * r + 0.6931469671f;
    p = p * r + 1.000000072f;
    return p;
}

/* Returns x * P(x), where P is the distribution function of the normal distribution, as max(x, 0) - |x| * P(-|x|). The
   logarithm of P(-|x|) is a polynomial of degree 8, fitted for |x| in [0, 6]; beyond 6, |x| * P(-|x|) is less than 1e-8.
   The error is at most 1e-7. */
INLINE vec gelu(vec x) {
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to the nearest whole number */
    const vec six = (vec){0} + 6.0f, zero = {0};
    vec z = (vec)((ivec)x & 0x7fffffff);
    ivec small = z < 6.0f;
    z = (vec)(((ivec)z & small) | ((ivec)six & ~small));
    vec q = z * -7.112476595e-7f + 1.215808638e-5f;
    q = q * z - 4.754549042e-5f;
    q = q * z - 4.974437316e-4f;
    q = q * z + 7.574396543e-3f;
    q = q * z - 5.28848496e-2f;
    q = q * z - 0.4590644395f;
    q = q * z - 1.151124525f;
    q = q * z - 1.0f;
    vec shifted = q + magic;
    vec share = (vec)((ivec)exp2_small(q - (shifted - magic)) + ((ivec)shifted << 23));
    return (vec)((ivec)x & ~(x < zero)) - z * share;
}

/* Returns the GELU for results that are rounded to bfloat16: P(x) - 1/2 is an odd polynomial up to 4.25, where it reaches
   1/2. The error is at most 6e-5, which is less than the rounding error of values above 0.03. */
INLINE vec short_gelu(vec x) {
    const vec most = (vec){0} + 4.25f;
    const ivec sign = (ivec)x & INT32_MIN, small = (vec)((ivec)x & 0x7fffffff) < most;
    const vec z = (vec)(((ivec)x & small) | (((ivec)most | sign) & ~small));
    const vec t = z * z;
    vec p = t * 6.76948081e-11f - 6.33921893e-9f;
    p = p * t + 2.61048939e-7f;
    p = p * t - 6.30107206e-6f;
    p = p * t + 1.00918602e-4f;
    p = p * t - 1.15769776e-3f;
    p = p * t + 9.99684352e-3f;
    p = p * t - 6.66737854e-2f;
    p = p * t + 0.399114519f;
    return x * (z * p + 0.5f);
}

/* Returns 2 to the power of x, for x at most 0. NaN stays NaN. */
INLINE vec exp2_nonpositive(vec x) {
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to the nearest whole number */
    const ivec tiny = x < -126.0f;
    x = (vec)(((ivec)x & ~tiny) | ((ivec)((vec){0} - 126.0f) & tiny));
    vec shifted = x + magic;
    return exp2_small(x - (shifted - magic)) * (vec)(((ivec)shifted << 23) + (127 << 23));
}

/* Exchanges lanes that are `by` apart: 8, 4, 2 or 1, and less than WIDTH. */
#if WIDTH == 16
#define EXCHANGE_8(v) __builtin_shuffle(v, (ivec){8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7})
#define EXCHANGE_4(v) __builtin_shuffle(v, (ivec){4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11})
#define EXCHANGE_2(v) __builtin_shuffle(v, (ivec){2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13})
#define EXCHANGE_1(v) __builtin_shuffle(v, (ivec){1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14})
#elif WIDTH == 8
#define EXCHANGE_4(v) __builtin_shuffle(v, (ivec){4, 5, 6, 7, 0, 1, 2, 3})
#define EXCHANGE_2(v) __builtin_shuffle(v, (ivec){2, 3, 0, 1, 6, 7, 4, 5})
#define EXCHANGE_1(v) __builtin_shuffle(v, (ivec){1, 0, 3, 2, 5, 4, 7, 6})
#else
#define EXCHANGE_2(v) __builtin_shuffle(v, (ivec){2, 3, 0, 1})
#define EXCHANGE_1(v) __builtin_shuffle(v, (ivec){1, 0, 3, 2})
#endif

/* Returns the sum of all lanes, in each lane. */
INLINE vec sum_lanes(vec v) {
#if WIDTH >= 16
    v += EXCHANGE_8(v);
#endif
#if WIDTH >= 8
    v += EXCHANGE_4(v);
#endif
    v += EXCHANGE_2(v);
    v += EXCHANGE_1(v);
    return v;
}

INLINE vec larger(vec a, vec b) {
    const ivec more = b > a;
    return (vec)(((ivec)b & more) | ((ivec)a & ~more));
}

/* Returns the largest lane, in each lane. */
INLINE vec largest_lane(vec v) {
#if WIDTH >= 16
    v = larger(v, EXCHANGE_8(v));
#endif
#if WIDTH >= 8
    v = larger(v, EXCHANGE_4(v));
#endif
    v = larger(v, EXCHANGE_2(v));
    return larger(v, EXCHANGE_1(v));
}

INLINE float one(const char *p, int64_t index, int half) {
    if (!half) return ((const float *)p)[index];
    union {
        uint32_t bits;
        float value;
    } wide = {(uint32_t)((const uint16_t *)p)[index] << 16};
    return wide.value;
}
