"""The emotion model: its head, saving and loading, what it starts from."""

import pytest
import torch
from packed_batches import random_batch, select, small_config

from memofast.errors import MemofastError, MemofastWarning
from memofast.model import MemoBertForEmotion, MemoBertForPreTraining, MemoBertModel
from memofast.model.families import open_emotion_model

CLASSES = ("neutral", "happy", "sad")


def small_model(**overrides):
    torch.manual_seed(0)
    return MemoBertForEmotion(small_config(id2label=dict(enumerate(CLASSES)), **overrides))


@pytest.fixture
def rng():
    return torch.tensor([5, 3])


def test_logits_are_a_linear_map_of_the_pooled_rows():
    model = small_model().eval()
    batch = random_batch(model.config)
    pooled = model.memobert(batch).pooled
    torch.testing.assert_close(model(batch), model.emotion.classifier(pooled))
    assert model.classes == CLASSES


def test_one_by_one_is_the_batch():
    model = small_model().eval()
    batch = random_batch(model.config)
    alone = [model.probabilities(select(batch, [sample])) for sample in range(batch.samples)]
    torch.testing.assert_close(torch.cat(alone), model.probabilities(batch))
    torch.testing.assert_close(model.probabilities(batch).sum(-1), torch.ones(batch.samples))


def test_dropout_of_the_head_belongs_to_the_sample(rng):
    model = small_model(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.0).train()
    batch = random_batch(model.config)
    turned = select(batch, [4, 2, 0])
    torch.testing.assert_close(model(batch, rng=rng)[[4, 2, 0]], model(turned, rng=rng))
    assert not torch.equal(model(batch, rng=rng), model(batch, rng=rng + 1))
    with pytest.raises(ValueError, match="rng"):
        model(batch)


def test_every_parameter_that_is_read_gets_a_gradient(rng):
    model = small_model().train()
    model(random_batch(model.config), rng=rng).square().sum().backward()
    unread = {name for name, value in model.named_parameters() if value.grad is None}
    assert unread == {f"memobert.embeddings.{modality}.mask" for modality in ("visual", "speech")}


def test_saved_and_loaded(tmp_path):
    model = small_model().eval()
    model.save_pretrained(tmp_path)
    loaded = open_emotion_model(tmp_path)
    batch = random_batch(model.config)
    assert loaded.classes == CLASSES and not loaded.training
    torch.testing.assert_close(loaded(batch), model(batch), rtol=0, atol=0)


def test_starts_from_a_pre_trained_model_and_from_one_of_other_classes(tmp_path):
    pre_trained = MemoBertForPreTraining(small_config())
    pre_trained.save_pretrained(tmp_path / "pre")
    first = MemoBertForEmotion.start(tmp_path / "pre", CLASSES)
    torch.testing.assert_close(first.memobert.pooler.weight, pre_trained.memobert.pooler.weight)
    first.save_pretrained(tmp_path / "three")
    with pytest.warns(
        MemofastWarning, match=f"three is fine-tuned .{', '.join(CLASSES)}.: its encoder is taken, and it"
    ):
        second = MemoBertForEmotion.start(tmp_path / "three", ("a", "b"))
    assert second.classes == ("a", "b") and second.emotion.classifier.weight.shape[0] == 2
    torch.testing.assert_close(second.memobert.pooler.weight, first.memobert.pooler.weight)


def test_a_model_without_emotion_head_is_refused(tmp_path):
    MemoBertModel(small_config()).save_pretrained(tmp_path)
    with pytest.raises(MemofastError, match="without an emotion head"):
        open_emotion_model(tmp_path)
    with pytest.raises(MemofastError, match="no such checkpoint folder"):
        open_emotion_model(tmp_path / "nowhere")
