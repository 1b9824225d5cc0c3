// Softmax attention in float32 over a cache of keys and values, with groups of query heads that share a key/value head.
//
// The query heads of a group are more rows of the same product. Few rows (decoding) read the cache as it lies; many rows (a prompt, a
// picture) are worth rearranging it once: keys into columns, both into blocks of COLUMNS, so that a tile of rows reads them in order.
// Every query sees the first `lengths[b]` keys of its sequence: no mask.

#pragma once

#include "simd.h"

namespace {

constexpr int64_t FEW = 16;                // rows of a key/value head up to which the cache is read as it lies
constexpr int AT_ONCE = 4;                 // of those rows
constexpr int COLUMNS = TILE_COLUMNS * LANES;
constexpr int64_t BAND = 2 * TILE_ROWS;    // rows of a task, so that its scores stay in the second cache

struct Attention {
    const float* q;
    int64_t queries, heads, kv_heads, size, capacity, group;
    float scale, softcap;
    float* out;

    // Where row r of a key/value head stands in q and in `out`, both [batch][queries][heads][size].
    int64_t at(int64_t batch, int64_t kv_head, int64_t r) const {
        return ((batch * queries + r / group) * heads + kv_head * group + r % group) * size;
    }
    // Scores of one row -> e^(score - highest), and one over their sum. There is room for whole vectors.
    float softmax(float* scores, int64_t length) const {
        for (int64_t i = length; i < round_up(length, LANES); i++) scores[i] = -__builtin_inff();
        vf top = splat(-__builtin_inff()), total{};
        for (int64_t i = 0; i < length; i += LANES) {
            vf v = floats(scores + i) * scale;
            if (softcap > 0) {
                v = soft_cap(v, softcap);
                for (int64_t j = length; j < i + LANES; j++) v[j - i] = -__builtin_inff();
            }
            put(scores + i, v);
            top = max(top, v);
        }
        const float highest = largest(top);
        for (int64_t i = 0; i < length; i += LANES) {
            const vf v = exp(floats(scores + i) - highest);
            put(scores + i, v);
            total += i + LANES <= length ? v : floats(scores + i, length - i);
        }
        return 1 / sum(total);
    }
};

// R rows of a [R][stride] times a block [depth][V * LANES] -> out.
template <int R, int V>
void float_tile(const float* const* rows, const float* block, int64_t depth, float* out, int64_t stride) {
    vf sums[R][V]{};
    for (int64_t k = 0; k < depth; k++, block += V * LANES) {
        vf b[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) b[v] = floats(block + v * LANES);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++)
#pragma GCC unroll 4
            for (int v = 0; v < V; v++) sums[r][v] = b[v] * rows[r][k] + sums[r][v];
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) put(out + r * stride + v * LANES, sums[r][v]);
}

typedef void (*FloatTile)(const float* const*, const float*, int64_t, float*, int64_t);
template <int V, int... LESS_ONE>
INLINE FloatTile float_tile_of(int64_t rows, std::integer_sequence<int, LESS_ONE...>) {
    static constexpr FloatTile table[] = {float_tile<LESS_ONE + 1, V>...};
    return table[rows - 1];
}

// Rows times all of `count` columns in blocks; the last block is one vector wide where that is enough.
INLINE void float_product(const float* const* rows, int64_t height, const float* blocks, int64_t depth, int64_t count, float* out,
                          int64_t stride) {
    const auto heights = std::make_integer_sequence<int, TILE_ROWS>();
    for (int64_t c = 0; c < count; c += COLUMNS) {
        const auto tile = count - c > LANES ? float_tile_of<TILE_COLUMNS>(height, heights) : float_tile_of<1>(height, heights);
        tile(rows, blocks + c * depth, depth, out + c, stride);
    }
}
INLINE int64_t block_width(int64_t count, int64_t c) { return count - c > LANES ? COLUMNS : LANES; }
INLINE int64_t blocks_width(int64_t count) { return (count - 1) / COLUMNS * COLUMNS + block_width(count, (count - 1) / COLUMNS * COLUMNS); }

