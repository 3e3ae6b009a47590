"""Every Triton kernel of the package compiles for GPUs that are not here, within their shared memory and registers."""

import os
import pkgutil
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

triton = pytest.importorskip("triton")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from memofast import kernels  # noqa: E402
from memofast.kernels import attention, embed, span_mask  # noqa: E402

SHARED_MEMORY = {80: 163 << 10, 90: 227 << 10}  # bytes a program may use, by compute capability
BY_CAPABILITY = "attention_forward-", "attention_backward-"  # products of halves are other instructions on each
NO_KERNELS = {"philox"}
SPILLED_BEFORE_3_9 = 8  # bytes of stack that the compilers of older Tritons need in addition


class Case(NamedTuple):
    """One kernel as it is launched: types of the arguments that are not `values` nor `constants`, and the compiler's
    options."""

    kernel: object
    pointers: dict[str, str]
    values: dict[str, str]
    constants: dict[str, object]
    options: dict[str, int] = {}  # noqa: RUF012
    spill_limit: int = 0  # bytes of stack that a thread may use


def span_mask_cases():
    pointers = dict.fromkeys(("offsets", "source", "counts", "indices", "count", "overflow"), "*i32")
    pointers |= {"sample_keys": "*i64", "rng": "*i64", "selected": "*u8"}
    values = dict.fromkeys(span_mask.SIZES, "i32")
    for kind in range(4):
        constants = dict(KIND=kind, DICE=kind in (0, 3), ORIGINAL=bool(kind % 2), SELECT=kind == 0, BLOCK=64)
        yield f"choose_rows-{kind}", Case(span_mask.choose_rows, pointers, values, constants, {"num_warps": 1})
    yield "list_targets", Case(span_mask.list_targets, pointers, values, {"BLOCK": 64}, {"num_warps": 1})


def attention_cases():
    values = dict.fromkeys(attention.NUMBERS, "i32") | {"scale": "fp32", "keep_scale": "fp32"}
    for kernel in (attention.attention_forward, attention.attention_backward):
        for dtype, name, width in (
            (torch.bfloat16, "bf16", 64),
            (torch.float16, "fp16", 128),
            (torch.float32, "fp32", 64),
        ):
            pointers = dict.fromkeys(("qkv", "kv", "out", "grad", "grad_qkv", "grad_kv"), f"*{name}")
            pointers |= {
                "lse": "*fp32",
                "shifts": "*fp32",
                "query_offsets": "*i32",
                "offsets": "*i32",
                "lengths": "*i32",
            }
            pointers |= {"rng": "*i64", "sample_keys": "*i64"}
            options = attention.tile(width, dtype, kernel is attention.attention_backward)
            constants = {"D": width, "BLOCK": options.pop("BLOCK"), "DROPOUT": width == 64}
            constants |= {"lengths": None} if width == 64 else {"rng": None, "sample_keys": None}
            of_queries = {"kv", "grad_kv", "query_offsets"} & set(kernel.arg_names)
            for kind, absent in (("", of_queries), ("-cross", ()))[: 1 if name == "fp32" else 2]:
                # the fallback of other GPUs: its backward may keep 32 bytes of a thread on the stack
                case = Case(kernel, pointers, values, constants | dict.fromkeys(absent), options, spill_limit=32)
                yield f"{kernel.__name__}{kind}-{name}-{width}", case


