"""From databases to a table of a fine-tuned model, as the page about them goes."""

import json

from legacy_databases import legacy_set, sound
from runs import here, the_run

from memofast.data.demo import vocabulary

TINY = [
    "model.hidden_size=16",
    "model.num_hidden_layers=1",
    "model.num_attention_heads=2",
    "model.intermediate_size=32",
]
QUICK = ["train.precision=fp32", "train.samples=8"]


def test_from_databases_to_a_table(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary()) + "\n")
    legacy_set(tmp_path, tmp_path / "vocab.txt")
    rows = ["--face", "fc_db", "--speech", "wav2vec_db_3mean", "--vocab", "vocab.txt"]
    films = [f"txt_db/movies_v1_th0.5_wwm_nrcemolex_all_{split}.db" for split in ("trn", "val3k")]
    told = sound(here(tmp_path, "import-legacy", *films, *rows, "--out", "corpora/films"))
    assert "corpus films at corpora/films: train 14, validation 6" in told
    named = ["--classes", "anger,happy,neutral,sad", "--folds", "iemocap/target", "--out", "corpora/talks"]
    told = sound(here(tmp_path, "import-legacy", "iemocap/all_wwm.db", *rows, *named))
    assert "note: 3 folds, as scheme cv" in told
    sound(here(tmp_path, "pretrain", "memobert-mini", "corpora.0.path=corpora/films", *TINY, *QUICK, "train.updates=2",
               "train.warmup=1", "train.save_every=2", "validate.every=2"))  # fmt: skip
    run = the_run(tmp_path)
    sound(here(tmp_path, "finetune", "corpus=corpora/talks", f"model.init={run}", "folds.scheme=cv", "train.epochs=1",
               "folds.only=[3]", *QUICK))  # fmt: skip
    (tuned,) = (one for one in (tmp_path / "runs").iterdir() if one != run)
    assert {"anger", "happy", "neutral", "sad"} <= set((tuned / "results.md").read_text().split())
    assert json.loads((tuned / "results.json").read_text())