// Many rows: `keys` and `values` in blocks.
void attend_tiles(const Attention& a, int64_t batch, int64_t kv_head, int64_t first, int64_t last, const float* keys, const float* values,
                  int64_t length, float* scores, int64_t stride, float* sums) {
    const int64_t width = blocks_width(a.size);
    const float* rows[TILE_ROWS];
    for (int64_t top = first; top < last; top += TILE_ROWS) {
        const int64_t height = least<int64_t>(TILE_ROWS, last - top);
        for (int64_t r = 0; r < height; r++) rows[r] = a.q + a.at(batch, kv_head, top + r);
        float_product(rows, height, keys, a.size, length, scores, stride);
        float factors[TILE_ROWS];
        for (int64_t r = 0; r < height; r++) factors[r] = a.softmax(scores + r * stride, length), rows[r] = scores + r * stride;
        float_product(rows, height, values, length, a.size, sums, width);
        for (int64_t r = 0; r < height; r++)
            for (int64_t h = 0; h < a.size; h += LANES)
                put(a.out + a.at(batch, kv_head, top + r) + h, floats(sums + r * width + h) * factors[r], a.size - h);
    }
}

// Keys [begin, end) of one head into their blocks, and their values.
template <class T>
void arrange(const T* keys, const T* values, int64_t step, int64_t size, int64_t length, int64_t begin, int64_t end, float* key_blocks,
             float* value_blocks) {
    for (int64_t s = begin; s < end; s++) {
        const int64_t column = s / COLUMNS * COLUMNS, width = block_width(length, column);
        float* to = key_blocks + column * size + s - column;
        for (int64_t h = 0; h < size; h += LANES) {
            const vf k = floats(keys + s * step + h, size - h);
            for (int64_t i = 0; i < least<int64_t>(LANES, size - h); i++) to[(h + i) * width] = k[i];
        }
        for (int64_t h = 0; h < size; h += COLUMNS) {
            const int64_t wide = block_width(size, h);
            for (int64_t i = 0; i < wide; i += LANES)
                put(value_blocks + h * length + s * wide + i, floats(values + s * step + h + i, most<int64_t>(size - h - i, 0)));
        }
    }
    if (end == length)  // columns that are no keys: their scores are computed, and ignored
        for (int64_t s = length; s < blocks_width(length); s++) {
            const int64_t column = s / COLUMNS * COLUMNS, width = block_width(length, column);
            for (int64_t h = 0; h < size; h++) key_blocks[column * size + h * width + s - column] = 0;
        }
}

// Few rows: R of them, over the cache as it lies.
template <class T, int R>
void attend_rows(const Attention& a, int64_t batch, int64_t kv_head, int64_t first, const T* keys, const T* values, int64_t length,
                 float* scores, int64_t stride) {
    const int64_t step = a.kv_heads * a.size;
    const float* q[R];
    float factors[R];
    for (int r = 0; r < R; r++) q[r] = a.q + a.at(batch, kv_head, first + r);
    for (int64_t s = 0; s < length; s++) {
        vf sums[R]{};
        for (int64_t h = 0; h < a.size; h += LANES) {
            const vf k = floats(keys + s * step + h, a.size - h);
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) sums[r] += k * floats(q[r] + h, a.size - h);
        }
        for (int r = 0; r < R; r++) scores[r * stride + s] = sum(sums[r]);
    }
    for (int r = 0; r < R; r++) factors[r] = a.softmax(scores + r * stride, length);
    constexpr int V = 2;
    for (int64_t h = 0; h < a.size; h += V * LANES) {
        vf sums[R][V]{};
        for (int64_t s = 0; s < length; s++) {
#pragma GCC unroll 2
            for (int v = 0; v < V; v++) {
                const vf value = floats(values + s * step + h + v * LANES, most<int64_t>(a.size - h - v * LANES, 0));
#pragma GCC unroll 4
                for (int r = 0; r < R; r++) sums[r][v] += value * scores[r * stride + s];
            }
        }
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V && h + v * LANES < a.size; v++)
                put(a.out + a.at(batch, kv_head, first + r) + h + v * LANES, sums[r][v] * factors[r], a.size - h - v * LANES);
    }
}