def embed_row_cases():
    """Text, whose table is fp32; visual rows that are read as they stand; speech rows read by `source`, of samples
    without visual ones."""
    absent = {
        "text": ("mask", "feature_gamma", "feature_beta", "earlier", "earliest"),
        "visual": ("index", "mask", "earliest", "rng", "sample_keys"),
        "speech": ("earliest",),
    }
    values = dict.fromkeys(embed.NUMBERS, "i32") | {"keep_scale": "fp32", "eps": "fp32"}
    for kernel in (embed.forward_rows, embed.backward_rows):
        for modality, name, width in (
            ("text", "bf16", 768),
            ("visual", "fp16", 1021),
            ("speech", "bf16", 768),
            ("speech", "fp32", 1024),
        ):
            pointers = dict.fromkeys(("content", "mask", "out", "grad"), f"*{name}")
            pointers |= {"content": "*fp32"} if modality == "text" else {}
            floats = ("position", "feature_gamma", "feature_beta", "gamma", "beta", "types", "statistics", "partials")
            pointers |= dict.fromkeys((*floats, "grad_total"), "*fp32")
            pointers["grad_content"] = f"*{name}" if modality == "visual" else "*fp32"
            pointers |= dict.fromkeys(("index", "own_offsets", "offsets", "earlier", "earliest"), "*i32")
            pointers |= {"rng": "*i64", "sample_keys": "*i64"}
            options = embed.tile(width, kernel is embed.backward_rows)
            constants = {"WIDTH": width, "ROWS": options.pop("ROWS"), "DROPOUT": modality != "visual"}
            constants |= dict.fromkeys(absent[modality])
            yield f"{kernel.__name__}-{modality}-{name}-{width}", Case(kernel, pointers, values, constants, options)


def embed_sum_cases():
    pointers = dict.fromkeys(("partials", "sums", "totals", "values"), "*fp32")
    pointers |= {"ids": "*i32", "order": "*i64", "own_offsets": "*i32"}
    values = dict.fromkeys(embed.NUMBERS, "i32")
    for kernel, size, width in (
        (embed.add_chunks, embed.NARROW, 5 * 768),
        (embed.add_positions, embed.GATHER, 768),
        (embed.add_segments, embed.GATHER, 1021),
    ):
        options = dict(size)
        constants = {"WIDTH": width, "ROWS": options.pop("ROWS"), "COLUMNS": options.pop("COLUMNS")}
        for name in ("bf16", "fp32") if kernel is embed.add_segments else ("fp32",):
            yield (
                f"{kernel.__name__}-{name}",
                Case(kernel, pointers | {"grad": f"*{name}"}, values, constants, options),
            )


CASES = dict([*span_mask_cases(), *attention_cases(), *embed_row_cases(), *embed_sum_cases()])


def compiled(case: Case, capability: int):
    """Compile as a launch would: pointers lie at multiples of 16 bytes."""
    types = case.pointers | case.values | dict.fromkeys(case.constants, "constexpr")
    signature = {name: types[name] for name in case.kernel.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(signature.values()) if kind.startswith("*")}
    source = ASTSource(case.kernel, signature, case.constants, aligned)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=case.options)


def resources(cubin: bytes, folder: Path) -> dict[str, int]:
    """Registers, stack and so on per thread, by the disassembler that Triton brings."""
    (folder / "kernel.cubin").write_bytes(cubin)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    command = [tool, "-res-usage", folder / "kernel.cubin"]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name: int(number) for name, number in re.findall(r"(REG|STACK):(\d+)", report)}


def test_no_kernel_is_forgotten():
    modules = {module.name for module in pkgutil.iter_modules(kernels.__path__)}
    assert modules - NO_KERNELS == {case.kernel.__module__.rpartition(".")[2] for case in CASES.values()}


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing")
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize(
    ("name", "capability"),
    [
        (name, capability)
        for name in CASES
        for capability in SHARED_MEMORY
        if capability == min(SHARED_MEMORY)
        or (name.startswith(BY_CAPABILITY) and name.endswith("bf16-64") and "cross" not in name)
    ],
)
def test_compiles_for_a_gpu(name, capability, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    result = compiled(CASES[name], capability)
    used = resources(result.asm["cubin"], tmp_path)
    print(f"{name} on sm_{capability}: {used}, shared memory {result.metadata.shared}")
    assert result.metadata.shared <= SHARED_MEMORY[capability]
    is_older = tuple(map(int, triton.__version__.split(".")[:2])) < (3, 9)
    assert used["STACK"] <= CASES[name].spill_limit + (SPILLED_BEFORE_3_9 if is_older else 0)
