// Chooses the CPU variant once, at the first call.
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "variant.h"

namespace memofast {
namespace {

bool supported(Isa isa) {
#if defined(__x86_64__) && !defined(MEMOFAST_ONLY_PORTABLE)
    if (isa == Isa::avx512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (isa == Isa::avx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return isa == Isa::portable;
}

Isa choose() {
    if (const char* forced = std::getenv("MEMOFAST_ISA"); forced && *forced) {
        const std::string name = forced;
        for (auto [isa, known] : {std::pair{Isa::portable, "portable"}, {Isa::avx2, "avx2"}, {Isa::avx512, "avx512"}}) {
            if (name != known) continue;
            if (!supported(isa)) throw std::runtime_error("MEMOFAST_ISA=" + name + ": this CPU cannot run it");
            return isa;
        }
        throw std::runtime_error("MEMOFAST_ISA is portable, avx2 or avx512, not '" + name + "'");
    }
    if (supported(Isa::avx512)) return Isa::avx512;
    return supported(Isa::avx2) ? Isa::avx2 : Isa::portable;
}

}  // namespace

Isa isa() {
    static const Isa chosen = choose();
    return chosen;
}

}  // namespace memofast
