/* Depthwise 3x3 convolution with zero padding over maps of many sizes that lie end to end, its bias, and GELU, in one pass.

   Plain C with GCC's vector extensions, which clang has too; compiled once for each instruction set, the best of which is
   taken when it runs. */

#include <stdint.h>
#include <stddef.h>

typedef float vec __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t uvec __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint16_t hvec __attribute__((vector_size(32), aligned(2), may_alias));

enum { LANES = 16 };

#define INLINE static inline __attribute__((always_inline))

/* e to the power of x, for x in [-87, 0]: 2^n by the exponent's bits, the rest by a polynomial. */
INLINE vec exp_nonpositive(vec x) {
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to the nearest whole number */
    vec shifted = x * 1.44269504f + magic;
    vec n = shifted - magic;
    vec r = x - n * 0.693145752f;
    r = r - n * 1.42860677e-6f;
    vec p = r * 1.388888889e-3f + 8.333333333e-3f;
    p = p * r + 4.166666667e-2f;
    p = p * r + 1.666666667e-1f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    ivec bits = (ivec)shifted << 23;
    return (vec)((ivec)p + bits);
}

/* x * (1 + erf(x / sqrt 2)) / 2, with erf as of Abramowitz and Stegun 7.1.26: within 1.5e-7 of it. */
INLINE vec gelu(vec x) {
    ivec sign = (ivec)x & (int32_t)0x80000000;
    vec z = (vec)((ivec)x & 0x7fffffff) * 0.707106781f;
    ivec large = z > 9.0f;
    z = (vec)(((ivec)z & ~large) | ((ivec)((vec){0} + 9.0f) & large));
    vec t = 1.0f / (1.0f + 0.3275911f * z);
    vec p = t * 1.061405429f - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    vec erf = 1.0f - p * t * exp_nonpositive(-z * z);
    erf = (vec)((ivec)erf | sign);
    return x * 0.5f * (1.0f + erf);
}

/* Values are float, or, where `half`, bfloat16: the upper half of a float's bits. */
INLINE vec load(const char *p, int half) {
    if (!half) return *(const vec *)p;
    return (vec)(__builtin_convertvector(*(const hvec *)p, uvec) << 16);
}

/* Rounds to the nearest, of two as near to the even one; what is no number stays none. */
INLINE void store(char *p, vec v, int half) {
    if (!half) {
        *(vec *)p = v;
        return;
    }
    uvec bits = (uvec)v, none = (uvec)(v != v);
    uvec rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    *(hvec *)p = __builtin_convertvector((rounded & ~none) | (none & 0x7fc0), hvec);
}

/* One vector of channels of a row: the three by three values around a place slide along with it in registers. Steps
   between channels (`step`) and rows (`row`) are in bytes. */
INLINE void one_row(const char *x, const vec *w, vec bias, char *y, int64_t width, int64_t step, int64_t row, int has_up,
                    int has_down, int relu, int half) {
    const vec zero = {0};
    vec left[3] = {zero, zero, zero}, here[3], right[3];
#define COLUMN(to, p)                                                                                                  \
    to[0] = has_up ? load((p) - row, half) : zero;                                                                     \
    to[1] = load(p, half);                                                                                             \
    to[2] = has_down ? load((p) + row, half) : zero;                                                                   \
    if (relu) /* what is no number is not below zero, and stays */                                                     \
        for (int d = 0; d < 3; d++) to[d] = (vec)((ivec)to[d] & ~(to[d] <= zero));
    COLUMN(here, x)
    for (int64_t j = 0; j < width; j++) {
        if (j + 1 < width) {
            COLUMN(right, x + step)
        } else {
            right[0] = right[1] = right[2] = zero;
        }
        vec sum = bias;
        for (int d = 0; d < 3; d++) sum += left[d] * w[3 * d] + here[d] * w[3 * d + 1] + right[d] * w[3 * d + 2];
        store(y, gelu(sum), half);
        for (int d = 0; d < 3; d++) left[d] = here[d], here[d] = right[d];
        x += step;
        y += step;
    }
}

/* One map: x and y are (height, width, channels), w is (3, 3, channels). */
INLINE void one_map(const char *x, const float *w, const float *b, char *y, int64_t height, int64_t width,
                    int64_t channels, int relu, int half) {
    const int64_t size = half ? 2 : 4, step = channels * size, row = width * step;
    for (int64_t i = 0; i < height; i++)
        for (int64_t e = 0; e < channels; e += LANES) {
            vec taps[9];
            for (int k = 0; k < 9; k++) taps[k] = *(const vec *)(w + k * channels + e);
            const int64_t at = i * row + e * size;
            const vec bias = *(const vec *)(b + e);
            if (i > 0 && i + 1 < height)
                one_row(x + at, taps, bias, y + at, width, step, row, 1, 1, relu, half);
            else
                one_row(x + at, taps, bias, y + at, width, step, row, i > 0, i + 1 < height, relu, half);
        }
}

INLINE void all_maps(const char *x, const float *w, const float *b, char *y, int64_t channels, int64_t maps,
                     const int64_t *sides, int relu, int half) {
    for (int64_t m = 0; m < maps; m++) {
        const int64_t height = sides[2 * m], width = sides[2 * m + 1];
        one_map(x, w, b, y, height, width, channels, relu, half);
        const int64_t size = height * width * channels * (half ? 2 : 4);
        x += size;
        y += size;
    }
}

#define ARGUMENTS                                                                                                      \
    const char *x, const float *w, const float *b, char *y, int64_t channels, int64_t maps, const int64_t *sides,      \
        int relu, int half
/* Each type gets code of its own. */
#define CALL                                                                                                           \
    if (half)                                                                                                          \
        all_maps(x, w, b, y, channels, maps, sides, relu, 1);                                                          \
    else                                                                                                               \
        all_maps(x, w, b, y, channels, maps, sides, relu, 0)

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static void maps_avx512(ARGUMENTS) { CALL; }
__attribute__((target("avx2,fma"))) static void maps_avx2(ARGUMENTS) { CALL; }
#endif
static void maps_plain(ARGUMENTS) { CALL; }

__attribute__((visibility("default"))) void pvtv2_dwconv_gelu_2(ARGUMENTS) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) {
        maps_avx512(x, w, b, y, channels, maps, sides, relu, half);
        return;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        maps_avx2(x, w, b, y, channels, maps, sides, relu, half);
        return;
    }
#endif
    maps_plain(x, w, b, y, channels, maps, sides, relu, half);
}
