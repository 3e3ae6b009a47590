// Philox's words, and factors of dropout.
#include <cmath>

#include "bindings/tensors.h"
#include "keep_factors.h"
#include "rows/philox.h"

namespace memofast {

void bind_draws(py::module_& m) {
    m.def("stream_key", [](int64_t seed, int64_t step, uint32_t purpose, uint32_t site) {
        const int64_t rng[2] = {seed, step};
        const auto key = host::stream_key(rng, purpose, site);
        return py::make_tuple(key.low, key.high);
    });
    m.def("philox", [](uint32_t low, uint32_t high, int64_t sample_key, uint32_t position, uint32_t block) {
        const auto words = host::draw({low, high}, sample_key, position, block);
        py::list lanes;
        for (int lane = 0; lane < 8; ++lane) lanes.append(host::lane16(words, lane));
        return py::make_tuple(words.word[0], words.word[1], words.word[2], words.word[3], lanes);
    });
    m.def("sample_words", [](Object rng, Object purpose, Object site, Object sample_keys, Object out) -> int {
        const Tensor keys = tensor_of(sample_keys), words = tensor_of(out), seed = tensor_of(rng);
        const Number<uint32_t> use(purpose), place(site);
        if (!keys.readable(false) || !keys.is_vector(Element::int64, keys.size[0]) ||
            !seed.is_array(keys, Element::int64, 2) || !words.is_array(keys, Element::int64, keys.size[0], 4))
            return kNotAsNeeded;
        if (!use.good || !place.good) return kBadNumber;
        const auto key = host::stream_key(seed.as<int64_t>(), use.value, place.value);
        for (int64_t sample = 0; sample < keys.size[0]; ++sample) {
            const auto drawn = host::draw(key, keys.as<int64_t>()[sample], 0, 0);
            for (int word = 0; word < 4; ++word) words.as<int64_t>()[4 * sample + word] = drawn.word[word];
        }
        return kSuccess;
    });
    m.def("keep_factors",
          [](Object rng, Object purpose, Object site, Object sample_keys, uint32_t threshold, float scale,
             Object factors) -> int {
              const Tensor keys = tensor_of(sample_keys), seed = tensor_of(rng), out = tensor_of(factors);
              const Number<uint32_t> use(purpose), place(site);
              if (!keys.readable(false) || !keys.is_vector(Element::int64, keys.size[0]) ||
                  !seed.is_array(keys, Element::int64, 2) ||
                  !out.is_array(keys, Element::float32, keys.size[0], out.size[1], out.size[2]))
                  return kNotAsNeeded;
              if (!use.good || !place.good || !std::isfinite(scale)) return kBadNumber;
              const KeepFactorsArguments a = {seed.as<int64_t>(), use.value,   place.value, keys.as<int64_t>(),
                                              keys.size[0],       out.size[1], out.size[2], threshold,
                                              scale,              out.as<float>()};
              return MEMOFAST_DISPATCH(keep_factors, a);
          });
    m.def("below", [](uint32_t word, uint32_t n) { return host::below(word, n); });
}

}  // namespace memofast
