// Products with quantized matrices, for one row as for thousands.
//
//     y[m][n] = sum over groups g of  xs[m][g] ws[n][g] * (sum over k in g of  xq[m][k] wq[n][k])
//
// Activations become 8-bit whole numbers here, with a scale for each row and group; the inner sum is exact. A tile of up to ROWS rows by
// PANELS panels of 16 outputs stays in registers for a group, then is scaled and added to float32 sums. Weights with 4 bits are unpacked in
// registers, behind the products' shadow. Weights are stored with an offset that makes them unsigned, as the instructions want one factor.
//
// An instruction set brings: LANES, ROWS, PANELS, LONE (panels of 8-bit weights at a time where there is but one row), OFFSET (of 8-bit
// weights as `dot` sees them) and dot<BITS>(sums, weights, activations); one whose product of bytes ends in 16 bits also SHORT_UNITS, of 4-bit weights, that fit there, dot_in_shorts and widened.

#pragma once

#include "simd.h"

namespace {

constexpr int PANEL = 16;
constexpr int PARTS = PANEL / LANES;  // vectors of a panel
constexpr int64_t UNIT = 8;           // inputs that are stored together: one or (8 bits) two lines of a panel
constexpr int64_t DEPTH = 2048;       // inputs worked on at a time, so that a tile's activations stay in the first cache
constexpr int64_t TALL = 288, WIDE = 4;  // rows and panels of a task at most, so that its sums stay in the second
constexpr int64_t LONG = 32;             // panels of a task for few rows: reading begins anew with each task, unforeseen
constexpr int MOST_PANELS = LONE > PANELS ? LONE : PANELS;

INLINE int64_t padded(int64_t inputs) { return round_up(inputs, UNIT); }

// Rows cut into tiles of nearly equal height, and what became of their numbers: [tile][k / 4][row][4], [tile][group][row] twice.
struct Activations {
    int64_t rows, inputs, group, groups, tiles;
    int8_t* numbers;
    float* scales;
    int32_t* sums;

    int64_t start(int64_t tile) const { return rows * tile / tiles; }
};

void quantize(const Activations& to, const float* x, int64_t tile) {
    const int64_t first = to.start(tile), height = to.start(tile + 1) - first;
    int8_t* numbers = to.numbers + first * padded(to.inputs);
    for (int64_t r = 0; r < height; r++) {
        for (int64_t g = 0; g < to.groups; g++) {
            const int64_t begin = g * to.group, count = least(to.group, to.inputs - begin);
            const float* from = x + (first + r) * to.inputs + begin;
            vf top{}, doubt{};
            for (int64_t k = 0; k < count; k += LANES) {
                const vf v = floats(from + k, count - k);
                top = max(abs(v), top);
                doubt += v * 0.0f;
            }
            const float extreme = largest(top);
            const bool finite = sum(doubt) == 0;
            const float inverse = finite && extreme >= 1e-30f ? 127 / extreme : 0;
            vi total{};
            for (int64_t k = 0; k < padded(count); k += LANES) {
                // Rounded twice, as where there is no fused multiply-add, so that all processors give the same numbers.
                const vi n = finite ? nearest(rounded(floats(from + k, most<int64_t>(count - k, 0)) * inverse)) : vi{};
                total += n;
                const auto narrow = __builtin_convertvector(n, vector_of<int8_t, LANES>::type);
                for (int64_t j = 0; j < LANES && k + j < padded(count); j += 4)
                    __builtin_memcpy(numbers + (begin + k + j) * height + 4 * r, reinterpret_cast<const char*>(&narrow) + j, 4);
            }
            int32_t whole = 0;
            for (int i = 0; i < LANES; i++) whole += total[i];
            const int64_t at = first * to.groups + g * height + r;
            to.scales[at] = !finite ? __builtin_nanf("") : inverse == 0 ? 0 : extreme / 127;
            to.sums[at] = whole;
        }
    }
}

// Groups [from, to) of one tile's rows times `PANELS` (of one row `LONE`) or one panel, added to sums [row][stride].
struct Strip {
    const uint8_t* weights[MOST_PANELS];
    const void* scales[MOST_PANELS];
    const int8_t* numbers;
    const float* row_scales;
    const int32_t* row_sums;
    int64_t inputs, group, from, to;
    float* out;
    int64_t stride;
};

template <int BITS>
INLINE void unpack(const uint8_t* line, vb& even, vb& odd) {
    if constexpr (BITS == 4) {
        const vb both = load<vb>(line);
        even = both & 15;
        odd = bits<vb>(bits<vi>(both) >> 4) & 15;
    } else {
        even = load<vb>(line);
        odd = load<vb>(line + 4 * PANEL);
    }
}

// One unit of inputs of all rows and vectors: sums += products, by `product(sums, weights, four activations)`.
template <int BITS, int R, int V, class SUMS, class PRODUCT>
INLINE void unit_products(SUMS (&sums)[R][V], const uint8_t* (&weights)[V], const int8_t* numbers, PRODUCT product) {
    vb even[V], odd[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) {
        if constexpr (R <= 4) {
            __builtin_prefetch(weights[v] + AHEAD);
            if constexpr (BITS == 8) __builtin_prefetch(weights[v] + AHEAD + 4 * PANEL);
        }
        unpack<BITS>(weights[v], even[v], odd[v]);
        weights[v] += UNIT * PANEL * BITS / 8;
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
        const vi four = splat(load<int32_t>(numbers + 4 * r));
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) sums[r][v] = product(sums[r][v], even[v], four);
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
        const vi four = splat(load<int32_t>(numbers + 4 * (R + r)));
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) sums[r][v] = product(sums[r][v], odd[v], four);
    }
}

