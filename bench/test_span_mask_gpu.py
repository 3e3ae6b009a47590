"""span_mask on a GPU: masks of the faces and of the speech of 64 and of 256 samples, at fixed capacity.

Rules: every contestant gets offsets, sample keys and the random state on the device, and delivers the row to read for every row and the target
rows as int32, without the host learning their number. `eager` is our reference, vectorised PyTorch on the device; `compiled` is that by
torch.compile; `triton` is our own other kernel. All four give the same bits. `gigabytes` counts offsets, keys, rows and targets once.
Target on an H200, faces, speech and text together: 15 us (see test_token_mask_gpu.py); data loaders mask on the host, in milliseconds.
"""

import masking_inputs as inputs
import pytest
import torch
from gpu_cases import SAMPLES, compiled
from test_span_mask import CASES

from memofast.ops import SpanPolicy, span_mask, span_mask_reference


def contest(samples, modality, device):
    bounds, ratio = CASES[modality]
    sizes = inputs.lengths(bounds, seed=2)[:samples]
    rows, policy = sum(sizes), SpanPolicy(ratio=ratio)
    options = {"rows": rows, "site": 1, "capacity": policy.capacity(rows, samples)}

    def contestant(function, **extra):
        def make(number):
            batch = inputs.offsets(sizes), inputs.sample_keys()[:samples], torch.tensor([1, number])
            batch = [tensor.to(device) for tensor in batch]
            return lambda: function(*batch, policy, **options, **extra)

        return make

    size = 4 * (samples + 1) + 8 * samples + 4 * (rows + options["capacity"])
    return {
        "ours": contestant(span_mask, backend=device),
        "rivals": {
            "eager": contestant(span_mask_reference),
            "compiled": contestant(compiled(span_mask_reference)),
            "triton": contestant(span_mask, backend="triton"),
        },
        "bytes_of_one": size,
        "samples": samples,
        "rows": rows,
        "gigabytes": size / 1e9,
    }


@pytest.mark.gpu
@pytest.mark.parametrize("modality", CASES)
@pytest.mark.parametrize("samples", SAMPLES)
def test_span_mask_gpu(on_gpu, samples, modality):
    on_gpu(**contest(samples, modality, "cuda"))
