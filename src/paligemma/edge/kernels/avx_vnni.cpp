// x86 with VNNI in vectors of 256 bits: laptops since Alder Lake.

#include "kernels.h"

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avxvnni"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,avxvnni")
#endif

#include <immintrin.h>

#define LANES 8
#include "simd.h"

namespace {

constexpr int ROWS = 5, PANELS = 1, LONE = 1, OFFSET = 128, AHEAD = 1024;
constexpr int TILE_ROWS = 6, TILE_COLUMNS = 2;

template <int BITS>
INLINE vi dot(vi sums, vb weights, vi four) {
    return (vi)_mm256_dpbusd_avx_epi32((__m256i)sums, (__m256i)weights, (__m256i)four);
}

}  // namespace

#define TABLE avx_vnni_kernels
#define NAME "avx_vnni"
#include "all.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
