"""Whether a training step of MemoBert can become CUDA graphs."""

from importlib import import_module

import torch

from memofast.model.memobert.configuration import MemoBertConfig
from memofast.ops import backends, library

# the modules, not the functions of the same names
attention, embed, dropout_add_norm, bias_gelu = (
    import_module(f"memofast.ops.{name}") for name in ("attention", "embed", "dropout_add_norm", "bias_gelu")
)


def can_be_captured(config: MemoBertConfig, precision: str, device: torch.device) -> bool:
    """Whether every operator of such a model runs by a kernel of a GPU, and not in debug mode, which waits for each of
    them. One with a network of raw rows is not captured: cuDNN's convolutions in graphs were never tried.

    References and plain PyTorch look at lengths on the host, which a capture forbids.
    """
    if config.made:
        return False
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    hidden = config.hidden_size
    rows = torch.empty(0, hidden, dtype=dtype, device=device)
    tables = rows.float()
    automatic = [
        *(
            (attention, attention.automatic_backend(rows.new_empty(0, 3, heads, hidden // heads)))
            for heads in config.head_counts
        ),
        (embed, embed.automatic_backend(tables, tables, dtype)),
        (dropout_add_norm, backends.automatic("dropout_add_norm", rows)),
        (bias_gelu, backends.automatic("bias_gelu", rows)),
    ]
    chosen = {library.resolve(of.__name__, "auto", backend, of.BACKENDS) for of, backend in automatic}
    return chosen <= {"cuda", "triton"} and not library.debugging()
