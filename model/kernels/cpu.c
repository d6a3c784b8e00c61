/* What a network does token by token or between neighbours, over maps of many sizes that lie end to end: the depthwise 3x3
   convolution with its bias and GELU, the norm over channels, and attention to few keys, each in one pass.

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

/* x times the normal distribution's share below x: max(x, 0) - |x| * share below -|x|. The logarithm of that share is a
   polynomial of degree 8, fitted for [0, 6]; beyond, less than 1e-8 is left of x below zero. Within 1e-7 of the truth. */
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
    vec r = q - (shifted - magic);
    vec p = r * 1.327646906e-3f + 9.675541311e-3f;
    p = p * r + 5.550713283e-2f;
    p = p * r + 0.2402211972f;
    p = p * r + 0.6931469671f;
    p = p * r + 1.000000072f;
    vec share = (vec)((ivec)p + ((ivec)shifted << 23));
    return (vec)((ivec)x & ~(x < zero)) - z * share;
}

/* Values are float, or, where `half` is not 0, bfloat16: the upper half of a float's bits. Where it is NATIVE, the
   processor has an instruction that rounds to them. */
enum { FLOATS = 0, HALVES = 1, NATIVE = 2 };

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
#if defined(__x86_64__)
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

/* One vector of channels of `rows` (one or two) rows: the values around a place slide along with it in registers. Steps
   between channels (`step`) and rows (`row`) are in bytes. */
INLINE void some_rows(const char *x, const vec *w, vec bias, char *y, int64_t width, int64_t step, int64_t row, int rows,
                      int has_up, int has_down, int relu, int half) {
    const vec zero = {0};
    vec left[4] = {zero, zero, zero, zero}, here[4], right[4];
#define COLUMN(to, p)                                                                                                  \
    to[0] = has_up ? load((p) - row, half) : zero;                                                                     \
    to[1] = load(p, half);                                                                                             \
    if (rows == 2) to[2] = load((p) + row, half);                                                                      \
    to[rows + 1] = has_down ? load((p) + rows * row, half) : zero;                                                     \
    if (relu) /* what is no number is not below zero, and stays */                                                     \
        for (int d = 0; d < rows + 2; d++) to[d] = (vec)((ivec)to[d] & ~(to[d] <= zero));
    COLUMN(here, x)
    for (int64_t j = 0; j < width; j++) {
        if (j + 1 < width) {
            COLUMN(right, x + step)
        } else {
            right[0] = right[1] = right[2] = right[3] = zero;
        }
        for (int i = 0; i < rows; i++) {
            vec sum = bias;
            for (int d = 0; d < 3; d++)
                sum += left[i + d] * w[3 * d] + here[i + d] * w[3 * d + 1] + right[i + d] * w[3 * d + 2];
            store(y + i * row, gelu(sum), half);
        }
        for (int d = 0; d < rows + 2; d++) left[d] = here[d], here[d] = right[d];
        x += step;
        y += step;
    }
}