template <int BITS, int R, int V>
void strip(const Strip& s) {
    constexpr int offset = BITS == 4 ? 8 : OFFSET;
    constexpr int64_t line = 4 * PANEL, unit = UNIT * PANEL * BITS / 8;
    for (int64_t g = s.from; g < s.to; g++) {
        const int64_t begin = g * s.group, units = ceil_div(least(s.group, s.inputs - begin), UNIT);
        vi sums[R][V];
#pragma GCC unroll 16
        for (int r = 0; r < R; r++)
#pragma GCC unroll 4
            for (int v = 0; v < V; v++) sums[r][v] = splat(-offset * s.row_sums[g * R + r]);
        const uint8_t* weights[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) weights[v] = s.weights[v / PARTS] + begin / UNIT * unit + v % PARTS * (line / PARTS);
        const int8_t* numbers = s.numbers + begin * R;
#ifdef SHORT_UNITS
        if constexpr (BITS == 4) {
            for (int64_t u = 0; u < units;) {
                vs shorts[R][V]{};
                for (const int64_t end = least(u + SHORT_UNITS, units); u < end; u++, numbers += UNIT * R)
                    unit_products<BITS, R, V>(shorts, weights, numbers, dot_in_shorts);
#pragma GCC unroll 16
                for (int r = 0; r < R; r++)
#pragma GCC unroll 4
                    for (int v = 0; v < V; v++) sums[r][v] = widened(sums[r][v], shorts[r][v]);
            }
        } else
#endif
            for (int64_t u = 0; u < units; u++, numbers += UNIT * R) unit_products<BITS, R, V>(sums, weights, numbers, dot<BITS>);
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) {
            const void* scales = s.scales[v / PARTS];
            const int64_t at = v % PARTS * LANES;
            vf scale;
            if constexpr (BITS == 4) scale = from_half(static_cast<const uint16_t*>(scales) + g * PANEL + at);
            else scale = floats(static_cast<const float*>(scales) + at);
#pragma GCC unroll 16
            for (int r = 0; r < R; r++) {
                float* out = s.out + r * s.stride + v * LANES;
                put(out, __builtin_convertvector(sums[r][v], vf) * (scale * s.row_scales[g * R + r]) + floats(out));
            }
        }
    }
}

typedef void (*StripOf)(const Strip&);
template <int BITS, int V, int... LESS_ONE>
INLINE StripOf strip_of(int64_t rows, std::integer_sequence<int, LESS_ONE...>) {
    static constexpr StripOf table[] = {strip<BITS, LESS_ONE + 1, V>...};
    return table[rows - 1];
}
template <int BITS>
INLINE StripOf strip_of(int64_t rows, int64_t panels) {
    const auto heights = std::make_integer_sequence<int, ROWS>();
    if constexpr (BITS == 8) {
        if (rows == 1 && panels == LONE) return strip<8, 1, LONE * PARTS>;
    }
    return panels == 1 ? strip_of<BITS, PARTS>(rows, heights) : strip_of<BITS, PANELS * PARTS>(rows, heights);
}

