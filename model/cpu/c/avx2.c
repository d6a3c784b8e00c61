/* The functions for processors with AVX2, whose registers have 8 floats. */

#if defined(__x86_64__)
#define WIDTH 8
#include "forms.h"

DEFINE(avx2, __attribute__((target("avx2,fma"))))
#endif
