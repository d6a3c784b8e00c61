/* The functions that are compiled once for each instruction set, and their parameters. A file defines WIDTH, the number of
   floats in a vector register of its instruction set, before it includes this file: a vector that is wider than a
   register would live in memory. */

#pragma once

#include "attention.h"
#include "conv.h"
#include "norm.h"

#define CONV_PARAMETERS                                                                                                \
    (const char *x, const float *w, const float *b, char *y, int64_t channels, int64_t maps, const int64_t *sides,     \
     int relu, int half)
#define CONV(type) all_maps(x, w, b, y, channels, maps, sides, relu, type)

#define NORM_PARAMETERS                                                                                                \
    (const char *x, const float *w, const float *b, char *y, int64_t rows, int64_t channels, float eps, int half)
#define NORM(type) all_rows(x, w, b, y, rows, channels, eps, type)

#define ATTENTION_PARAMETERS                                                                                           \
    (const char *q, const char *kv, char *y, float *space, int64_t channels, int64_t heads, int64_t images,            \
     const int64_t *counts, int half)
#define ATTENTION(type) all_images(q, kv, y, space, channels, heads, images, counts, type)

#define EACH_TYPE(call)                                                                                                \
    if (half)                                                                                                          \
        call(HALVES);                                                                                                  \
    else                                                                                                               \
        call(FLOATS);

#define HIDDEN __attribute__((visibility("hidden")))

#define DECLARE(form)                                                                                                  \
    HIDDEN void pvtv2_conv_##form CONV_PARAMETERS;                                                                     \
    HIDDEN void pvtv2_norm_##form NORM_PARAMETERS;                                                                     \
    HIDDEN void pvtv2_attention_##form ATTENTION_PARAMETERS;
#define DEFINE(form, target)                                                                                           \
    target void pvtv2_conv_##form CONV_PARAMETERS { EACH_TYPE(CONV) }                                                  \
    target void pvtv2_norm_##form NORM_PARAMETERS { EACH_TYPE(NORM) }                                                  \
    target void pvtv2_attention_##form ATTENTION_PARAMETERS { EACH_TYPE(ATTENTION) }

DECLARE(avx2)
DECLARE(plain)
