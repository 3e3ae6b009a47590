"""Self-MM: the original's numbers and generated labels, what is kept of samples, and resuming with it."""

import pytest
import torch
from sequence_networks import (
    NOTHING,
    WIDTHS,
    a_network,
    an_original,
    assert_alone_as_in_a_batch,
    golden_of,
    padded,
    random_rows,
    samples_lesson,
)
from spoken_corpus import spoken_bert, spoken_corpus, spoken_model, spoken_task

from memofast.errors import MemofastError
from memofast.model.draws import Draws
from memofast.model.sequence.network import Shape
from memofast.model.sequence.self_mm import SelfMmOptions
from memofast.model.sequence.unimodal_labels import UnimodalLabels
from memofast.sections import checked
from memofast.train.fine_tuning import FineTuning
from memofast.train.processes import Processes
from memofast.train.trainer import Trainer

SHAPE = Shape(WIDTHS, 1, "regression", text_encoder=12)
LENGTHS = {"text": [4, 7, 1, 3], "visual": [6, 0, 2, 3], "speech": [2, 9, 0, 3]}
SMALL = {"recurrent_visual": 5, "recurrent_speech": 4, "summary_visual": 5, "summary_speech": 4, "width_joint": 6}
SMALL |= {"width_text": 5, "width_visual": 5, "width_speech": 4}
NAMES = {"joint": "fusion", "text": "text", "visual": "vision", "speech": "audio"}


@pytest.mark.real
def test_the_originals_numbers(real_data):
    parts = golden_of(real_data, "self_mm_unaligned")
    network = an_original("self_mm", parts, SHAPE, **SMALL)
    rows = {
        "text": padded(parts["hidden"]),
        "visual": padded(parts["in/2"], parts["in/4"]),
        "speech": padded(parts["in/1"], parts["in/3"]),
    }
    with torch.no_grad():
        answers = network(rows, NOTHING)
    torch.testing.assert_close(answers.outputs, parts["out/M"], rtol=0, atol=1e-5)
    for name, letter in (("text", "T"), ("visual", "V"), ("speech", "A")):
        torch.testing.assert_close(answers.modalities[name], parts[f"out/{letter}"], rtol=0, atol=1e-5)


@pytest.mark.real
def test_the_originals_labels(real_data):
    """Three epochs of two batches: labels after each, and centres as they bear on the labels of the next."""
    parts = golden_of(real_data, "self_mm_labels")
    widths = {name: parts[f"epoch1/half0/features/{own}"].shape[1] for name, own in NAMES.items()}
    state, every = UnimodalLabels(torch.arange(8), widths, 3.0), torch.ones(4, dtype=torch.bool)
    present = dict.fromkeys(("text", "visual", "speech"), every)
    for epoch in (1, 2, 3):
        for half in (0, 1):
            of = f"epoch{epoch}/half{half}"
            places = parts[f"{of}/index"].long()
            state.meet(places, parts["labels"][places], present)
            state.learn(places, {name: parts[f"{of}/features/{own}"] for name, own in NAMES.items()}, present, epoch)
            seen = state.seen("joint")
            assert int(seen.sum()) == (4 if (epoch, half) == (1, 0) else 8)
            for name, own in NAMES.items():
                wanted = parts[f"{of}/labels_after/{own}"]
                torch.testing.assert_close(state.labels(name)[seen], wanted[seen], rtol=0, atol=1e-5)
    assert (state.labels("text") - state.labels("joint")).abs().max() > 0.1
    index = parts["weighted_loss/index"].long()
    apart = (state.labels("text") - state.labels("joint"))[index].abs().tanh()
    loss = (apart * (parts["weighted_loss/pred"][:, 0] - state.labels("text")[index]).abs()).mean()
    torch.testing.assert_close(loss, parts["weighted_loss/text"])


def test_a_sample_is_the_same_alone():
    assert_alone_as_in_a_batch(a_network("self_mm", SHAPE, **SMALL), random_rows(LENGTHS, longer=2))
    alone = a_network("self_mm", Shape({"text": 12}, 1, "regression", text_encoder=12), **SMALL)
    assert_alone_as_in_a_batch(alone, random_rows({"text": LENGTHS["text"]}))


