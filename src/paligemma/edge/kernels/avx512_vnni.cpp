// x86 with AVX-512 and its VNNI: servers since Ice Lake and Zen 4, laptops since Ice Lake or Zen 4.

#include "kernels.h"

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
#endif

#include <immintrin.h>

#define LANES 16
#include "simd.h"

namespace {

constexpr int ROWS = 12, PANELS = 2, LONE = 2, OFFSET = 128, AHEAD = 1024;
constexpr int TILE_ROWS = 12, TILE_COLUMNS = 2;

template <int BITS>
INLINE vi dot(vi sums, vb weights, vi four) {
    return (vi)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)weights, (__m512i)four);
}

}  // namespace

#define TABLE avx512_vnni_kernels
#define NAME "avx512_vnni"
#include "all.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
