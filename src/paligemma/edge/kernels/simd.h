// Vectors of LANES numbers in the compilers' own notation, and the few functions of them that the kernels need. Instruction sets come in
// only where a compiler cannot find the instruction by itself: the products in the .cpp files.

#pragma once

#include "kernels.h"

#define INLINE inline __attribute__((always_inline))

namespace {

template <class T, int COUNT>
struct vector_of {
    typedef T type __attribute__((vector_size(sizeof(T) * COUNT)));
};
typedef vector_of<float, LANES>::type vf;
typedef vector_of<int32_t, LANES>::type vi;
typedef vector_of<uint8_t, 4 * LANES>::type vb;

struct bfloat16 {
    uint16_t bits;
};

template <class T>
INLINE T least(T a, T b) { return b < a ? b : a; }
template <class T>
INLINE T most(T a, T b) { return a < b ? b : a; }
INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
INLINE int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

template <class V>
INLINE V load(const void* from) {
    V v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
}
template <class V>
INLINE void store(void* to, V v) { __builtin_memcpy(to, &v, sizeof v); }
template <class V, class FROM>
INLINE V bits(FROM v) {
    static_assert(sizeof(V) == sizeof(FROM), "same size");
    return load<V>(&v);
}
INLINE vf splat(float v) { return vf{} + v; }
INLINE vi splat(int32_t v) { return vi{} + v; }

// The first `count` of LANES numbers, zeros after them.
INLINE vf floats(const float* from, int64_t count = LANES) {
    if (count >= LANES) return load<vf>(from);
    vf v{};
    __builtin_memcpy(&v, from, count * sizeof(float));
    return v;
}
INLINE vf floats(const bfloat16* from, int64_t count = LANES) {
    typedef vector_of<uint16_t, LANES>::type half;
    half h{};
    if (count >= LANES) h = load<half>(from);
    else __builtin_memcpy(&h, from, count * sizeof(bfloat16));
    return bits<vf>(__builtin_convertvector(h, vi) << 16);
}
INLINE void put(float* to, vf v, int64_t count = LANES) { __builtin_memcpy(to, &v, least<int64_t>(count, LANES) * sizeof(float)); }

// IEEE half precision, finite.
INLINE vf from_half(const uint16_t* from) {
    vi h = __builtin_convertvector(load<vector_of<uint16_t, LANES>::type>(from), vi);
    vf magnitude = bits<vf>((h & 0x7fff) << 13) * 0x1p112f;
    return bits<vf>(bits<vi>(magnitude) | ((h & 0x8000) << 16));
}

INLINE vf max(vf a, vf b) { return a > b ? a : b; }
INLINE vf abs(vf v) { return bits<vf>(bits<vi>(v) & 0x7fffffff); }

template <int COUNT>
INLINE float sum_of(typename vector_of<float, COUNT>::type v) {
    if constexpr (COUNT == 2) return v[0] + v[1];
    else {
        typedef typename vector_of<float, COUNT / 2>::type half;
        half parts[2];
        __builtin_memcpy(parts, &v, sizeof v);
        return sum_of<COUNT / 2>(parts[0] + parts[1]);
    }
}
INLINE float sum(vf v) { return sum_of<LANES>(v); }
INLINE float largest(vf v) {
    float most = v[0];
    for (int i = 1; i < LANES; i++) most = v[i] > most ? v[i] : most;
    return most;
}

// The same, but rounded: never part of a fused multiply-add.
INLINE vf rounded(vf v) {
    asm("" : "+m"(v));
    return v;
}

// To the nearest whole number, ties to even, where |v| < 2^22.
INLINE vi nearest(vf v) { return bits<vi>(v + 0x1.8p23f) - 0x4b400000; }

// e^v: 2^n e^r with |r| <= ln 2 / 2 and Taylor's polynomial. v is held within [-87, 88]; a NaN stays one.
INLINE vf exp(vf v) {
    v = v < -87.0f ? splat(-87.0f) : v;
    v = v > 88.0f ? splat(88.0f) : v;
    vf n = (v * 0x1.715476p+0f + 0x1.8p23f) - 0x1.8p23f;
    vf r = (v - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f;  // ln 2 in two parts, the first short enough for n times it to be exact
    vf p = r * (1.0f / 5040) + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return p * bits<vf>((__builtin_convertvector(n, vi) + 127) << 23);
}

// The tanh approximation, v / 2 (1 + tanh u) = v / (1 + e^-2u), which does not cancel.
INLINE vf gelu(vf v) {
    const float c = 0.7978845608028654f;
    return v / (1.0f + exp(v * (-2 * c) * (1.0f + 0.044715f * v * v)));
}

// cap tanh(v / cap), within 1e-7 of cap.
INLINE vf soft_cap(vf v, float cap) { return cap - 2 * cap / (exp(v * (2 / cap)) + 1.0f); }

// `parallel` for a function object: run(task, seat).
template <class RUN>
void each(int64_t tasks, int threads, RUN& run) {
    parallel(tasks, threads, [](void* context, int64_t task, int seat) { (*static_cast<RUN*>(context))(task, seat); }, &run);
}

}  // namespace
