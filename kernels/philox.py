"""Random numbers inside Triton kernels: the counter layouts of memofast/ops/philox.py, bit for bit."""

import triton
import triton.language as tl


@triton.jit
def stream_key(rng, purpose, site):
    """The key of one purpose and site at one update; rng points at {seed, step}."""
    seed, step = tl.load(rng), tl.load(rng + 1)
    low, high, _, _ = tl.philox_impl(
        (step & 0xFFFFFFFF).to(tl.uint32), ((step >> 32) & 0xFFFFFFFF).to(tl.uint32),
        tl.cast(purpose, tl.uint32), tl.cast(site, tl.uint32),
        (seed & 0xFFFFFFFF).to(tl.uint32), ((seed >> 32) & 0xFFFFFFFF).to(tl.uint32),
    )  # fmt: skip
    return low, high


@triton.jit
def draw(key_low, key_high, sample_key, position, block):
    """Four words, uint32, for each position int32 and block, which broadcast against one another."""
    zero = position.to(tl.uint32) * 0
    low = (sample_key & 0xFFFFFFFF).to(tl.uint32) + zero
    high = ((sample_key >> 32) & 0xFFFFFFFF).to(tl.uint32) + zero
    return tl.philox_impl(low, high, position.to(tl.uint32), zero + block, key_low, key_high)


@triton.jit
def lanes16(w0, w1, w2, w3):
    """The eight 16-bit lanes of draws [R, K], low half of a word first, one after the other: [R, 8 K] uint32."""
    words = tl.join(tl.join(w0, w2), tl.join(w1, w3))  # [R, K, word // 2, word % 2]
    return tl.join(words & 0xFFFF, words >> 16).reshape(w0.shape[0], 8 * w0.shape[1])
