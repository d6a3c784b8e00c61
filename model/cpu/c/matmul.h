/* Linear layers of bfloat16 on a processor that multiplies tiles (AMX). A tile is 16 rows of 64 bytes; one instruction
   multiplies 16 rows by 16 columns over 32 values, and adds the products to sums in float.

   The weights are laid out as the instruction reads them: for each 32 columns, and for each 32 inputs, two tiles of 16
   columns. Row r of a tile has the inputs 2r and 2r + 1 of each column. */

#pragma once

#include "numbers.h"

/* The assemblers of older compilers do not know the instructions. */
#if defined(__x86_64__) && defined(__linux__) && !defined(PVTV2_FORM) && (__GNUC__ >= 11 || __clang_major__ >= 12)
#define HAS_TILES 1

#include <sys/syscall.h>
#include <unistd.h>

typedef struct {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} Tiles;

/* Returns 1 if the processor has the instructions for tiles, and Linux grants the registers of tiles, which a process must
   request. */
static int has_tiles(void) {
    enum { REQUEST = 0x1023, TILE_DATA = 18 };
    uint32_t a = 7, b, c = 0, d;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bf16")) return 0;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    const uint32_t wanted = 1u << 22 | 1u << 24; /* tiles of bfloat16, tiles */
    return (d & wanted) == wanted && syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}

/* Sets the shapes of the tiles: 0 to 3 hold sums, 4 and 5 rows of x, 6 and 7 weights. `upper` and `lower` are the rows in
   the upper and in the lower half of a block. */
INLINE void shape_tiles(int upper, int lower) {
    Tiles tiles = {.palette = 1};
    const int rows[8] = {upper, upper, lower, lower, upper, lower, 16, 16};
    for (int i = 0; i < 8; i++) tiles.bytes[i] = 64, tiles.rows[i] = rows[i];
    __asm__ volatile("ldtilecfg %0" ::"m"(tiles));
}

/* Other code in this thread may use tiles with shapes of its own. `take_tiles` saves these shapes, and `give_tiles_back`
   restores them. */
INLINE void take_tiles(Tiles *before) {
    __asm__ volatile("sttilecfg %0" : "=m"(*before));
    shape_tiles(16, 16);
}

INLINE void give_tiles_back(const Tiles *before) {
    if (before->palette)
        __asm__ volatile("ldtilecfg %0" ::"m"(*before));
    else
        __asm__ volatile("tilerelease" ::: "memory");
}

#define ZERO(tile) __asm__ volatile("tilezero %%tmm" #tile ::: "memory")
#define LOAD(tile, p, step) __asm__ volatile("tileloadd (%0, %1), %%tmm" #tile ::"r"(p), "r"(step) : "memory")
#define STORE(tile, p, step) __asm__ volatile("tilestored %%tmm" #tile ", (%0, %1)" ::"r"(p), "r"(step) : "memory")
#define ADD_PRODUCTS(sum, x, w) __asm__ volatile("tdpbf16ps %%tmm" #w ", %%tmm" #x ", %%tmm" #sum ::: "memory")

/* Stores two vectors, rounded to bfloat16. */
INLINE void store_two(char *p, vec first, vec second) {
    typedef uint16_t pair __attribute__((vector_size(64), aligned(2), may_alias));
    pair rounded;
    __asm__("vcvtne2ps2bf16 %1, %2, %0" : "=v"(rounded) : "v"(first), "v"(second));
    *(pair *)p = rounded;
}

/* Computes x w in tiles 0 to 3, for 32 columns and for one or two `halves` of a block of rows of x. The rows are `row`
   bytes apart. */
INLINE void add_up(const char *x, int64_t row, const char *w, int64_t inputs, int halves) {
    const int64_t whole = 64;
    ZERO(0);
    ZERO(1);
    if (halves == 2) {
        ZERO(2);
        ZERO(3);
    }
    for (int64_t k = 0; k < inputs; k += 32, x += 64, w += 2048) {
        LOAD(4, x, row);
        LOAD(6, w, whole);
        ADD_PRODUCTS(0, 4, 6);
        LOAD(7, w + 1024, whole);
        ADD_PRODUCTS(1, 4, 7);
        if (halves == 2) {
            LOAD(5, x + 16 * row, row);
            ADD_PRODUCTS(2, 5, 6);
            ADD_PRODUCTS(3, 5, 7);
        }
    }
}

/* Stores the sums in rows of floats that are `row` bytes apart. */
INLINE void store_sums(float *sums, int64_t row, int halves) {
    char *upper = (char *)sums, *lower = upper + 16 * row;
    STORE(0, upper, row);
    STORE(1, upper + 64, row);
    if (halves == 2) {
        STORE(2, lower, row);
        STORE(3, lower + 64, row);
    }
}

/* y = x w + b, plus a residual if there is one, for up to 32 rows and 32 columns; the rows are `halves` of 16 rows each. */
INLINE void one_block(const char *x, const char *w, vec bias, vec bias2, const char *residual, char *y, int64_t inputs,
                      int64_t outputs, int rows, int halves) {
    float sums[32][32] __attribute__((aligned(64)));
    const int64_t y_row = 2 * outputs;
    add_up(x, 2 * inputs, w, inputs, halves);
    store_sums(sums[0], sizeof sums[0], halves);
    for (int i = 0; i < rows; i++) {
        vec first = *(const vec *)sums[i] + bias, second = *(const vec *)(sums[i] + LANES) + bias2;
        if (residual) {
            first += load(residual + i * y_row, NATIVE);
            second += load(residual + i * y_row + 32, NATIVE);
        }
        store_two(y + i * y_row, first, second);
    }
}

/* y (rows, outputs) = x (rows, inputs) w + b, plus a residual (rows, outputs) if there is one. Inputs and outputs are
   multiples of 32. Before and after the call, the tiles have the shapes of whole blocks. */
INLINE void linear(const char *x, const char *w, const float *b, const char *residual, char *y, int64_t rows,
                   int64_t inputs, int64_t outputs) {
    enum { KEPT = 1 << 17 }; /* bytes of x that stay in the cache while all columns are computed from them */
    const int64_t fit = KEPT / (2 * inputs) / 32 * 32, some = fit < 32 ? 32 : fit;
    const int64_t whole = rows / 32 * 32;
    const int rest = (int)(rows - whole);
    for (int64_t from = 0; from < whole; from += some) {
        const int64_t to = from + some < whole ? from + some : whole;
        for (int64_t n = 0; n < outputs; n += 32) {
            const vec bias = *(const vec *)(b + n), bias2 = *(const vec *)(b + n + 16);
            for (int64_t m = from; m < to; m += 32) {
                const int64_t at = 2 * (m * outputs + n);
                one_block(x + 2 * m * inputs, w + 2 * n * inputs, bias, bias2, residual ? residual + at : 0, y + at,
                          inputs, outputs, 32, 2);
            }
        }
    }
    if (!rest) return;
    shape_tiles(rest < 16 ? rest : 16, rest > 16 ? rest - 16 : 16);
    for (int64_t n = 0; n < outputs; n += 32) {
        const vec bias = *(const vec *)(b + n), bias2 = *(const vec *)(b + n + 16);
        const int64_t at = 2 * (whole * outputs + n);
        one_block(x + 2 * whole * inputs, w + 2 * n * inputs, bias, bias2, residual ? residual + at : 0, y + at, inputs,
                  outputs, rest, rest > 16 ? 2 : 1);
    }
    shape_tiles(16, 16);
}

#else
#define HAS_TILES 0

static int has_tiles(void) { return 0; }
#endif