// Tiles [top, bottom) times panels [left, right) (of the list `panels`, where there is one) -> sums [row][stride].
void block(const Matrix& m, const int32_t* panels, int64_t left, int64_t right, const Activations& x, int64_t top, int64_t bottom,
           float* sums, int64_t stride) {
    __builtin_memset(sums, 0, (x.start(bottom) - x.start(top)) * stride * sizeof(float));
    const int64_t panel_bytes = padded(m.inputs) * PANEL * m.bits / 8;
    const int64_t scale_bytes = m.bits == 4 ? 2 * PANEL * x.groups : 4 * PANEL;
    const int64_t step = bottom - top == 1 ? x.groups : most<int64_t>(DEPTH / x.group, 1);
    Strip s;
    s.inputs = m.inputs, s.group = m.group, s.stride = stride;
    for (s.from = 0; s.from < x.groups; s.from = s.to) {
        s.to = least(s.from + step, x.groups);
        for (int64_t tile = top; tile < bottom; tile++) {
            const int64_t row = x.start(tile), height = x.start(tile + 1) - row;
            s.numbers = x.numbers + row * padded(m.inputs);
            s.row_scales = x.scales + row * x.groups;
            s.row_sums = x.sums + row * x.groups;
            const int64_t together = m.bits == 8 && height == 1 ? LONE : PANELS;
            for (int64_t p = left, count; p < right; p += count) {
                count = right - p >= together ? together : least<int64_t>(PANELS, right - p);
                for (int64_t i = 0; i < count; i++) {
                    const int64_t panel = panels ? panels[p + i] : p + i;
                    s.weights[i] = m.weights + panel * panel_bytes;
                    s.scales[i] = static_cast<const char*>(m.scales) + panel * scale_bytes;
                }
                s.out = sums + (row - x.start(top)) * stride + (p - left) * PANEL;
                (m.bits == 4 ? strip_of<4>(height, count) : strip_of<8>(height, count))(s);
            }
        }
    }
}

// x [rows][inputs] -> y [rows][outputs], or with a list of panels [rows][16 panel_count].
// `up`, of the same shape: y = gelu(x matrix) * (x up). `bias` [outputs] may be null. `gelu`: applied to the sums.
int linear(const Matrix* matrix, const Matrix* up, const int32_t* panels, int64_t panel_count, const float* x, int64_t rows,
           const float* bias, int with_gelu, float* y, int threads) {
    const Matrix& m = *matrix;
    if (rows == 0 || m.outputs == 0) return 0;
    Activations a{rows, m.inputs, m.group, ceil_div(m.inputs, m.group), ceil_div(rows, ROWS), nullptr, nullptr, nullptr};
    const int64_t width = panels ? panel_count * PANEL : m.outputs, all = ceil_div(width, PANEL);

    int64_t tall = least<int64_t>(a.tiles, TALL / ROWS), wide = a.tiles == 1 ? LONG : WIDE;
    while (ceil_div(a.tiles, tall) * ceil_div(all, wide) < 16 * threads) {  // enough tasks for all threads to end together
        if (tall * ROWS > 48) tall = ceil_div(tall, 2);
        else if (wide > PANELS) wide /= 2;
        else break;
    }
    const int64_t stride = wide * PANEL, sums = tall * ROWS * stride;
    const int64_t numbers_bytes = round_up(rows * padded(m.inputs), 64), scales_bytes = round_up(4 * rows * a.groups, 64);
    char* memory = scratch(numbers_bytes + 2 * scales_bytes + threads * sums * (up ? 2 : 1) * sizeof(float));
    if (!memory) return OUT_OF_MEMORY;
    a.numbers = reinterpret_cast<int8_t*>(memory);
    a.scales = reinterpret_cast<float*>(memory + numbers_bytes);
    a.sums = reinterpret_cast<int32_t*>(memory + numbers_bytes + scales_bytes);
    float* of_seats = reinterpret_cast<float*>(memory + numbers_bytes + 2 * scales_bytes);

    auto prepare = [&](int64_t tile, int) { quantize(a, x, tile); };
    each(a.tiles, threads, prepare);

    const int64_t bands = ceil_div(a.tiles, tall);
    auto multiply = [&](int64_t task, int seat) {
        const int64_t left = task / bands * wide, right = least(left + wide, all);
        const int64_t top = task % bands * tall, bottom = least(top + tall, a.tiles);
        float* first = of_seats + seat * sums * (up ? 2 : 1);
        float* second = first + sums;
        block(m, panels, left, right, a, top, bottom, first, stride);
        if (up) block(*up, panels, left, right, a, top, bottom, second, stride);
        const int64_t columns = least(right * PANEL, width) - left * PANEL;
        for (int64_t row = a.start(top); row < a.start(bottom); row++, first += stride, second += stride) {
            for (int64_t c = 0; c < columns; c += LANES) {
                vf v = floats(first + c);
                if (bias) v += floats(bias + left * PANEL + c, columns - c);
                if (with_gelu || up) v = gelu(v);
                if (up) v *= floats(second + c);
                put(y + row * width + left * PANEL + c, v, columns - c);
            }
        }
    };
    each(ceil_div(all, wide) * bands, threads, multiply);
    return 0;
}

}  // namespace