def test_compat_differs_where_it_reads_over_the_text():
    rows = random_rows(LENGTHS)
    plain, compat, aligned = (
        a_network("self_mm", SHAPE, **SMALL, **options)
        for options in ({}, {"compat": True}, {"compat": True, "aligned": True})
    )
    with torch.no_grad():
        outputs = [network(rows, NOTHING).outputs for network in (plain, compat, aligned)]
        same = random_rows({name: [4, 7, 2, 3] for name in WIDTHS})
        torch.testing.assert_close(plain(same, NOTHING).outputs, aligned(same, NOTHING).outputs)
    torch.testing.assert_close(outputs[0], outputs[1])
    assert (outputs[0] - outputs[2])[:3].abs().min() > 1e-6
    with pytest.raises(MemofastError, match="aligned is how an original reads rows"):
        checked({"kind": "self_mm", "aligned": True}, "recipe", SelfMmOptions)


def taught(rows, epochs, network=None, samples=4):
    """Losses of the last epoch after all, an update an epoch, and the network and its state."""
    network = network or a_network("self_mm", SHAPE).train()
    state = network.learning_state(torch.arange(samples))
    for epoch in range(1, epochs + 1):
        draws = Draws(torch.tensor([1, epoch]), torch.arange(samples))
        answers = network(rows, draws, samples_lesson(samples, epoch, state))
    return answers, network, state


def test_losses_begin_with_the_second_epoch_and_reach_everything():
    rows = random_rows(LENGTHS)
    answers, network, _ = taught(rows, 1)
    assert set(answers.losses) == {"text_alone", "visual_alone", "speech_alone"} == set(network.losses)
    assert not any(loss.any() for loss in answers.losses.values())  # labels are still those of the samples
    answers, network, state = taught(rows, 3)
    (answers.outputs.sum() + sum(loss.sum() for loss in answers.losses.values())).backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all() and weight.grad.any(), name
    assert state.seen("speech").tolist() == [True, True, False, True]
    assert float(answers.losses["speech_alone"][2]) == 0 and not state.features("speech")[2].any()
    with torch.no_grad():
        label, joint = state.labels("text"), state.labels("joint")
        again, _, after = taught(rows, 4, network)
    assert not torch.equal(label, joint) and joint.tolist() == samples_lesson(4).wanted[:, 0].tolist()
    assert again.losses["text_alone"].shape == (4,) and after.labels("text").abs().max() <= 3


def test_samples_of_unknown_values_teach_nothing():
    rows = random_rows(LENGTHS)
    network, lesson = a_network("self_mm", SHAPE, **SMALL).train(), samples_lesson(4)
    lesson.known, lesson.state = torch.tensor([0, 2]), network.learning_state(torch.arange(4))
    lesson.wanted[1] = lesson.wanted[3] = torch.nan
    network(rows, Draws(torch.tensor([1, 1]), torch.arange(4)), lesson)
    assert lesson.state.seen("joint").tolist() == [True, False, True, False]
    assert lesson.state.features("joint").any(1).tolist() == [True, False, True, False]


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spoken")
    return spoken_corpus(folder / "corpus"), {"init": str(spoken_bert(folder / "bert"))}


def test_a_run_that_was_stopped_goes_on_bit_for_bit(spoken, tmp_path, monkeypatch):
    """Stopped within the third epoch, after a checkpoint at the end of the second."""
    corpus, section = spoken
    section = section | {"network": {"kind": "self_mm", **SMALL}}

    def trainer(folder):
        return Trainer(spoken_task(corpus, spoken_model(corpus, section), epochs=4, lr=1e-2), folder, Processes())

    (tmp_path / "whole").mkdir(), (tmp_path / "parts").mkdir()
    whole = trainer(tmp_path / "whole")
    assert whole.task.per_epoch == 3
    whole.run()
    stopped, update = trainer(tmp_path / "parts"), Trainer.update

    def until_the_seventh(self, one):
        if one.step == 8:
            raise KeyError("power cut")
        update(self, one)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", until_the_seventh)
        with pytest.raises(KeyError, match="power cut"):
            stopped.run()
    again = trainer(tmp_path / "parts")
    assert again.state.step == 6
    kept = again.learner.objectives["emotion"]
    assert kept.seen("text").all() and not torch.equal(kept.labels("text"), kept.labels("joint"))
    again.run()
    for name, values in whole.learner.state_dict().items():
        assert torch.equal(again.learner.state_dict()[name], values), name
    assert {"text_alone", "speech_alone"} < set(again.task.objectives)


def test_classes_and_several_processes_are_refused(spoken):
    corpus, section = spoken
    with pytest.raises(MemofastError, match="generates values, of which classes have none"):
        a_network("self_mm", Shape(WIDTHS, 3, "single", text_encoder=12))
    model = spoken_model(corpus, section | {"network": {"kind": "self_mm", **SMALL}})
    task = spoken_task(corpus, model)
    with pytest.raises(MemofastError, match="which 2 processes would not share; start one process"):
        FineTuning(model, task.streams(), None, task.tuning, 0, world=2, family=task.family)
