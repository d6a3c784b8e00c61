/* Attention of the tokens of each image to the image's own keys. */

#pragma once

#include "numbers.h"

/* Queries that are processed together, so that their sums fit into the registers; keys that are summed before the sum is
   stored. */
enum { QUERIES = WIDTH == 16 ? 8 : 4, SUMMED = 256 };

/* Computes the scores of one or two vectors of keys. Scores are (QUERIES, keys), queries (QUERIES, depth), and keys
   (depth, keys). */
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

/* Replaces each of the `keys` scores by 2 to the power of (score - largest score), and returns the sum of the powers. */
INLINE float shares(float *s, int64_t keys) {
    vec most = *(vec *)s, sum = {0};
    for (int64_t m = LANES; m < keys; m += LANES) most = larger(most, *(vec *)(s + m));
    const vec top = largest_lane(most);
    for (int64_t m = 0; m < keys; m += LANES) {
        const vec share = exp2_nonpositive(*(vec *)(s + m) - top);
        *(vec *)(s + m) = share;
        sum += share;
    }
    return sum_lanes(sum)[0];
}

/* Computes the sums of the values (keys, depth), weighted by the shares (QUERIES, stride), for one or two vectors of
   channels. */
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

/* Computes the attention of each token to its own image's keys, head by head. q and y are (tokens, channels); kv is
   (keys, 2 * channels): keys, then values. `counts` has the number of tokens and of keys of each image. `space` holds
   (2 * depth + QUERIES) * (most keys of an image, rounded up to whole vectors) + 2 * QUERIES * depth floats. */
INLINE void all_images(const char *q, const char *kv, char *y, float *space, int64_t channels, int64_t heads, int64_t images,
                       const int64_t *counts, int half) {
    const int64_t depth = channels / heads, size = half ? 2 : 4;
    const float scale = 1.44269504f / __builtin_sqrtf((float)depth); /* log2(e): powers are taken to the base 2 */
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
                for (int64_t i = 0; i < QUERIES; i++) { /* if there are fewer queries, the last one is repeated */
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
