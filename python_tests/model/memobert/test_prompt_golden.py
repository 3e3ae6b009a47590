"""Prompts as an objective: texts, losses and gradients of the original."""

import json
from dataclasses import replace

import pytest
import torch
from original_files import golden_batch, golden_file

from memofast import objectives
from memofast.data.batch import PackedBatch, PaddedBatch
from memofast.data.conditions import keep
from memofast.model import MemoBertForPreTraining
from memofast.objectives import Learner

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore:.*attention heads"),
    pytest.mark.filterwarnings("ignore:.*no place"),
]
RNG = torch.tensor([5, 17])


@pytest.mark.parametrize("name", ["promptmask", "cmpromptmask", "cmpromptmask_v"])
def test_losses_and_gradients_are_the_originals(real_data, tmp_path, name):
    golden = real_data.parent / "golden" / "memobert"
    model = MemoBertForPreTraining.from_original(golden_file(golden, "", tmp_path)).eval()
    batch, expected = golden_batch(golden, name)
    batch.targets["label"] = expected["classes"]
    options = {"template": [120, 121, 103, 122], "words": {f"{n}": 130 + n for n in range(4)}}
    objective = objectives.build({"label_prompt": options}, model.config)["label_prompt"]
    if name == "promptmask":  # which the original's store holds already; here it is taken off, and no full stop added
        last = batch.text_offsets[1:].tolist()
        prompted = torch.cat([torch.arange(end - 5, end - 1) for end in last])
        left = torch.ones(len(batch.token_ids), dtype=torch.bool)
        left[prompted] = False
        offsets = batch.text_offsets - 4 * torch.arange(7, dtype=torch.int32)
        bare = replace(batch, token_ids=batch.token_ids[left], word_ids=batch.word_ids[left], text_offsets=offsets)
        given, batch = batch, replace(bare, offsets=offsets + batch.visual_offsets + batch.speech_offsets)
        marks = replace(objective.prompt.marks, ends=tuple(range(320)))
        objective.prompt = replace(objective.prompt, position="after", marks=marks)
        objective.options.position = "after"
    else:
        batch = keep(batch, "va")
    (view,) = objectives.views_for(batch, objective, RNG)
    assert name != "promptmask" or torch.equal(view.batch.token_ids, given.token_ids)
    loss = Learner(model, {"label_prompt": objective})([view])["label_prompt"]
    wanted = json.loads((golden / "index.json").read_text())[name]
    assert float(loss.total.detach()) / loss.count == pytest.approx(wanted["loss"], abs=1e-5)
    torch.testing.assert_close(model(view)["label_prompt"], expected["predictions"], rtol=0, atol=1e-5)
    (loss.total / loss.count).backward()
    norm = wanted["gradient_norms"]["uniter.embeddings.word_embeddings.weight"]
    assert float(model.memobert.embeddings.word.weight.grad.norm()) == pytest.approx(norm, rel=1e-4)


def test_texts_are_those_of_the_originals_datasets(real_data):
    """Every template before the text, with and without it, and the letters of what there is; id 3 has a face in its
    place, as there."""
    cases = json.loads((real_data.parent / "golden" / "memobert" / "prompt_structure.json").read_text())
    plain = cases["flexpromptmask:iam"]
    seen = 0
    for case, samples in cases.items():
        task, _, rest = case.partition(":")
        template, _, condition = rest.partition(":")
        options = {"words": {"anger": "anger", "happy": "happy", "neutral": "neutral", "sad": "sad"}}
        if task in ("promptmask", "cmpromptmask"):  # whose template ends in a comma
            options |= {"template": [1045, 2572, 103, 1010], "position": "after"}
        else:
            options |= {"template": template, "prefix": "miss" in task}
        alone = task.startswith("cm") or (condition and "l" not in condition)
        objective = objectives.build({"label_prompt": options})["label_prompt"]
        for id, sample in samples.items():
            text = [101] if alone else [101, *plain[id]["input_ids"][5:]]
            rows = [torch.tensor([sample.get(name) or 0], dtype=torch.int32) for name in ("faces", "speech")]
            batch = PackedBatch.from_padded(PaddedBatch(
                torch.tensor([text], dtype=torch.int32), torch.zeros(1, len(text), dtype=torch.int32),
                torch.tensor([len(text)], dtype=torch.int32), *rows, sample_keys=torch.tensor([3]),
                visual=torch.zeros(1, int(rows[0]), 8), speech=torch.zeros(1, int(rows[1]), 8),
                targets={"label": torch.tensor([sample["target"]])},
            ))  # fmt: skip
            (view,) = objectives.views_for(batch, objective, RNG)
            assert view.batch.token_ids.tolist() == sample["input_ids"], (case, id)
            read, labels = view.reads["label_prompt"], sample["labels"]
            assert labels[int(read.rows)] == objective.words[int(read.labels)]
            seen += 1
    assert seen >= 60