/* One map: x and y are (height, width, channels), w is (3, 3, channels). */
INLINE void one_map(const char *x, const float *w, const float *b, char *y, int64_t height, int64_t width,
                    int64_t channels, int relu, int half) {
    const int64_t size = half ? 2 : 4, step = channels * size, row = width * step;
    /* Two rows at once load less; of floats they are too much for the nearest cache. */
    const int most = half ? 2 : 1;
    for (int64_t i = 0; i < height; i += most)
        for (int64_t e = 0; e < channels; e += LANES) {
            vec taps[9];
            for (int k = 0; k < 9; k++) taps[k] = *(const vec *)(w + k * channels + e);
            const int64_t at = i * row + e * size;
            const vec bias = *(const vec *)(b + e);
            if (i > 0 && i + most < height)
                some_rows(x + at, taps, bias, y + at, width, step, row, most, 1, 1, relu, half);
            else if (i + most <= height)
                some_rows(x + at, taps, bias, y + at, width, step, row, most, i > 0, i + most < height, relu, half);
            else
                some_rows(x + at, taps, bias, y + at, width, step, row, 1, i > 0, 0, relu, half);
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

/* The sum of all lanes, in each of them. */
INLINE vec sum_lanes(vec v) {
    v += __builtin_shuffle(v, (ivec){8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7});
    v += __builtin_shuffle(v, (ivec){4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11});
    v += __builtin_shuffle(v, (ivec){2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13});
    v += __builtin_shuffle(v, (ivec){1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14});
    return v;
}

/* Each row less its mean, over the root of its variance and eps, times w, plus b. */
INLINE void all_rows(const char *x, const float *w, const float *b, char *y, int64_t rows, int64_t channels, float eps,
                     int half) {
    const int64_t size = half ? 2 : 4;
    const float share = 1.0f / (float)channels;
    for (int64_t i = 0; i < rows; i++) {
        vec sum = {0}, squares = {0};
        for (int64_t e = 0; e < channels; e += LANES) sum += load(x + e * size, half);
        const vec mean = sum_lanes(sum) * share;
        for (int64_t e = 0; e < channels; e += LANES) {
            const vec d = load(x + e * size, half) - mean;
            squares += d * d;
        }
        const float scale = 1.0f / __builtin_sqrtf(sum_lanes(squares)[0] * share + eps);
        for (int64_t e = 0; e < channels; e += LANES) {
            const vec d = (load(x + e * size, half) - mean) * scale;
            store(y + e * size, d * *(const vec *)(w + e) + *(const vec *)(b + e), half);
        }
        x += channels * size;
        y += channels * size;
    }
}

enum { QUERIES = 8, SUMMED = 256 }; /* queries that are at work together; keys whose sum is taken at once */

/* 2 to the power of x, for x at most 0. What is no number stays none. */
INLINE vec exp2_nonpositive(vec x) {
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to the nearest whole number */
    const ivec tiny = x < -126.0f;
    x = (vec)(((ivec)x & ~tiny) | ((ivec)((vec){0} - 126.0f) & tiny));
    vec shifted = x + magic;
    vec r = x - (shifted - magic);
    vec p = r * 1.327646906e-3f + 9.675541311e-3f;
    p = p * r + 5.550713283e-2f;
    p = p * r + 0.2402211972f;
    p = p * r + 0.6931469671f;
    p = p * r + 1.000000072f;
    return p * (vec)(((ivec)shifted << 23) + (127 << 23));
}

/* Some vectors of keys (one or two) of the scores (QUERIES, keys) of queries (QUERIES, depth) and keys (depth, keys). */
INLINE void some_scores(const float *q, const float *k, float *s, int64_t keys, int64_t depth, int vectors) {
    vec sums[QUERIES][2] = {{{0}}};
    for (int64_t d = 0; d < depth; d++)
        for (int h = 0; h < vectors; h++) {
            const vec key = *(const vec *)(k + d * keys + h * LANES);
            for (int i = 0; i < QUERIES; i++) sums[i][h] += q[i * depth + d] * key;
        }
    for (int i = 0; i < QUERIES; i++)
        for (int h = 0; h < vectors; h++) *(vec *)(s + i * keys + h * LANES) = sums[i][h];
}

/* Scores (keys), to the base of 2, become their shares, times their sum, which is given. */
INLINE float shares(float *s, int64_t keys) {
    vec most = *(vec *)s, sum = {0};
    for (int64_t m = LANES; m < keys; m += LANES) {
        const vec each = *(vec *)(s + m);
        const ivec more = each > most;
        most = (vec)(((ivec)each & more) | ((ivec)most & ~more));
    }
    float top = most[0];
    for (int i = 1; i < LANES; i++) top = most[i] > top ? most[i] : top;
    for (int64_t m = 0; m < keys; m += LANES) {
        const vec share = exp2_nonpositive(*(vec *)(s + m) - top);
        *(vec *)(s + m) = share;
        sum += share;
    }
    return sum_lanes(sum)[0];
}

/* Some vectors of channels (one or two) of the sums of values (keys, depth) by shares (QUERIES, stride). */
INLINE void some_sums(const float *s, int64_t stride, const float *v, float *y, int64_t keys, int64_t depth, int vectors) {
    for (int64_t from = 0; from < keys; from += SUMMED) {
        const int64_t to = from + SUMMED < keys ? from + SUMMED : keys;
        vec sums[QUERIES][2] = {{{0}}};
        for (int64_t m = from; m < to; m++)
            for (int h = 0; h < vectors; h++) {
                const vec value = *(const vec *)(v + m * depth + h * LANES);
                for (int i = 0; i < QUERIES; i++) sums[i][h] += s[i * stride + m] * value;
            }
        for (int i = 0; i < QUERIES; i++)
            for (int h = 0; h < vectors; h++) {
                vec *to_add = (vec *)(y + i * depth + h * LANES);
                if (from) sums[i][h] += *to_add;
                *to_add = sums[i][h];
            }
    }
}

INLINE float one(const char *p, int64_t index, int half) {
    if (!half) return ((const float *)p)[index];
    union {
        uint32_t bits;
        float value;
    } wide = {(uint32_t)((const uint16_t *)p)[index] << 16};
    return wide.value;
}

/* What each token gathers from its own image's keys, head by head. q and y are (tokens, channels); kv is (keys, 2 * channels):
   keys, then values. `counts` has tokens and keys of each image. `space` is for the largest image:
   (2 * depth + QUERIES) * (its keys, up to whole vectors) + 2 * QUERIES * depth floats. */
INLINE void all_images(const char *q, const char *kv, char *y, float *space, int64_t channels, int64_t heads, int64_t images,
                       const int64_t *counts, int half) {
    const int64_t depth = channels / heads, size = half ? 2 : 4;
    const float scale = 1.44269504f / __builtin_sqrtf((float)depth); /* to the base of 2 */
    for (int64_t image = 0; image < images; image++) {
        const int64_t tokens = counts[2 * image], keys = counts[2 * image + 1];
        const int64_t whole = (keys + LANES - 1) / LANES * LANES;
        float *k = space, *v = k + depth * whole, *s = v + depth * whole;
        float *some_q = s + QUERIES * whole, *some_y = some_q + QUERIES * depth;
        for (int64_t head = 0; head < heads; head++) {
            const char *of_head = kv + head * depth * size;
            for (int64_t m = 0; m < keys; m++) {
                const char *row = of_head + m * 2 * channels * size;
                for (int64_t d = 0; d < depth; d++) k[d * whole + m] = one(row, d, half) * scale;
                for (int64_t d = 0; d < depth; d += LANES)
                    *(vec *)(v + m * depth + d) = load(row + (channels + d) * size, half);
            }
            for (int64_t d = 0; d < depth; d++)
                for (int64_t m = keys; m < whole; m++) k[d * whole + m] = 0;
            for (int64_t t = 0; t < tokens; t += QUERIES) {
                const int64_t count = tokens - t < QUERIES ? tokens - t : QUERIES;
                for (int64_t i = 0; i < QUERIES; i++) { /* short of queries, the last one is there again */
                    const char *row = q + ((t + (i < count ? i : count - 1)) * channels + head * depth) * size;
                    for (int64_t d = 0; d < depth; d += LANES) *(vec *)(some_q + i * depth + d) = load(row + d * size, half);
                }
                for (int64_t m = 0; m < whole; m += 2 * LANES)
                    if (m + LANES < whole)
                        some_scores(some_q, k + m, s + m, whole, depth, 2);
                    else
                        some_scores(some_q, k + m, s + m, whole, depth, 1);
                float sums[QUERIES];
                for (int64_t i = 0; i < QUERIES; i++) {
                    for (int64_t m = keys; m < whole; m++) s[i * whole + m] = -1e30f;
                    sums[i] = shares(s + i * whole, whole);
                }
                for (int64_t d = 0; d < depth; d += 2 * LANES)
                    if (d + LANES < depth)
                        some_sums(s, whole, v + d, some_y + d, keys, depth, 2);
                    else
                        some_sums(s, whole, v + d, some_y + d, keys, depth, 1);
                for (int64_t i = 0; i < count; i++) {
                    char *row = y + ((t + i) * channels + head * depth) * size;
                    const float share = 1.0f / sums[i];
                    for (int64_t d = 0; d < depth; d += LANES)
                        store(row + d * size, *(vec *)(some_y + i * depth + d) * share, half);
                }
            }
        }
        q += tokens * channels * size;
        y += tokens * channels * size;
        kv += keys * 2 * channels * size;
    }
}

/* Each function is compiled for each instruction set and each type, and takes the best that there is when it runs. */
#if defined(__x86_64__)
#define HAS(feature) __builtin_cpu_supports(feature)
#define EXPORT(name, parameters, call)                                                                                 \
    __attribute__((target("avx512f"))) static void name##_native parameters { call(NATIVE); }                         \
    __attribute__((target("avx512f"))) static void name##_avx512 parameters { EACH_TYPE(call) }                       \
    __attribute__((target("avx2,fma"))) static void name##_avx2 parameters { EACH_TYPE(call) }                        \
    static void name##_plain parameters { EACH_TYPE(call) }
#if defined(PVTV2_FORM) /* one of them, for tests */
#define JOINED(name, form) name##_##form
#define FORM(name, form) JOINED(name, form)
#define BEST(name, half) FORM(name, PVTV2_FORM)
#else
#define BEST(name, half)                                                                                               \
    (half && HAS("avx512f") && HAS("avx512bf16") ? name##_native                                                       \
     : HAS("avx512f")                            ? name##_avx512                                                       \
     : HAS("avx2") && HAS("fma")                 ? name##_avx2                                                         \
                                                 : name##_plain)
#endif
#else
#define EXPORT(name, parameters, call)                                                                                 \
    static void name##_plain parameters { EACH_TYPE(call) }
#define BEST(name, half) name##_plain
#endif
#define EACH_TYPE(call)                                                                                                \
    if (half)                                                                                                          \
        call(HALVES);                                                                                                  \
    else                                                                                                               \
        call(FLOATS);

#define PUBLIC __attribute__((visibility("default")))

#define CONV_PARAMETERS                                                                                                \
    (const char *x, const float *w, const float *b, char *y, int64_t channels, int64_t maps, const int64_t *sides,     \
     int relu, int half)
#define CONV(type) all_maps(x, w, b, y, channels, maps, sides, relu, type)
EXPORT(conv, CONV_PARAMETERS, CONV)
PUBLIC void pvtv2_dwconv_gelu_2 CONV_PARAMETERS { BEST(conv, half)(x, w, b, y, channels, maps, sides, relu, half); }

#define NORM_PARAMETERS                                                                                                \
    (const char *x, const float *w, const float *b, char *y, int64_t rows, int64_t channels, float eps, int half)
#define NORM(type) all_rows(x, w, b, y, rows, channels, eps, type)
EXPORT(norm, NORM_PARAMETERS, NORM)
PUBLIC void pvtv2_layer_norm_1 NORM_PARAMETERS { BEST(norm, half)(x, w, b, y, rows, channels, eps, half); }

#define ATTENTION_PARAMETERS                                                                                           \
    (const char *q, const char *kv, char *y, float *space, int64_t channels, int64_t heads, int64_t images,            \
     const int64_t *counts, int half)
#define ATTENTION(type) all_images(q, kv, y, space, channels, heads, images, counts, type)
EXPORT(attention, ATTENTION_PARAMETERS, ATTENTION)
PUBLIC void pvtv2_attention_1 ATTENTION_PARAMETERS {
    BEST(attention, half)(q, kv, y, space, channels, heads, images, counts, half);
}
