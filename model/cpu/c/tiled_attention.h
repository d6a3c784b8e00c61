/* Attention of the tokens of each image to the image's own keys, in bfloat16, by products of tiles. */

#pragma once

#include "matmul.h"

#if HAS_TILES

/* Returns 2 to the power of x, for x at most 0, with an error of at most 1e-4. NaN stays NaN. */
INLINE vec short_exp2(vec x) {
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to the nearest whole number */
    const ivec tiny = x < -125.0f; /* smaller results would be denormal numbers, which processors handle slowly */
    x = (vec)(((ivec)x & ~tiny) | ((ivec)((vec){0} - 125.0f) & tiny));
    vec shifted = x + magic;
    vec r = x - (shifted - magic);
    vec p = r * 0.0551716696f + 0.24261113f;
    p = p * r + 0.693260986f;
    p = p * r + 0.999928073f;
    return p * (vec)(((ivec)shifted << 23) + (127 << 23));
}

/* Lays out keys as the weights of a linear layer whose outputs are the scores of the keys. Keys are rows of `depth`
   channels, `row` bytes apart; rows from `keys` up to `whole` are zero. */
INLINE void lay_keys(const char *k, int64_t row, int64_t keys, int64_t whole, int64_t depth, char *to) {
    typedef uint32_t two __attribute__((aligned(2), may_alias));
    two *pairs = (two *)to;
    for (int64_t n = 0; n < whole; n += 32)
        for (int64_t d = 0; d < depth; d += 32)
            for (int64_t tile = n; tile < n + 32; tile += 16)
                for (int64_t r = 0; r < 16; r++)
                    for (int64_t m = tile; m < tile + 16; m++)
                        *pairs++ = m < keys ? *(const two *)(k + m * row + 2 * (d + 2 * r)) : 0;
}

/* Lays out values as the weights of a linear layer whose inputs are the shares of the keys. The arguments are as for
   `lay_keys`. */
INLINE void lay_values(const char *v, int64_t row, int64_t keys, int64_t whole, int64_t depth, char *to) {
    for (int64_t d = 0; d < depth; d += 32)
        for (int64_t m = 0; m < whole; m += 32)
            for (int64_t tile = d; tile < d + 32; tile += 16)
                for (int64_t r = m; r < m + 32; r += 2, to += 64) {
                    uvec even = {0}, odd = {0};
                    if (r < keys) even = __builtin_convertvector(*(const hvec *)(v + r * row + 2 * tile), uvec);
                    if (r + 1 < keys) odd = __builtin_convertvector(*(const hvec *)(v + (r + 1) * row + 2 * tile), uvec);
                    *(uvec *)to = even | odd << 16;
                }
}

/* Returns 16 scores, from score m on. In place of a score past the last key, the result has a very low number. */
INLINE vec some_of(const float *s, int64_t m, int64_t keys) {
    const ivec lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const ivec there = lane < (int32_t)(keys - m < LANES ? keys - m : LANES);
    return (vec)(((ivec) * (const vec *)(s + m) & there) | ((ivec)((vec){0} - 1e30f) & ~there));
}

/* For the scores of one token and its `keys` keys, writes 2 to the power of scale * (score - largest score) to p, and
   returns the sum of the powers. From the last key up to a whole tile, p is zero. */
INLINE float tiled_shares(const float *s, char *p, int64_t keys, float scale) {
    enum { BOTH = 2 * LANES };
    const int64_t last = (keys - 1) / BOTH * BOTH;
    const vec ends[2] = {some_of(s, last, keys), some_of(s, last + LANES, keys)};
    vec most = larger(ends[0], ends[1]), sum = {0};
    for (int64_t m = 0; m < last; m += LANES) most = larger(most, *(const vec *)(s + m));
    const vec offset = largest_lane(most) * scale;
    for (int64_t m = 0; m < last; m += BOTH) {
        const vec first = short_exp2(*(const vec *)(s + m) * scale - offset);
        const vec second = short_exp2(*(const vec *)(s + m + LANES) * scale - offset);
        store_two(p + 2 * m, first, second);
        sum += first + second;
    }
    const vec first = short_exp2(ends[0] * scale - offset), second = short_exp2(ends[1] * scale - offset);
    store_two(p + 2 * last, first, second);
    return sum_lanes(sum + first + second)[0];
}

/* Computes the attention of up to 32 tokens in one head; q and y are rows of `row` bytes. */
INLINE void some_tokens(const char *q, const char *k, const char *v, char *y, float *s, char *p, int64_t row, int64_t keys,
                        int64_t whole, int64_t depth, float scale, int tokens, int halves) {
    float sums[32][32] __attribute__((aligned(64))), shares[32];
    for (int64_t n = 0; n < whole; n += 32) {
        add_up(q, row, k + 2 * n * depth, depth, halves);
        store_sums(s + n, 4 * whole, halves);
    }
    for (int i = 0; i < tokens; i++)
        shares[i] = 1.0f / tiled_shares(s + i * whole, p + 2 * i * whole, keys, scale);
    for (int64_t d = 0; d < depth; d += 32) {
        add_up(p, 2 * whole, v + 2 * d * whole, whole, halves);
        store_sums(sums[0], sizeof sums[0], halves);
        for (int i = 0; i < tokens; i++)
            store_two(y + i * row + 2 * d, *(vec *)sums[i] * shares[i], *(vec *)(sums[i] + LANES) * shares[i]);
    }
}

/* Computes the attention of each token to its own image's keys; arguments as for `all_images`. `space` holds
   (4 * depth + 192) * (most keys of an image, rounded up to a multiple of 32) bytes. */
INLINE void all_images_tiled(const char *q, const char *kv, char *y, char *space, int64_t channels, int64_t heads,
                             int64_t images, const int64_t *counts) {
    const int64_t depth = channels / heads, row = 2 * channels;
    const float scale = 1.44269504f / __builtin_sqrtf((float)depth);
    for (int64_t image = 0; image < images; image++) {
        const int64_t tokens = counts[2 * image], keys = counts[2 * image + 1], whole = (keys + 31) / 32 * 32;
        const int64_t blocks = tokens / 32 * 32;
        const int rest = (int)(tokens - blocks);
        char *k = space, *v = k + 2 * depth * whole, *p = v + 2 * depth * whole;
        float *s = (float *)(p + 64 * whole);
        for (int64_t head = 0; head < heads; head++) {
            const int64_t at = 2 * head * depth;
            lay_keys(kv + at, 2 * row, keys, whole, depth, k);
            lay_values(kv + row + at, 2 * row, keys, whole, depth, v);
            for (int64_t t = 0; t < blocks; t += 32)
                some_tokens(q + t * row + at, k, v, y + t * row + at, s, p, row, keys, whole, depth, scale, 32, 2);
            if (rest) {
                const int64_t last = blocks * row + at;
                shape_tiles(rest < 16 ? rest : 16, rest > 16 ? rest - 16 : 16);
                some_tokens(q + last, k, v, y + last, s, p, row, keys, whole, depth, scale, rest, rest > 16 ? 2 : 1);
                shape_tiles(16, 16);
            }
        }
        q += tokens * row;
        y += tokens * row;
        kv += keys * 2 * row;
    }
}
#endif
