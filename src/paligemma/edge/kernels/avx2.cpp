// x86 with AVX2: nearly every one since 2013.
//
// Its product of bytes adds pairs in 16 bits. An unsigned byte times a signed one would not fit there, so of 8-bit weights the sign moves
// to the activations' partner: |a| (signed a w) with both at most 127, 2 * 127 * 127 < 2^15. 4-bit weights, at most 15, fit as they are,
// and so do the sums of eight such products (four units), 16 * 15 * 127 < 2^15: only then they are made wider.

#include "kernels.h"

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#include <immintrin.h>

#define LANES 8
#include "simd.h"

namespace {

constexpr int ROWS = 4, PANELS = 1, LONE = 2, OFFSET = 0, AHEAD = 2048;
constexpr int TILE_ROWS = 6, TILE_COLUMNS = 2;

template <int BITS>
INLINE vi dot(vi sums, vb weights, vi four) {
    __m256i pairs;
    if constexpr (BITS == 4) {
        pairs = _mm256_maddubs_epi16((__m256i)weights, (__m256i)four);
    } else {
        const __m256i centred = (__m256i)(weights ^ 0x80);
        pairs = _mm256_maddubs_epi16(_mm256_abs_epi8((__m256i)four), _mm256_sign_epi8(centred, (__m256i)four));
    }
    return sums + (vi)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

#define SHORT_UNITS 4
typedef vector_of<int16_t, 2 * LANES>::type vs;

INLINE vs dot_in_shorts(vs sums, vb weights, vi four) { return sums + (vs)_mm256_maddubs_epi16((__m256i)weights, (__m256i)four); }
INLINE vi widened(vi sums, vs shorts) { return sums + (vi)_mm256_madd_epi16((__m256i)shorts, _mm256_set1_epi16(1)); }

}  // namespace

#define TABLE avx2_kernels
#define NAME "avx2"
#include "all.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