template <class T>
int attend(const Attention& a, const T* keys, const T* values, const int64_t* lengths, int64_t batch, int threads) {
    const int64_t rows = a.queries * a.group, heads = batch * a.kv_heads, step = a.kv_heads * a.size;
    if (rows == 0 || heads == 0) return 0;
    int64_t longest = 1;
    for (int64_t b = 0; b < batch; b++) longest = most(longest, lengths[b]);
    const int64_t stride = round_up(longest, COLUMNS) + 16;  // no multiple of a page, which would crowd one place of the cache
    auto head = [&](const T* cache, int64_t h) { return cache + (h / a.kv_heads * a.capacity * a.kv_heads + h % a.kv_heads) * a.size; };

    if (rows <= FEW) {
        float* scores = reinterpret_cast<float*>(scratch(threads * AT_ONCE * stride * sizeof(float)));
        if (!scores) return OUT_OF_MEMORY;
        const int64_t parts = ceil_div(rows, AT_ONCE);
        auto run = [&](int64_t task, int seat) {
            const int64_t h = task / parts, b = h / a.kv_heads, first = task % parts * AT_ONCE;
            auto go = [&](auto attend_some) {
                float* own = scores + seat * AT_ONCE * stride;
                attend_some(a, b, h % a.kv_heads, first, head(keys, h), head(values, h), lengths[b], own, stride);
            };
            switch (least<int64_t>(AT_ONCE, rows - first)) {
                case 1: return go(attend_rows<T, 1>);
                case 2: return go(attend_rows<T, 2>);
                case 3: return go(attend_rows<T, 3>);
                default: return go(attend_rows<T, 4>);
            }
        };
        each(heads * parts, threads, run);
        return 0;
    }

    const int64_t of_keys = round_up(blocks_width(longest) * a.size, 16);
    const int64_t of_values = round_up(longest * blocks_width(a.size), 16);
    const int64_t of_seat = TILE_ROWS * (stride + blocks_width(a.size));
    float* memory = reinterpret_cast<float*>(scratch((heads * (of_keys + of_values) + threads * of_seat) * sizeof(float)));
    if (!memory) return OUT_OF_MEMORY;
    float* seats = memory + heads * (of_keys + of_values);
    const int64_t slices = ceil_div(longest, 4 * COLUMNS);
    auto prepare = [&](int64_t task, int) {
        const int64_t h = task / slices, length = lengths[h / a.kv_heads], begin = task % slices * 4 * COLUMNS;
        float* to = memory + h * (of_keys + of_values);
        if (begin < length)
            arrange(head(keys, h), head(values, h), step, a.size, length, begin, least<int64_t>(length, begin + 4 * COLUMNS), to,
                    to + of_keys);
    };
    each(heads * slices, threads, prepare);
    const int64_t bands = ceil_div(rows, BAND);
    auto run = [&](int64_t task, int seat) {
        const int64_t h = task / bands, first = task % bands * BAND;
        const float* from = memory + h * (of_keys + of_values);
        float* scores = seats + seat * of_seat;
        attend_tiles(a, h / a.kv_heads, h % a.kv_heads, first, least(rows, first + BAND), from, from + of_keys, lengths[h / a.kv_heads],
                     scores, stride, scores + TILE_ROWS * stride);
    };
    each(heads * bands, threads, run);
    return 0;
}

// q and out [batch][queries][heads][size], keys and values [batch][capacity][kv_heads][size], float32 or bfloat16. softcap 0: none.
int attention(const float* q, const void* keys, const void* values, int bfloat16_cache, const int64_t* lengths, int64_t batch,
              int64_t queries, int64_t heads, int64_t kv_heads, int64_t size, int64_t capacity, float scale, float softcap, float* out,
              int threads) {
    const Attention a{q, queries, heads, kv_heads, size, capacity, heads / kv_heads, scale, softcap, out};
    if (bfloat16_cache) return attend(a, static_cast<const bfloat16*>(keys), static_cast<const bfloat16*>(values), lengths, batch, threads);
    return attend(a, static_cast<const float*>(keys), static_cast<const float*>(values), lengths, batch, threads);
}

}  // namespace
