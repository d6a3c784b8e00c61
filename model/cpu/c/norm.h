/* The norm over the channels of each token. */

#pragma once

#include "numbers.h"

/* y = (x - mean) / sqrt(variance + eps) * w + b, for each row. */
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
