"""The graph that TensorBoard shows is the model's: its modules, weights and inputs, joined as the data flows."""

import pytest
import torch
from packed_batches import random_batch, small_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.graph_pb2 import GraphDef

from memofast.data.batch import StreamRows
from memofast.model import MemoBertForEmotion
from memofast.model.sequence import SequenceConfig, SequenceForEmotion
from memofast.train.model_graph import model_graph, write_graph

LENGTHS = [(7, 5, 9), (3, 0, 4)]


def a_sequence_model():
    inputs = [{"name": "glove", "width": 5, "of": "text"}, {"name": "speech", "width": 24, "of": "speech"}]
    return SequenceForEmotion(SequenceConfig({"kind": "recurrent_fusion", "width": 8}, inputs, num_labels=1)).eval()


def a_batch():
    batch = random_batch(small_config(), LENGTHS, seed=0)
    batch.streams = {"glove": StreamRows(torch.randn(4, 8), torch.tensor([0, 3, 4], dtype=torch.int32), "text")}
    return batch


def ancestors(graph, name):
    inputs = {node.name: list(node.input) for node in graph.node}
    found, left = set(), [name]
    while left:
        for one in inputs[left.pop()]:
            if one not in found:
                found.add(one)
                left.append(one)
    return found


@pytest.mark.parametrize("make", [lambda: MemoBertForEmotion(small_config()).eval(), a_sequence_model])
def test_every_weight_and_input_that_is_read_leads_to_the_output(make):
    model, batch = make(), a_batch()
    graph = model_graph(model, batch)
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    (output,) = (node for node in graph.node if node.op == "Output")
    behind = ancestors(graph, output.name)
    weights = {name.replace(".", "/") for name, _ in model.named_parameters()}
    read = {"batch/token_ids"} if isinstance(model, MemoBertForEmotion) else {"batch/glove/values", "batch/speech"}
    unread = {one for one in weights if "mask_vector" in one or "predict" in one}
    assert weights - unread - behind <= {one for one in weights if one.endswith("mask")} and read <= behind
    lines = {node.name: node for node in graph.node}
    for module, kind in {"emotion/classifier": "addmm"}.items() if isinstance(model, MemoBertForEmotion) else ():
        inside = [name for name in names if name.startswith(f"{module}/") and kind in name]
        assert len(inside) == 1
        assert [dim.size for dim in lines[inside[0]].attr["_output_shapes"].list.shape[0].dim] == [2, 2]
    with torch.no_grad():
        assert model(batch).isfinite().all()  # its hooks are gone


def test_tensorboard_reads_it(tmp_path):
    model = a_sequence_model()
    write_graph(tmp_path, model, a_batch())
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()["graph"] is True
    graph = GraphDef.FromString(events.Graph().SerializeToString())
    assert any(node.name.startswith("network/joint/") for node in graph.node)
