// The C interface: which instruction sets this processor has, and the kernels by the number of a set in that list, best first.

#include "kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#define PUBLIC extern "C" __attribute__((visibility("default")))

namespace {

#if defined(__x86_64__)
bool has_avx_vnni() {
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 16);
}
#endif

struct Sets {
    const Kernels* of[4];
    int count = 0;

    Sets() {
#if defined(__x86_64__)
        __builtin_cpu_init();
        const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
        if (avx2 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
            __builtin_cpu_supports("avx512vnni"))
            of[count++] = &avx512_vnni_kernels;
        if (avx2 && has_avx_vnni()) of[count++] = &avx_vnni_kernels;
        if (avx2) of[count++] = &avx2_kernels;
#endif
        of[count++] = &portable_kernels;
    }
};

const Sets& sets() {
    static const Sets found;
    return found;
}

}  // namespace

// The version of this interface, `INTERFACE` in native.py.
PUBLIC int edge_version() { return 2; }

// The functions of a set, see `Kernels`; null past the last.
PUBLIC const Kernels* edge_kernels(int set) { return set >= 0 && set < sets().count ? sets().of[set] : nullptr; }
