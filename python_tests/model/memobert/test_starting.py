"""What a fine-tuning starts from: widths of its corpus or of text alone, the classes and kind it is asked for, a
prompt."""

import pytest
import torch
from mood_runs import felt_corpus, mood_corpus
from packed_batches import small_config

from memofast.data import Corpus
from memofast.errors import MemofastError
from memofast.model import MemoBertForPreTraining, MemoBertForPrompt
from memofast.model.families import FAMILIES
from memofast.model.memobert.conversion import to_original
from memofast.model.memobert.section import PromptSection

MEMOBERT = FAMILIES["memobert"]


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    return Corpus.open(mood_corpus(tmp_path_factory.mktemp("starting") / "moods")).split("train")


@pytest.fixture(scope="module")
def pre_trained(tmp_path_factory):
    """With faces and speech as wide as the corpus's."""
    folder = tmp_path_factory.mktemp("starting") / "pre"
    torch.manual_seed(0)
    MemoBertForPreTraining(small_config(vocab_size=9000, visual_width=4, speech_width=5)).save_pretrained(folder)
    return folder


def section(**entries):
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "vocab_size": 110,
    }
    return MEMOBERT.section(**(sizes | entries if "init" not in entries else entries))


def test_from_nothing_it_suits_the_corpus(train, tmp_path):
    model = MEMOBERT.start(section(visual_positions=9), "multi", ("calm", "glad", "sad"), train)
    assert model.classes == model.outputs == ("calm", "glad", "sad") and model.kind == "multi"
    assert model.reads == {"text": 110, "visual": 4, "speech": 5}
    assert model.longest == {"text": 512, "visual": 9, "speech": 512}
    felt = Corpus.open(felt_corpus(tmp_path / "felt")).split("train")
    value = MEMOBERT.start(section(), "regression", ("value",), felt)
    assert value.kind == "regression" and value.reads == {"text": 110, "visual": 4}
    assert value.longest == {"text": 512, "visual": 512}
    assert MEMOBERT.start(section(), "single", ("calm", "glad"), None).reads == {"text": 110}


def test_a_fresh_projection_begins_as_one_of_standardised_rows(train):
    torch.manual_seed(3)
    model = MEMOBERT.start(section(), "single", ("calm", "glad"), train)
    torch.manual_seed(3)
    blind = MEMOBERT.start(section(visual_width=4, speech_width=5), "single", ("calm", "glad"), None)
    faces = [train.corpus.stores["visual"].read(id)["rows"] for id in train.ids]
    rows = torch.cat([torch.as_tensor(face, dtype=torch.float32) for face in faces])
    standardised = (rows - rows.mean(0)) / rows.std(0, correction=0)
    projections = [one.memobert.embeddings.visual.projection for one in (model, blind)]
    torch.testing.assert_close(projections[0](rows), projections[1](standardised), atol=1e-3, rtol=1e-3)


def test_of_a_checkpoint_modalities_may_be_left_out(train, pre_trained):
    model = MEMOBERT.start(section(init=str(pre_trained)), "single", ("calm", "glad"), train)
    assert model.reads == {"text": 9000, "visual": 4, "speech": 5}
    alone = MEMOBERT.start(section(init=str(pre_trained), visual_width=0, speech_width=0), "single", ("a", "b"), None)
    assert alone.reads == {"text": 9000} and alone.classes == ("a", "b")
    with pytest.raises(MemofastError, match="has hidden_size 32, the recipe 48"):
        MEMOBERT.start(section(init=str(pre_trained), hidden_size=48), "single", ("a", "b"), train)


def test_faces_of_another_width_than_the_checkpoint_s(pre_trained, tmp_path):
    wide = Corpus.open(mood_corpus(tmp_path / "wide", "wide", width=6)).split("train")
    with pytest.raises(MemofastError, match=r"reads visual rows 4 wide, corpus .* has 6"):
        MEMOBERT.start(section(init=str(pre_trained)), "single", ("calm", "glad"), wide)


def test_a_prompt_leaves_less_room_for_text_and_may_have_an_output_of_no_class(train, pre_trained):
    prompt = PromptSection(words={"calm": 5475, "glad": 3407}, answers="vocabulary", prefix=True)
    model = MEMOBERT.start(section(init=str(pre_trained)), "single", ("calm", "glad"), train, prompt)
    assert type(model) is MemoBertForPrompt and model.classes == ("calm", "glad")
    assert model.outputs == ("calm", "glad", "another word")
    whole = model.config.max_position_embeddings
    assert model.longest["text"] == whole - 10  # i am [MASK] . and at most l v s : before it, a full stop, another
    inside = prompt.model_copy(update={"answers": "classes"})
    assert (
        MEMOBERT.start(section(init=str(pre_trained)), "single", ("calm", "glad"), train, inside).outputs
        == model.classes
    )
    with pytest.raises(MemofastError, match="a prompt starts from a pre-trained model"):
        MEMOBERT.start(section(), "single", ("calm", "glad"), train, prompt)
    with pytest.raises(MemofastError, match="no word is known for class 'odd'"):
        MEMOBERT.start(section(init=str(pre_trained)), "single", ("calm", "odd"), train, prompt)


def test_a_prompt_starts_from_a_file_that_knows_words(train, pre_trained, tmp_path):
    path, prompt = tmp_path / "model_step_2.pt", PromptSection(words={"calm": 5475, "glad": 3407})
    given = to_original(MemoBertForPreTraining.from_pretrained(pre_trained))
    torch.save(given, path)
    start = section(init=str(path), num_attention_heads=4)
    with pytest.warns(UserWarning, match=r"no place for feat_regress .*region_classifier"):
        model = MEMOBERT.start(start, "single", ("calm", "glad"), train, prompt)
    assert type(model) is MemoBertForPrompt and model.config.num_attention_heads == 4
    assert torch.equal(model.heads.words.bias, given["cls.predictions.bias"])
    torch.save({name: weight for name, weight in given.items() if not name.startswith("cls")}, path)
    with pytest.raises(MemofastError, match="has no head for words"):
        MEMOBERT.start(start, "single", ("calm", "glad"), train, prompt)


@pytest.mark.parametrize("freeze", [0, 1, "all"])
def test_frozen_layers(train, freeze):
    model = MEMOBERT.start(section(freeze=freeze, num_hidden_layers=2), "single", ("calm", "glad"), train)
    free = {name for name, value in model.named_parameters() if value.requires_grad}
    assert ("memobert.embeddings.word.weight" in free) == (freeze == 0)
    assert any(name.startswith("memobert.encoder.layers.1") for name in free) == (freeze != "all")
    assert any(name.startswith("emotion.") for name in free)
