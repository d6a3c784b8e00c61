/* The depthwise 3x3 convolution of maps that lie end to end, with its bias and GELU. */

#pragma once

#include "numbers.h"

/* Convolves one vector of channels in `rows` (one or two) rows. The nine values around a token stay in registers and shift
   from token to token. The distances between tokens (`step`) and between rows (`row`) are in bytes. */
INLINE void some_rows(const char *x, const vec *w, vec bias, char *y, int64_t width, int64_t step, int64_t row, int rows,
                      int has_up, int has_down, int relu, int half) {
    const vec zero = {0};
    vec left[4] = {zero, zero, zero, zero}, here[4], right[4];
#define COLUMN(to, p)                                                                                                  \
    to[0] = has_up ? load((p) - row, half) : zero;                                                                     \
    to[1] = load(p, half);                                                                                             \
    if (rows == 2) to[2] = load((p) + row, half);                                                                      \
    to[rows + 1] = has_down ? load((p) + rows * row, half) : zero;                                                     \
    if (relu) /* NaN is not below zero, and is kept */                                                                 \
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
            store(y + i * row, half ? short_gelu(sum) : gelu(sum), half);
        }
        for (int d = 0; d < rows + 2; d++) left[d] = here[d], here[d] = right[d];
        x += step;
        y += step;
    }
}

/* Convolves rows of one map: x and y are (height, width, channels), w is (3, 3, channels). `above` and `below` say whether
   the map has another row before and after these rows; such a row lies next to these rows in x. */
INLINE void some_map(const char *x, const float *w, const float *b, char *y, int64_t height, int64_t width,
                     int64_t channels, int above, int below, int relu, int half) {
    const int64_t size = half ? 2 : 4, step = channels * size, row = width * step;
    /* Two rows at once need fewer loads. Two rows of floats do not fit into the nearest cache. */
    const int most = half ? 2 : 1;
    for (int64_t i = 0; i < height; i += most)
        for (int64_t e = 0; e < channels; e += LANES) {
            vec taps[9];
            for (int k = 0; k < 9; k++) taps[k] = *(const vec *)(w + k * channels + e);
            const int64_t at = i * row + e * size;
            const vec bias = *(const vec *)(b + e);
            const int has_up = above || i > 0, has_down = below || i + most < height;
            if (i + most > height)
                some_rows(x + at, taps, bias, y + at, width, step, row, 1, has_up, below, relu, half);
            else if (has_up && has_down)
                some_rows(x + at, taps, bias, y + at, width, step, row, most, 1, 1, relu, half);
            else
                some_rows(x + at, taps, bias, y + at, width, step, row, most, has_up, has_down, relu, half);
        }
}

INLINE void all_maps(const char *x, const float *w, const float *b, char *y, int64_t channels, int64_t maps,
                     const int64_t *sides, int relu, int half) {
    for (int64_t m = 0; m < maps; m++) {
        const int64_t height = sides[2 * m], width = sides[2 * m + 1];
        some_map(x, w, b, y, height, width, channels, 0, 0, relu, half);
        const int64_t size = height * width * channels * (half ? 2 : 4);
        x += size;
        y += size;
    }
}
