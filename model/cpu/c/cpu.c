/* The operations of the network on a processor, over maps of many sizes that lie end to end, each in one pass over memory:
   the depthwise 3x3 convolution with its bias and GELU, the norm over channels, and attention to few keys. For a processor
   that multiplies tiles of bfloat16, there are also linear layers, attention on tiles, and the whole MLP with its norm.

   The code is plain C with GCC's vector extensions, which clang has too. */

#define WIDTH 16
#include "forms.h"
#include "mlp.h"
#include "tiled_attention.h"

/* Each function is compiled for each instruction set and each type. At run time, the processor's best form is called. */
#if defined(__x86_64__)
#define HAS(feature) __builtin_cpu_supports(feature)
#define EXPORT(name, parameters, call)                                                                                 \
    __attribute__((target("avx512f"))) static void pvtv2_##name##_native parameters { call(NATIVE); }                 \
    __attribute__((target("avx512f"))) static void pvtv2_##name##_avx512 parameters { EACH_TYPE(call) }
#if defined(PVTV2_FORM) /* tests build one instruction set alone */
#define JOINED(name, form) pvtv2_##name##_##form
#define FORM(name, form) JOINED(name, form)
#define BEST(name, half) FORM(name, PVTV2_FORM)
#else
#define BEST(name, half)                                                                                               \
    (half && HAS("avx512f") && HAS("avx512bf16") ? pvtv2_##name##_native                                               \
     : HAS("avx512f")                            ? pvtv2_##name##_avx512                                               \
     : HAS("avx2") && HAS("fma")                 ? pvtv2_##name##_avx2                                                 \
                                                 : pvtv2_##name##_plain)
#endif
#else
#define EXPORT(name, parameters, call)
#define BEST(name, half) pvtv2_##name##_plain
#endif

#define PUBLIC __attribute__((visibility("default")))

EXPORT(conv, CONV_PARAMETERS, CONV)
PUBLIC void pvtv2_dwconv_gelu_2 CONV_PARAMETERS { BEST(conv, half)(x, w, b, y, channels, maps, sides, relu, half); }

EXPORT(norm, NORM_PARAMETERS, NORM)
PUBLIC void pvtv2_layer_norm_1 NORM_PARAMETERS { BEST(norm, half)(x, w, b, y, rows, channels, eps, half); }

EXPORT(attention, ATTENTION_PARAMETERS, ATTENTION)
PUBLIC void pvtv2_attention_1 ATTENTION_PARAMETERS {
    BEST(attention, half)(q, kv, y, space, channels, heads, images, counts, half);
}

/* Returns 1 if the processor can multiply tiles and Linux permits that. The functions below need both. */
PUBLIC int pvtv2_has_tiles_1(void) { return has_tiles(); }

#if HAS_TILES
#define TILED __attribute__((target("avx512f")))
#else
#define TILED
#endif

PUBLIC TILED void pvtv2_linear_1(const char *x, const char *w, const float *b, const char *residual, char *y,
                                 int64_t rows, int64_t inputs, int64_t outputs) {
#if HAS_TILES
    Tiles before;
    take_tiles(&before);
    linear(x, w, b, residual, y, rows, inputs, outputs);
    give_tiles_back(&before);
#endif
}

PUBLIC TILED void pvtv2_tiled_attention_1(const char *q, const char *kv, char *y, char *space, int64_t channels,
                                          int64_t heads, int64_t images, const int64_t *counts) {
#if HAS_TILES
    Tiles before;
    take_tiles(&before);
    all_images_tiled(q, kv, y, space, channels, heads, images, counts);
    give_tiles_back(&before);
#endif
}

PUBLIC TILED void pvtv2_mlp_1(const char *x, const void *const *weights, char *y, char *space, int64_t channels,
                              int64_t hidden, int64_t maps, const int64_t *sides, int64_t piece, float eps, int relu) {
#if HAS_TILES
    const Weights w = {weights[0], weights[1], weights[2], weights[3], weights[4], weights[5], weights[6], weights[7]};
    Tiles before;
    take_tiles(&before);
    whole_mlp(x, w, y, space, channels, hidden, maps, sides, piece, eps, relu);
    give_tiles_back(&before);
#endif
}
