"""A model's graph for TensorBoard: the operations of one forward pass, by the modules they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import torch
from tensorboard.compat.proto.attr_value_pb2 import AttrValue
from tensorboard.compat.proto.config_pb2 import RunMetadata
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.compat.proto.node_def_pb2 import NodeDef
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.versions_pb2 import VersionDef
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx
from torch.utils.tensorboard import SummaryWriter

from memofast.data import PackedBatch

_FORMAT = 22  # of GraphDef, as torch's own writer says


def write_graph(folder: Path, model: nn.Module, batch: PackedBatch) -> None:
    """Add the graph of `model(batch)` to the TensorBoard events of a folder."""
    graph = model_graph(model, batch)
    with SummaryWriter(str(folder)) as events:
        events.file_writer.add_graph((graph, RunMetadata()))


@torch.no_grad()
def model_graph(model: nn.Module, batch: PackedBatch) -> GraphDef:
    """Every operation of `model(batch)`, named by the module that runs it, with its inputs and the shape it gives."""
    modules: list[str] = []  # of each node, the one that ran it
    tensors: list[Tensor] = []
    batch.map(lambda tensor: tensors.append(tensor) or tensor)

    def run(*given: Tensor) -> Tensor:
        left = iter(given)
        return model(batch.map(lambda _: next(left)))

    with _followed(model, modules):
        options = {"_allow_non_fake_inputs": True, "_error_on_data_dependent_ops": False}  # it is of this batch alone
        traced = make_fx(run, tracing_mode="real", **options)(*tensors)
    weights = {id(weight): name.replace(".", "/") for name, weight in model.named_parameters()}
    inputs, nodes = iter(_names(batch)), {}
    modules += [""] * (len(traced.graph.nodes) - len(modules))
    for node, module in zip(traced.graph.nodes, modules, strict=True):
        if node.op == "placeholder":
            name = f"batch/{next(inputs)}"
        elif node.op == "get_attr":
            name = weights.get(id(getattr(traced, node.target)), f"constants/{node.name}")
        else:
            name = f"{module}/{node.name}".strip("/")
        made = [nodes[one].name for one in node.all_input_nodes]
        nodes[node] = NodeDef(name=name, op=_operation(node), input=made, attr=_shape(node))
    return GraphDef(node=nodes.values(), versions=VersionDef(producer=_FORMAT))


def _names(batch: PackedBatch) -> list[str]:
    """Of the batch's tensors, in the order in which `map` comes to them."""
    own = [f.name for f in fields(batch) if isinstance(getattr(batch, f.name), Tensor)]
    own += [f"targets/{name}" for name in batch.targets]
    return own + [f"{name}/{part}" for name in batch.streams for part in ("values", "offsets")]


@contextmanager
def _followed(model: nn.Module, modules: list[str]) -> Iterator[None]:
    """While a model is traced, keep for each node of the graph the name of the innermost module that was running."""
    running: list[str] = []

    def catch_up() -> None:
        mode = get_proxy_mode()
        count = 0 if mode is None else len(mode.tracer.graph.nodes)
        modules.extend([running[-1] if running else ""] * (count - len(modules)))

    def enter(name: str) -> None:
        catch_up()
        running.append(name)

    def leave() -> None:
        catch_up()
        running.pop()

    handles = []
    for name, module in model.named_modules():
        path = name.replace(".", "/")
        handles.append(module.register_forward_pre_hook(lambda *_, path=path: enter(path)))
        handles.append(module.register_forward_hook(lambda *_: leave()))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _operation(node: fx.Node) -> str:
    return {"placeholder": "Placeholder", "get_attr": "Parameter", "output": "Output"}.get(node.op, str(node.target))


def _shape(node: fx.Node) -> Mapping[str, AttrValue]:
    known = node.meta.get("tensor_meta")
    if known is None or not hasattr(known, "shape"):
        return {}
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in known.shape])
    return {"_output_shapes": AttrValue(list=AttrValue.ListValue(shape=[shape]))}
