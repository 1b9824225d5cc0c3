// What stands between the products: norms, rotary positions, activations, the normaliser of logits. Row by row, in float32.

#pragma once

#include "simd.h"

namespace {

constexpr int64_t WORTH = 1 << 15;  // numbers from which on a second thread pays
constexpr int64_t PIECE = 1 << 14;  // numbers of a task, where rows do not matter

INLINE int hands(int64_t numbers, int threads) { return numbers < WORTH ? 1 : threads; }

template <class F>
INLINE int rowwise(int64_t rows, int64_t width, int threads, F one) {
    const int64_t step = most<int64_t>(1, PIECE / most<int64_t>(1, width));
    auto run = [&](int64_t task, int) {
        for (int64_t row = task * step; row < least(rows, (task + 1) * step); row++) one(row);
    };
    each(ceil_div(rows, step), hands(rows * width, threads), run);
    return 0;
}

template <class F>
INLINE int elementwise(const float* x, int64_t count, float* out, int threads, F f) {
    auto run = [&](int64_t task, int) {
        for (int64_t i = task * PIECE; i < least(count, (task + 1) * PIECE); i += LANES)
            put(out + i, f(floats(x + i, count - i)), count - i);
    };
    each(ceil_div(count, PIECE), hands(count, threads), run);
    return 0;
}

// x / sqrt(mean x^2 + eps) * (1 + weight)
int rms_norm(const float* x, const float* weight, float eps, int64_t rows, int64_t width, float* out, int threads) {
    return rowwise(rows, width, threads, [=](int64_t row) {
        const float* from = x + row * width;
        vf squares{};
        for (int64_t i = 0; i < width; i += LANES) squares += floats(from + i, width - i) * floats(from + i, width - i);
        const float factor = 1 / __builtin_sqrtf(sum(squares) / width + eps);
        for (int64_t i = 0; i < width; i += LANES)
            put(out + row * width + i, floats(from + i, width - i) * factor * (1.0f + floats(weight + i, width - i)), width - i);
    });
}

// (x - mean) / sqrt(variance + eps) * weight + bias
int layer_norm(const float* x, const float* weight, const float* bias, float eps, int64_t rows, int64_t width, float* out, int threads) {
    return rowwise(rows, width, threads, [=](int64_t row) {
        const float* from = x + row * width;
        vf total{}, squares{};
        for (int64_t i = 0; i < width; i += LANES) total += floats(from + i, width - i);
        const float mean = sum(total) / width;
        int64_t i = 0;
        for (; i + LANES <= width; i += LANES) squares += (floats(from + i) - mean) * (floats(from + i) - mean);
        float variance = sum(squares);
        for (; i < width; i++) variance += (from[i] - mean) * (from[i] - mean);
        const float factor = 1 / __builtin_sqrtf(variance / width + eps);
        for (i = 0; i < width; i += LANES) {
            const vf v = (floats(from + i, width - i) - mean) * factor;
            put(out + row * width + i, v * floats(weight + i, width - i) + floats(bias + i, width - i), width - i);
        }
    });
}

// x [rows][heads][size], rows `stride` apart; cos and sin [rows][size / 2]: element i turns with element i + size / 2.
int rotate(const float* x, int64_t stride, const float* cos, const float* sin, int64_t rows, int64_t heads, int64_t size, float* out,
           int threads) {
    const int64_t half = size / 2;
    return rowwise(rows * heads, size, threads, [=](int64_t row) {
        const float *c = cos + row / heads * half, *s = sin + row / heads * half;
        const float *first = x + row / heads * stride + row % heads * size, *second = first + half;
        for (int64_t i = 0; i < half; i += LANES) {
            const vf a = floats(first + i, half - i), b = floats(second + i, half - i);
            const vf turn = floats(c + i, half - i), lift = floats(s + i, half - i);
            put(out + row * size + i, a * turn - b * lift, half - i);
            put(out + row * size + half + i, b * turn + a * lift, half - i);
        }
    });
}

int gelu_of(const float* x, int64_t count, float* out, int threads) {
    return elementwise(x, count, out, threads, [](vf v) { return gelu(v); });
}

int soft_cap_of(const float* x, float cap, int64_t count, float* out, int threads) {
    return elementwise(x, count, out, threads, [=](vf v) { return soft_cap(v, cap); });
}

// ln sum e^x of each row, in pieces that do not depend on the threads.
int log_sum_exp(const float* x, int64_t rows, int64_t width, float* out, int threads) {
    const int64_t pieces = ceil_div(width, PIECE);
    float* tops = reinterpret_cast<float*>(scratch(2 * rows * pieces * sizeof(float)));
    if (!tops) return OUT_OF_MEMORY;
    float* sums = tops + rows * pieces;
    auto run = [&](int64_t task, int) {
        const float* from = x + task / pieces * width + task % pieces * PIECE;
        const int64_t count = least(PIECE, width - task % pieces * PIECE), whole = count / LANES * LANES;
        float top = from[0];
        vf tallest = splat(top), total{};
        for (int64_t i = 0; i < whole; i += LANES) tallest = max(floats(from + i), tallest);
        top = largest(tallest);
        for (int64_t i = whole; i < count; i++) top = from[i] > top ? from[i] : top;
        for (int64_t i = 0; i < whole; i += LANES) total += exp(floats(from + i) - top);
        float rest = sum(total);
        for (int64_t i = whole; i < count; i++) rest += exp(splat(from[i] - top))[0];
        tops[task] = top, sums[task] = rest;
    };
    each(rows * pieces, hands(rows * width, threads), run);
    for (int64_t row = 0; row < rows; row++) {
        float top = tops[row * pieces], total = 0;
        for (int64_t p = 0; p < pieces; p++) top = most(top, tops[row * pieces + p]);
        for (int64_t p = 0; p < pieces; p++) total += sums[row * pieces + p] * exp(splat(tops[row * pieces + p] - top))[0];
        out[row] = top + __builtin_logf(total);
    }
    return 0;
}

// Rounded to nearest, ties to even; a NaN stays one.
int to_bfloat16(const float* x, int64_t count, uint16_t* out, int threads) {
    auto run = [&](int64_t task, int) {
        for (int64_t i = task * PIECE; i < least(count, (task + 1) * PIECE); i++) {
            uint32_t number;
            __builtin_memcpy(&number, x + i, 4);
            const uint32_t rounded = (number + 0x7fff + ((number >> 16) & 1)) >> 16;
            out[i] = static_cast<uint16_t>((number & 0x7fffffff) > 0x7f800000 ? (number >> 16) | 0x40 : rounded);
        }
    };
    each(ceil_div(count, PIECE), hands(count, threads), run);
    return 0;
}

}  // namespace
