/* The functions for any processor; the registers of SSE2 and of NEON have 4 floats. */

#define WIDTH 4
#include "forms.h"

DEFINE(plain, )
