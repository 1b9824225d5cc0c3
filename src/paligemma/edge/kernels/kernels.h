// What the files of this folder share: a packed matrix, the table of one instruction set's kernels, threads, scratch memory.
//
// Kernels are headers, compiled once for every instruction set by the .cpp file that bears its name. Everything in those headers has
// internal linkage and uses nothing of the standard library but types: a function of the library's that was compiled for a newer
// processor must never be the copy that the linker keeps for all.

#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

// Quantized weights, laid out as `packing.py` describes. `group`: inputs that share a scale of activations (and of weights with 4 bits).
struct Matrix {
    const uint8_t* weights;
    const void* scales;
    int64_t outputs, inputs;
    int32_t bits, group;
};

// A block of a decoder. `post_attn` and `post_mlp` may be null.
struct Block {
    const Matrix *q, *kv, *o, *gate, *up, *down;
    const float *pre_attn, *post_attn, *pre_mlp, *post_mlp;
};

// What its blocks have in common, and the room of a cache. softcap 0: none.
struct Shape {
    int64_t width, mlp_dim, heads, kv_heads, size, capacity;
    float eps, scale, softcap;
};

// Every function returns 0, or OUT_OF_MEMORY. Arguments are described where the functions are.
constexpr int OUT_OF_MEMORY = 1;

struct Kernels {
    const char* name;
    int (*linear)(const Matrix* matrix, const Matrix* up, const int32_t* panels, int64_t panel_count, const float* x, int64_t rows,
                  const float* bias, int gelu, float* y, int threads);
    int (*attention)(const float* q, const void* keys, const void* values, int bfloat16, const int64_t* lengths, int64_t batch,
                     int64_t queries, int64_t heads, int64_t kv_heads, int64_t size, int64_t capacity, float scale, float softcap,
                     float* out, int threads);
    int (*rms_norm)(const float* x, const float* weight, float eps, int64_t rows, int64_t width, float* out, int threads);
    int (*layer_norm)(const float* x, const float* weight, const float* bias, float eps, int64_t rows, int64_t width, float* out,
                      int threads);
    int (*rotate)(const float* x, int64_t stride, const float* cos, const float* sin, int64_t rows, int64_t heads, int64_t size, float* out,
                  int threads);
    int (*gelu)(const float* x, int64_t count, float* out, int threads);
    int (*soft_cap)(const float* x, float cap, int64_t count, float* out, int threads);
    int (*log_sum_exp)(const float* x, int64_t rows, int64_t width, float* out, int threads);
    int (*to_bfloat16)(const float* x, int64_t count, uint16_t* out, int threads);
    int (*step)(const Block* blocks, int64_t depth, const Shape* shape, const float* cos, const float* sin, uint16_t* keys,
                uint16_t* values, const int64_t* lengths, int64_t rows, float* x, int threads);
    double (*peak)(int64_t rounds, int threads);
    int64_t (*read)(const int64_t* data, int64_t count, int threads);
};

extern const Kernels avx512_vnni_kernels, avx_vnni_kernels, avx2_kernels, portable_kernels;

// `run(context, task, seat)` for every task in [0, tasks), by the caller (seat 0) and up to threads - 1 others, each with a seat of its
// own. Who does what is left to chance: results must not depend on it.
typedef void (*Task)(void* context, int64_t task, int seat);
void parallel(int64_t tasks, int threads, Task run, void* context);

// Memory of the calling thread, aligned to 64 bytes and valid until the thread asks again for the same use; null where there is none.
enum Use { OF_KERNEL, OF_STEP };
char* scratch(size_t bytes, Use use = OF_KERNEL);
