"""What a plan refuses before anything is trained: corpora, objectives and checkpoints that do not go together."""

import json
import shutil

import numpy as np
import pytest
from runs import small_corpus
from transformers import BertConfig, BertModel

from memofast.data import Corpus, write_corpus
from memofast.errors import MemofastError
from memofast.store import FeatureWriter, TextWriter
from memofast.train import fine_tuning_recipe
from memofast.train.fine_tuning_plan import make_fine_tuning_plan
from memofast.train.plan import make_model, make_plan
from memofast.train.recipe import read

TINY = ["model.hidden_size=32", "model.num_attention_heads=1", "model.num_hidden_layers=1"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("plan"))


def plan(corpora, objectives, *overrides):
    entries = ", ".join(f"{{path: {corpus}}}" if "{" not in str(corpus) else corpus for corpus in corpora)
    return make_plan(read("demo", [f"corpora=[{entries}]", f"objectives={objectives}", *TINY, *overrides]))


def own_corpus(folder, name, faces=(3, 2), classes=("x", "y"), validation_faces=1, width=8):
    """Two training clips with these faces, and one to validate on."""
    stores = {modality: folder / modality for modality in ("text", "visual")}
    with (
        TextWriter(stores["text"], cls_id=2, sep_id=3) as text,
        FeatureWriter(stores["visual"], width, columns=("soft_labels",), classes=classes) as visual,
    ):
        for id, count in zip(("a", "b", "c"), (*faces, validation_faces), strict=True):
            text.put(id, [9, 10], [0, 1])
            if count:
                labels = np.full((count, len(classes)), 1 / len(classes))
                visual.put(id, np.ones((count, width)), soft_labels=labels)
    write_corpus(folder, name, stores, {"train": ["a", "b"], "validation": ["c"]})
    return folder


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.samples=1"], "compares the samples of a micro-batch; raise train.samples above 1"),
        (
            ["model.hidden_dropout_prob=0", "model.attention_probs_dropout_prob=0"],
            "compares what dropout makes of a sample; set model.hidden_dropout_prob above 0",
        ),
    ],
)
def test_contrast_needs_two_samples_and_dropout(corpus, overrides, message):
    with pytest.raises(MemofastError, match=message):
        plan([corpus], "{view_contrast: {}}", *overrides)
    assert plan([corpus], "{view_contrast: {}}", "train.samples=2", "model.hidden_dropout_prob=0")


def test_a_corpus_serves_what_it_names_or_says_why_not(corpus, tmp_path):
    own = own_corpus(tmp_path, "still", faces=(1, 1))
    entry = f"{{path: {own}, objectives: [whole_word_mlm, visual_order]}}"
    with pytest.raises(MemofastError, match=r"is to serve objective visual_order, but no training sample"):
        plan([entry], "{whole_word_mlm: {}, visual_order: {}}")
    entry = f"{{path: {corpus}, objectives: [whole_word_mlm]}}"
    with pytest.raises(MemofastError, match=r"objectives\.visual_order: no corpus names it among its objectives"):
        plan([entry], "{whole_word_mlm: {}, visual_order: {}}")
    with pytest.raises(MemofastError, match=r"corpora\.0\.objectives: list should have at least 1 item"):
        plan([f"{{path: {corpus}, objectives: []}}"], "{whole_word_mlm: {}}")


def test_an_objective_that_validation_cannot_see_is_refused(tmp_path):
    own = own_corpus(tmp_path, "blind", validation_faces=0)
    with pytest.raises(
        MemofastError, match=r"objectives\.span_visual_regression: no validation sample has visual rows"
    ):
        plan([own], "{span_visual_regression: {}, whole_word_mlm: {}}")
    assert plan([own], "{whole_word_mlm: {}}").parts[0].checked == ("whole_word_mlm",)


def test_soft_labels_of_two_corpora_mean_the_same(tmp_path):
    one, other, more = (
        own_corpus(tmp_path / name, name, classes=classes)
        for name, classes in (("one", ("x", "y")), ("other", ("y", "x")), ("more", ("x", "y", "z")))
    )
    for second, classes in ((other, "y, x"), (more, "x, y, z")):
        with pytest.raises(MemofastError, match=f"soft_labels are of the classes x, y in corpus .* and {classes} in"):
            plan([one, second], "{span_visual_emotion: {}}")
        assert plan([one, second], "{span_visual_regression: {}}")


def test_a_head_of_the_checkpoint_of_another_size_is_named(corpus, tmp_path):
    of_64 = plan([corpus], "{visual_order: {slots: 64}}")
    make_model(of_64).save_pretrained(tmp_path / "start")
    start = f"model.init={tmp_path / 'start'}"
    assert make_model(plan([corpus], "{visual_order: {slots: 64}, matching: {}}", start))
    kept = plan([corpus], "{whole_word_mlm: {}}", start)
    assert kept.config.heads == {}
    with pytest.raises(MemofastError, match=r"objectives\.visual_order asks for a head visual_order of another size"):
        plan([corpus], "{visual_order: {slots: 32}}", start)


