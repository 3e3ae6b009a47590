"""MemoBert-flow trained on raw rows and ready ones: its resumption, what is refused, and what follows it."""

import json
import shutil

import numpy as np
import pytest
import torch
from flow_recipes import FACE, flow_recipe, without_faces
from joint_faces import raw_corpus
from runs import final_weights, finetune, first_updates, here, losses, pretrain, the_run, without_curves
from tiny_models import save_bert, save_speech_model

from memofast.data import Corpus
from memofast.data.demo import vocabulary
from memofast.data.feature_choice import reading
from memofast.errors import MemofastError
from memofast.inference.sample_predictions import predict_samples
from memofast.inference.samples import Sample
from memofast.model.face_networks.frozen_norm import FrozenNorm
from memofast.model.families import open_emotion_model
from memofast.model.folder import model_folder
from memofast.model.memobert.section import PromptSection
from memofast.model.memobert_flow.beginning import start
from memofast.model.memobert_flow.section import MemoBertFlowEmotionSection
from memofast.train.optimisation import parameter_groups
from memofast.train.plan import make_plan
from memofast.train.pre_training import PreTraining
from memofast.train.recipe import read


@pytest.fixture(scope="module", autouse=True)
def _without_curves():
    with without_curves():
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return raw_corpus(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def heard(corpus, tmp_path_factory):
    return without_faces(corpus, tmp_path_factory.mktemp("heard") / "corpus")


def run_of(folder, *line):
    result = pretrain(folder, *line)
    assert result.returncode == 0, result.stderr
    return the_run(folder)


@pytest.fixture(scope="module")
def whole(heard, tmp_path_factory):
    """A run of two micro-batches an update, whose text encoder keeps its weights."""
    folder = tmp_path_factory.mktemp("whole")
    return run_of(folder, flow_recipe(folder, heard, freeze=["text"]), "train.accumulate=2")


def test_a_resumed_run_equals_an_uninterrupted_one(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / "step-00000002")
    resumed = pretrain(tmp_path, "--resume", run)
    assert resumed.returncode == 0 and "warning" not in resumed.stderr, resumed.stderr
    assert losses(run) == losses(whole)
    one, other = final_weights(whole), final_weights(run)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_every_parameter_is_in_one_group_and_learns_unless_it_is_frozen(corpus, tmp_path):
    plan = make_plan(read(str(flow_recipe(tmp_path, corpus, freeze=["text"], face=FACE))))
    task = PreTraining(plan)
    learner = task.learner().train()
    groups = parameter_groups(learner, plan.recipe.train)
    members = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(members) == sorted(id(parameter) for parameter in learner.parameters() if parameter.requires_grad)
    norms = {id(p) for module in learner.modules() if isinstance(module, FrozenNorm) for p in module.parameters()}
    assert norms and norms <= {
        id(parameter) for group in groups if not group["weight_decay"] for parameter in group["params"]
    }
    (update,) = first_updates(task, 1)
    sum(loss.total for loss in learner(update.micro_batches[0].views, torch.tensor([1, 1])).values()).backward()
    idle = {name.removeprefix("model.memobert.embeddings.") for name, p in learner.named_parameters() if p.grad is None}
    assert {name.split(".")[0] for name in idle} == {"word", "position", "types", "norm", "text_layers"}


def test_ready_rows_and_a_bert(heard, tmp_path):
    bert = save_bert(tmp_path / "bert", vocabulary())
    path = flow_recipe(
        tmp_path, heard, ("whole_word_mlm", "span_speech_regression"), features={}, sound=None, init=str(bert),
        unimodal_heads=2, text_layers=2, intermediate_size=32, max_position_embeddings=512,
    )  # fmt: skip
    model = PreTraining(make_plan(read(str(path)))).learner().model
    assert model.config.speech_width == 96 and not model.config.made


def test_a_second_stage_goes_on_with_all_of_the_first(whole, heard, tmp_path):
    plan = make_plan(read(str(flow_recipe(tmp_path, heard, sound=None, init=str(whole)))))
    model = PreTraining(plan).learner().model
    assert plan.config.sound == {"network": "waveform"} and all(p.requires_grad for p in model.parameters())
    ours, theirs = model.state_dict(), final_weights(whole)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_prompt_asks_it_too(whole, heard):
    split = reading(Corpus.open(heard), {"speech": "sound"}).split("train")
    section = MemoBertFlowEmotionSection(family="memobert-flow", init=str(model_folder(whole)))
    words = {"calm": vocabulary().index("happy"), "glad": vocabulary().index("sad")}
    prompt = PromptSection(template=[5, 103, 6], words=words)
    model = start(section, "single", ("calm", "glad"), split, prompt)
    found = model.probabilities(split.pack(np.arange(5)))
    assert found.shape == (5, 2) and model.config.speech_width == 128
    torch.testing.assert_close(found.sum(1), torch.ones(5))


def _holds(group, parameter):
    return any(one is parameter for one in group["params"])


def test_wav2vec2_begins_with_its_folder(heard, tmp_path):
    folder = save_speech_model(tmp_path / "sound", "wav2vec2", normalise=False)
    sound = {"network": "wav2vec2", "init": str(folder)}
    plan = make_plan(read(str(flow_recipe(tmp_path, heard, sound=sound, speech_layers=0, freeze=["speech", "text"]))))
    assert (plan.config.speech_width, plan.config.sound["normalise"]) == (16, False)
    assert [line for line in plan.said if "freeze" in line] == [
        "model.freeze: the text encoder begins with random weights, which it keeps"
    ]
    from transformers import Wav2Vec2Model

    learner = PreTraining(plan).learner().requires_grad_(True)
    body = learner.model.memobert.embeddings.speech.network.body
    ours = body.state_dict()
    over_time = body.feature_extractor.conv_layers[0].layer_norm.weight
    decays = {g["weight_decay"] for g in parameter_groups(learner, plan.recipe.train) if _holds(g, over_time)}
    assert decays == {0.0}
    theirs = Wav2Vec2Model.from_pretrained(folder).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert plan.recipe.model.spelt_out(plan.config).sound.init == str(folder)


def test_what_follows_a_run(whole, heard, tmp_path):
    """Fine-tuned, evaluated, asked of samples in no store, its rows extracted; what hears sound is not exported."""
    asked = ["finetune", "model.family=memobert-flow", f"model.init={whole}", f"corpus={heard}", "model.head=emocls"]
    asked += ["modalities.features.speech=sound", "train.epochs=1", "train.seeds=[1]", "train.precision=fp32"]
    tuned = finetune(tmp_path, *asked, "model.freeze=[text]", "train.samples=8", "modalities.evaluate=[la]")
    assert tuned.returncode == 0, tuned.stderr
    (run,) = (tmp_path / "runs").glob("finetune-*")
    again = here(tmp_path, "evaluate", run, "--corpus", heard, "--split", "test", "--features", "speech=sound")
    assert again.returncode == 0, again.stderr
    split = reading(Corpus.open(heard), {"speech": "sound"}).split("test")
    samples = []
    for number in range(len(split)):
        one = split.pack(np.array([number]))
        rows = {} if one.speech is None else {"speech": one.speech.numpy()}
        samples.append(Sample(one.token_ids.numpy(), one.word_ids.numpy(), rows))
    model = open_emotion_model(model_folder(run))
    with torch.no_grad():
        stored = model.probabilities(split.pack(np.arange(len(split))))
    found = predict_samples(model, samples, list(split.ids))[0]
    np.testing.assert_allclose(found, stored.numpy(), atol=1e-5)
    asked = ["--split", "test", "--features", "speech=sound", "--out", tmp_path / "rows.npz"]
    drawn = here(tmp_path, "extract", whole, "--corpus", heard, *asked)
    assert drawn.returncode == 0, drawn.stderr
    refused = here(tmp_path, "export", run, "--out", tmp_path / "x.pt2")
    assert refused.returncode == 2 and "makes its rows of speech" in refused.stderr, refused.stderr


def refusal(folder, heard, *overrides, **changed):
    with pytest.raises(MemofastError) as error:
        make_plan(read(str(flow_recipe(folder, heard, **changed)), list(overrides)))
    message = str(error.value)
    assert "\n" not in message
    return message


def test_what_does_not_go_together_is_refused(heard, whole, tmp_path):
    said = refusal(tmp_path, heard, objectives=("whole_word_mlm", "span_speech_regression"))
    assert said.startswith("objectives.span_speech_regression gives rows of speech back")
    folder = save_speech_model(tmp_path / "sound", "wav2vec2")
    wav2vec2 = {"network": "wav2vec2", "init": str(folder)}
    said = refusal(tmp_path, heard, objectives=("whole_word_mlm", "span_speech_contrast"), sound=wav2vec2)
    assert said.startswith("objectives.span_speech_contrast hides rows of speech, whose network")
    assert "raw sound, of which something must make rows" in refusal(tmp_path, heard, sound=None)
    assert "reads rows of 320" in refusal(tmp_path, heard, features={})
    assert "reads rows of 1040" in refusal(tmp_path, heard, sound={"network": "compare"})
    assert "add model.sound.init=FOLDER" in refusal(tmp_path, heard, sound={"network": "wav2vec2"})
    for entries, told in (
        ({"num_hidden_layers": 200}, "numbers, its config.json is of"),
        ({"conv_stride": [5, 2, 2, 2, 2, 2, 1]}, "samples every 160"),
        ({"hidden_size": 10**9}, "hidden_size"),
        ({"hidden_act": "relu"}, "hidden_act"),
    ):
        damaged = shutil.copytree(folder, tmp_path / f"damaged {next(iter(entries))}")
        values = json.loads((damaged / "config.json").read_text())
        (damaged / "config.json").write_text(json.dumps(values | entries))
        assert told in refusal(tmp_path, heard, sound=wav2vec2 | {"init": str(damaged)})
    hubert = save_speech_model(tmp_path / "hubert", "hubert")
    assert "'hubert' model" in refusal(tmp_path, heard, sound={"network": "wav2vec2", "init": str(hubert)})
    assert "model.sound.init: waveform" in refusal(tmp_path, heard, sound={"network": "waveform", "init": str(folder)})
    other = refusal(tmp_path, heard, f"model.init={whole}", text_layers=2)
    assert "text_layers 1, the recipe 2" in other
    assert "model.sound.network is wav2vec2" in refusal(tmp_path, heard, f"model.init={whole}", sound=wav2vec2)
    assert "names an encoder twice" in refusal(tmp_path, heard, freeze=["text", "text"])
    assert "layers" in refusal(tmp_path, heard, text_layers=-1)
