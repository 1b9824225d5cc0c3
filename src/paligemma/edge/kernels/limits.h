// What the machine can do at best: products of the kind that `linear.h` makes, in registers alone, and reading memory.

#pragma once

#include "linear.h"

namespace {

// Operations (a product and a sum are two) done by `rounds` rounds on each thread.
double peak(int64_t rounds, int threads) {
    constexpr int V = PANELS * PARTS;
    auto run = [=](int64_t, int) {
        vi sums[ROWS][V];
        int32_t word = 0x01020304;
        vb weights[V];
        for (int v = 0; v < V; v++) weights[v] = vb{} + static_cast<uint8_t>(v + 1);
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
            for (int v = 0; v < V; v++) sums[r][v] = splat(r);  // not alike, or the compiler would make one of them
        for (int64_t i = 0; i < rounds; i++) {
#pragma GCC unroll 16
            for (int r = 0; r < ROWS; r++) {
                asm volatile("" : "+m"(word));
                const vi four = splat(word);
#pragma GCC unroll 4
                for (int v = 0; v < V; v++) sums[r][v] = dot<8>(sums[r][v], weights[v], four);
            }
        }
        vi total{};
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
            for (int v = 0; v < V; v++) total += sums[r][v];
        asm volatile("" : : "m"(total));
    };
    each(threads, threads, run);
    return 2.0 * rounds * threads * ROWS * V * 4 * LANES;
}

// The sum of 64-bit numbers (their bits, added without carry to the left).
int64_t read(const int64_t* data, int64_t count, int threads) {
    typedef vector_of<uint64_t, LANES / 2>::type vl;
    constexpr int64_t piece = 1 << 17, step = 4 * (LANES / 2);
    uint64_t* sums = reinterpret_cast<uint64_t*>(scratch(ceil_div(count, piece) * sizeof(uint64_t)));
    if (!sums) return 0;
    auto run = [=](int64_t task, int) {
        vl parts[4]{};
        const int64_t end = least(count, (task + 1) * piece);
        int64_t i = task * piece;
        for (; i + step <= end; i += step)
            for (int p = 0; p < 4; p++) parts[p] += load<vl>(data + i + p * (LANES / 2));
        uint64_t total = 0;
        for (; i < end; i++) total += static_cast<uint64_t>(data[i]);
        const vl all = parts[0] + parts[1] + parts[2] + parts[3];
        for (int j = 0; j < LANES / 2; j++) total += all[j];
        sums[task] = total;
    };
    each(ceil_div(count, piece), threads, run);
    uint64_t total = 0;
    for (int64_t task = 0; task < ceil_div(count, piece); task++) total += sums[task];
    return static_cast<int64_t>(total);
}

}  // namespace
