// One token more for each of some rows, through all blocks of a decoder: the other kernels in turn, without a way back to Python between
// them, which on a quick machine would take a tenth of the time. `Decoder` in decoder.py says the same in Python, for any number of tokens.

#pragma once

#include "attention.h"
#include "linear.h"
#include "rows.h"

namespace {

INLINE void add(float* to, const float* x, int64_t count) {
    for (int64_t i = 0; i < count; i += LANES) put(to + i, floats(to + i, count - i) + floats(x + i, count - i), count - i);
}

// x [rows][width] is changed in place; cos and sin [rows][size / 2]; keys and values [depth][rows][capacity][kv_heads][size], bfloat16, of
// which row b has lengths[b] - 1 and gets one more.
int step(const Block* blocks, int64_t depth, const Shape* shape, const float* cos, const float* sin, uint16_t* keys, uint16_t* values,
         const int64_t* lengths, int64_t rows, float* x, int threads) {
    const Shape& s = *shape;
    const int64_t wide = s.heads * s.size, narrow = s.kv_heads * s.size, slot = s.capacity * narrow;
    const int64_t numbers = rows * (2 * s.width + 2 * wide + 3 * narrow + s.mlp_dim);
    float* memory = reinterpret_cast<float*>(scratch(numbers * sizeof(float), OF_STEP));
    if (!memory) return OUT_OF_MEMORY;
    auto take = [&](int64_t size) { return (memory += rows * size) - rows * size; };
    float *normed = take(s.width), *out = take(s.width), *mixed = take(wide), *q = take(wide), *kv = take(2 * narrow);
    float *turned = take(narrow), *hidden = take(s.mlp_dim);

    int failed = 0;
    auto norm = [&](const float* weight, const float* from, float* to) { rms_norm(from, weight, s.eps, rows, s.width, to, threads); };
    auto product = [&](const Matrix* matrix, const Matrix* up, const float* from, float* to) {
        failed |= linear(matrix, up, nullptr, 0, from, rows, nullptr, 0, to, threads);
    };
    auto add_normed = [&](float* what, const float* weight) {
        if (weight) norm(weight, what, normed);
        add(x, weight ? normed : what, rows * s.width);
    };
    for (const Block* b = blocks; b < blocks + depth; b++, keys += rows * slot, values += rows * slot) {
        norm(b->pre_attn, x, normed);
        product(b->kv, nullptr, normed, kv);
        product(b->q, nullptr, normed, mixed);
        rotate(kv, 2 * narrow, cos, sin, rows, s.kv_heads, s.size, turned, threads);
        rotate(mixed, wide, cos, sin, rows, s.heads, s.size, q, threads);
        for (int64_t row = 0; row < rows; row++) {
            const int64_t at = row * slot + (lengths[row] - 1) * narrow;
            to_bfloat16(turned + row * narrow, narrow, keys + at, threads);
            to_bfloat16(kv + row * 2 * narrow + narrow, narrow, values + at, threads);
        }
        failed |= attention(q, keys, values, 1, lengths, rows, 1, s.heads, s.kv_heads, s.size, s.capacity, s.scale, s.softcap, mixed, threads);
        product(b->o, nullptr, mixed, out);
        add_normed(out, b->post_attn);
        norm(b->pre_mlp, x, normed);
        product(b->gate, b->up, normed, hidden);
        product(b->down, nullptr, hidden, out);
        add_normed(out, b->post_mlp);
        if (failed) return failed;
    }
    return 0;
}

}  // namespace
