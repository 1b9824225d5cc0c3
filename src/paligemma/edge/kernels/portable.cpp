// Any processor: vectors of four, with the product of bytes where every compiler of the kind has one (Apple's and newer Arm's dot product),
// or else products of the even and the odd bytes in 16 bits, where one of them fits: 255 * 127 < 2^15.

#include "kernels.h"

#if defined(__x86_64__)
#include <emmintrin.h>
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#endif

#define LANES 4
#include "simd.h"

namespace {

constexpr int ROWS = 4, PANELS = 1, LONE = 1, AHEAD = 1024;
constexpr int TILE_ROWS = 4, TILE_COLUMNS = 2;

#if defined(__ARM_FEATURE_DOTPROD)
constexpr int OFFSET = 0;

template <int BITS>
INLINE vi dot(vi sums, vb weights, vi four) {
    const vb centred = BITS == 8 ? weights ^ 0x80 : weights;
    return (vi)vdotq_s32((int32x4_t)sums, (int8x16_t)centred, (int8x16_t)four);
}
#else
constexpr int OFFSET = 128;
typedef vector_of<int16_t, 2 * LANES>::type vs;

INLINE vi pairs(vs a, vs b) {
#if defined(__x86_64__)
    return (vi)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
    const vi products = bits<vi>(a * b);
    return (products << 16 >> 16) + (products >> 16);
#endif
}

template <int BITS>
INLINE vi dot(vi sums, vb weights, vi four) {
    const vs w = bits<vs>(weights), a = bits<vs>(four);
    return sums + pairs(w & 255, a << 8 >> 8) + pairs(w >> 8 & 255, a >> 8);
}
#endif

}  // namespace

#define TABLE portable_kernels
#define NAME "portable"
#include "all.h"
