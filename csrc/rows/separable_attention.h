// One row of a grid, seen by one latent or by neighbouring ones: `Latents::V` is a float or a vector of them.
//
// A row is [pixels | shift | one-hot time | one-hot height | one-hot width] times its scale; `dot` is what its pixels
// give, `place` what its three places give together. kept: 0 where dropout takes the probability, else 1.
#pragma once

#include "../separable_attention.h"

namespace memofast::MEMOFAST_VARIANT {

template <class V>
MEMOFAST_FUNCTION V unscaled(V dot, V place, V slope, float shift) {
    return dot + place + slope * shift;
}

struct OneLatent {
    using V = float;
};

// What a latent has gathered, in units of e^maximum; kept: of the probabilities that dropout left.
template <class Latents>
struct SeparableSums {
    typename Latents::V total, kept, shifted;
};

// Adds a row whose probability is e (in those units) and returns the weight of what the row holds.
template <class Latents, class V>
MEMOFAST_FUNCTION V add_row(SeparableSums<Latents>& sums, V e, V kept_e, float shift, float scale) {
    sums.total += e;
    sums.kept += kept_e;
    const V weight = kept_e * scale;
    sums.shifted += weight * shift;
    return weight;
}

// What backward knows of a latent: gradients of slope (of its gathered shift) and mass, and the shift of the softmax's.
template <class Latents>
struct SeparableGradients {
    typename Latents::V slope, grad_slope, grad_mass, delta;
};

template <class Latents>
struct SeparableRowGradients {
    typename Latents::V raw, of_shift, of_scale;  // raw: of the unscaled score
};

// raw: unscaled score; gathered: the same product with the gradients of what was gathered; factor: 0 or keep_scale.
template <class Latents, class V>
MEMOFAST_FUNCTION SeparableRowGradients<Latents> row_gradients(const SeparableGradients<Latents>& latent,
                                                               V probability, V raw, V gathered, V factor,
                                                               float scale) {
    const V used = probability * factor;
    const V score = used * (gathered * scale + latent.grad_mass) - probability * latent.delta;
    const V of_raw = score * scale;
    return {of_raw, of_raw * latent.slope + used * scale * latent.grad_slope, score * raw + used * gathered};
}

}  // namespace memofast::MEMOFAST_VARIANT
