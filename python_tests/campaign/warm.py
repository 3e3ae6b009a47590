"""Everything that commands import, once: what is forked from here begins at once."""

import importlib

import elsewhere  # noqa: F401  where the home of this process is set

_MODULES = (
    "av", "cv2", "lmdb", "matplotlib.pyplot", "torch.utils.tensorboard", "transformers", "safetensors.torch",
    "memofast.data.demo", "memofast.evaluate.results_table", "memofast.inference.films", "memofast.inference.page",
    "memofast.inference.hidden_states.extraction", "memofast.pages.inspect.page", "memofast.prepare.request",
    "memofast.prepare.faces.denseface_training", "memofast.text_emotion.training", "memofast.train.dry_run",
    "memofast.train.fine_tuning_runs", "memofast.train.session", "memofast.prepare.sources.npz",
    "memofast.model.towers.filling", "memofast.runs.cleaning", "memofast.runs.exporting", "memofast.runs.listing",
    "memofast.evaluate.evaluations", "memofast.evaluate.report", "transformers.models.bert.modeling_bert",
    "transformers.models.data2vec.modeling_data2vec_audio", "transformers.models.videomae.modeling_videomae",
)  # fmt: skip
_COMMANDS = (
    "prepare", "pretrain", "finetune", "predict", "extract", "evaluate", "pseudo_label", "emotion_text", "denseface",
    "inspect", "import_npz", "import_features", "cache", "runs",
)  # fmt: skip


def up() -> None:
    from memofast.cli import command_module

    for name in _COMMANDS:
        command_module(name)
    for name in _MODULES:
        importlib.import_module(name)