def test_a_bert_gets_the_heads_and_options_that_are_asked_for(corpus, tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    sizes |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "max_position_embeddings": 64}
    BertModel(BertConfig(vocab_size=124, **sizes)).save_pretrained(tmp_path / "bert")
    asked = [f"model.{name}={value}" for name, value in sizes.items()]
    start = [f"model.init={tmp_path / 'bert'}", "model.position_encoding=sinusoid", "model.shared_types=true"]
    model = make_model(plan([corpus], "{matching: {}}", *asked, *start))
    assert model.heads.matching.weight.shape == (2, 32)
    assert model.config.shared_types and model.config.position_encoding == "sinusoid"


def test_a_checkpoint_of_other_faces_asks_for_other_corpora(tmp_path):
    narrow, wide = (own_corpus(tmp_path / str(width), "own", width=width) for width in (8, 16))
    make_model(plan([narrow], "{whole_word_mlm: {}}")).save_pretrained(tmp_path / "start")
    with pytest.raises(MemofastError, match="has visual_width 8, the corpora 16; give corpora of the same"):
        make_model(plan([wide], "{whole_word_mlm: {}}", f"model.init={tmp_path / 'start'}"))


def test_a_store_of_rows_that_no_sample_has_still_has_a_width(tmp_path):
    own = own_corpus(tmp_path, "empty", faces=(0, 0), validation_faces=0)
    assert Corpus.open(own).width("visual") == 8
    assert plan([own], "{whole_word_mlm: {}}").config.visual_width == 8


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (b"a\n\nb\n", "line 2 of .*train.txt is empty"),
        (b"a\nb\n\n", "line 3 of .*train.txt is empty"),
        (b"a\na\n", "names sample 'a' twice"),
        (b"a\n", r"lists 1 samples, .*corpus\.json says 2"),
        (b"a\n\xff\n", "is no UTF-8"),
    ],
)
def test_lists_of_samples_that_were_changed(tmp_path, lines, message):
    own = own_corpus(tmp_path, "changed")
    (own / "splits" / "train.txt").write_bytes(lines)
    with pytest.raises(MemofastError, match=message) as error:
        plan([own], "{whole_word_mlm: {}}")
    assert "\n" not in str(error.value)


def test_weights_that_a_checkpoint_lacks_are_not_made_up(corpus, tmp_path):
    from safetensors.torch import load_file, save_file

    make_model(plan([corpus], "{whole_word_mlm: {}}")).save_pretrained(tmp_path / "start")
    weights = load_file(tmp_path / "start" / "model.safetensors")
    for number, gone in enumerate(("memobert.embeddings.word.weight", "memobert.embeddings.visual.mask")):
        part = shutil.copytree(tmp_path / "start", tmp_path / f"part{number}")
        save_file({n: v for n, v in weights.items() if n != gone}, part / "model.safetensors", {"format": "pt"})
        with pytest.raises(MemofastError, match=f"its weights lack {gone}, unlike the configuration") as error:
            make_model(plan([corpus], "{whole_word_mlm: {}}", f"model.init={part}"))
        assert "\n" not in str(error.value)
    damaged = shutil.copytree(tmp_path / "start", tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes((damaged / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(MemofastError, match=r"model\.safetensors: cannot be read"):
        make_model(plan([corpus], "{whole_word_mlm: {}}", f"model.init={damaged}"))
    smaller = shutil.copytree(tmp_path / "start", tmp_path / "smaller")
    config = json.loads((smaller / "config.json").read_text()) | {"intermediate_size": 256}
    (smaller / "config.json").write_text(json.dumps(config))
    with pytest.raises(MemofastError, match="have another shape of memobert"):
        make_model(plan([corpus], "{whole_word_mlm: {}}", f"model.init={smaller}", "model.intermediate_size=256"))


def test_fine_tuning_checks_the_rows_that_its_conditions_show(corpus):
    few = [f"corpus={corpus}", "model.visual_positions=4", "modalities.train=[l]", "modalities.select=[l]"]
    with pytest.raises(MemofastError, match=r"has \d+ visual rows, \d+ samples have more than the 4 that the model"):
        make_fine_tuning_plan(fine_tuning_recipe.read("finetune-demo", [*few, "modalities.evaluate=[l, lv]"]))
    assert make_fine_tuning_plan(fine_tuning_recipe.read("finetune-demo", [*few, "modalities.evaluate=[l, la]"]))
