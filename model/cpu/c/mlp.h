/* A whole MLP with the norm before it and the residual connection. The MLP runs piece by piece, so that the hidden channels
   stay in a core's own cache and are never written to memory. */

#pragma once

#include "conv.h"
#include "matmul.h"
#include "norm.h"

#if HAS_TILES

/* The weights of an MLP: norm, first layer, convolution, second layer. */
typedef struct {
    const float *norm_w, *norm_b;
    const char *first_w;
    const float *first_b, *taps, *conv_b;
    const char *second_w;
    const float *second_b;
} Weights;

/* y = x + MLP(norm(x)) for maps of (height, width, channels) that lie end to end. `piece` is the most tokens of a piece; a
   map with more tokens is cut into rows. `space` holds 2 * (channels + 2 * hidden) * (tokens of a piece + 2 rows of the
   widest map that is cut) bytes. */
INLINE void whole_mlp(const char *x, Weights w, char *y, char *space, int64_t channels, int64_t hidden, int64_t maps,
                      const int64_t *sides, int64_t piece, float eps, int relu) {
    const int64_t token = 2 * channels, wide = 2 * hidden;
    for (int64_t m = 0; m < maps;) {
        /* A piece is as many whole maps as fit. */
        int64_t tokens = 0, count = 0;
        while (m + count < maps) {
            const int64_t more = sides[2 * (m + count)] * sides[2 * (m + count) + 1];
            if (tokens + more > piece) break;
            tokens += more;
            count++;
        }
        if (count) {
            char *normed = space, *before = normed + tokens * token, *after = before + tokens * wide;
            all_rows(x, w.norm_w, w.norm_b, normed, tokens, channels, eps, NATIVE);
            linear(normed, w.first_w, w.first_b, 0, before, tokens, channels, hidden);
            all_maps(before, w.taps, w.conv_b, after, hidden, count, sides + 2 * m, relu, NATIVE);
            linear(after, w.second_w, w.second_b, x, y, tokens, hidden, channels);
        } else {
            const int64_t height = sides[2 * m], width = sides[2 * m + 1];
            const int64_t fit = piece / width, rows = fit < 1 ? 1 : fit;
            char *normed = space, *before = normed + (rows + 1) * width * token;
            char *after = before + (rows + 2) * width * wide;
            /* `before` holds the rows from `kept` up to `made`. */
            int64_t kept = 0, made = 0;
            for (int64_t i = 0; i < height; i += rows) {
                const int64_t to = i + rows < height ? i + rows : height, top = to < height ? to + 1 : height;
                char *here = before + (made - kept) * width * wide;
                const int64_t more = (top - made) * width;
                all_rows(x + made * width * token, w.norm_w, w.norm_b, normed, more, channels, eps, NATIVE);
                linear(normed, w.first_w, w.first_b, 0, here, more, channels, hidden);
                made = top;
                some_map(before + (i - kept) * width * wide, w.taps, w.conv_b, after, to - i, width, hidden, i > 0,
                         to < height, relu, NATIVE);
                linear(after, w.second_w, w.second_b, x + i * width * token, y + i * width * token, (to - i) * width,
                       hidden, channels);
                __builtin_memmove(before, before + (to - 1 - kept) * width * wide, (made - to + 1) * width * wide);
                kept = to - 1;
            }
            tokens = height * width;
            count = 1;
        }
        x += tokens * token;
        y += tokens * token;
        m += count;
    }
}
#endif
