"""The emotion model that a fine-tuning starts from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memofast.data import Split
from memofast.data.conversations import telling_of
from memofast.data.feature_statistics import feature_statistics
from memofast.data.modality import FEATURES
from memofast.data.prompt import TEMPLATES, WORDS, Prompt
from memofast.errors import MemofastError, nearest
from memofast.model.compatibility import check_widths
from memofast.model.face_networks.network import WIDTHS
from memofast.model.memobert.adapting import adapt
from memofast.model.memobert.emotion import MemoBertForEmotion
from memofast.model.memobert.pre_training import MemoBertModel
from memofast.model.memobert.prompt import MemoBertForPrompt
from memofast.model.memobert.section import MemoBertEmotionSection, PromptSection
from memofast.model.memobert.sizes import begins_features_anew, check_sizes, configuration, sizes_of
from memofast.model.memobert.starting_faces import begin_faces, face_entries
from memofast.model.problems import PROBLEMS


def start(
    section: MemoBertEmotionSection,
    kind: str,
    classes: Sequence[str],
    train: Split | None,
    prompt: PromptSection | None = None,
) -> MemoBertForEmotion | MemoBertForPrompt:
    """The model a run starts from, see `family.Start`; fresh projections suit the rows of `train`, whose context it is
    going to read.

    Raises: `MemofastError` for a checkpoint of another architecture, or whose feature rows have another width than the
        corpus, for raw speech, and for another [MASK] than the corpus's context asks at.
    """
    entries = section.entries()
    heads = entries.get("num_attention_heads")
    before = sizes_of(section.init, heads)
    if train is not None and "speech" in train.corpus.raw:
        raise MemofastError(
            f"corpus {train.corpus.path} has raw speech, of which model.family memobert makes no rows; prepare rows, "
            "or read others of the corpus by modalities.features.speech"
        )
    face = face_entries(section.face, before.get("face"), [train.corpus] if train is not None else [])
    widths = {f"{modality}_width": train.corpus.width(modality) if train is not None else 0 for modality in FEATURES}
    if train is not None and "visual" in train.corpus.raw:
        widths["visual_width"] = WIDTHS[face["network"]]
    entries |= {"face": face} if face else {}
    telling = telling_of(train.corpus) if train is not None else None
    entries |= {"context": telling.context.plain() if telling else None}
    fresh = section.init is None or begins_features_anew(section.init, heads)
    asked = {"problem_type": PROBLEMS[kind], "emotion_head": section.head}
    if section.init is None:
        if prompt:
            raise MemofastError("a prompt starts from a pre-trained model; add model.init=FOLDER")
        named = {"id2label": dict(enumerate(classes)), "label2id": {name: n for n, name in enumerate(classes)}}
        model = MemoBertForEmotion(configuration(widths | entries | named | asked))
    else:
        check_sizes(section.init, entries, may_lack=list(widths), may_begin=("face",))
        entries = (widths if fresh else {}) | entries
        if prompt:
            vocabulary = sizes_of(section.init, heads)["vocab_size"]
            model = start_prompt(MemoBertForPrompt, prompt, section.init, classes, entries, vocabulary)
        else:
            model = MemoBertForEmotion.start(section.init, classes, **entries, **asked)
        if train is not None:
            check_widths(model, section.init, train.corpus)
    if telling and telling.mask not in (None, model.config.mask_token_id):
        raise MemofastError(
            f"[MASK] is word piece {telling.mask} of corpus {train.corpus.path}, the model's is "
            f"{model.config.mask_token_id}; set model.mask_token_id={telling.mask}"
        )
    if train is not None and fresh:
        standardise(model.memobert, train)
    if train is not None and model.config.face and not before.get("face"):
        begin_faces(model.memobert, section.face, [train], fresh)
    if section.lora:
        adapt(model, section.lora, section.init)
    model.memobert.freeze(None if section.freeze == "all" else section.freeze)
    return model


def standardise(encoder: MemoBertModel, train: Split) -> None:
    """Suit fresh projections to the rows of a split, as far as those come ready."""
    for modality in FEATURES:
        embeddings = getattr(encoder.embeddings, modality)
        if embeddings is None or modality in encoder.config.made:
            continue
        if (found := feature_statistics(train, modality)) is not None:
            embeddings.standardise(*found)


def start_prompt(
    kind: type[MemoBertForPrompt],
    choice: PromptSection,
    init: str,
    classes: Sequence[str],
    entries: dict[str, Any],
    vocabulary: int,
) -> MemoBertForPrompt:
    """A model that is asked by the prompt of a recipe. entries: of its configuration. vocabulary: word pieces that the
    checkpoint knows. Raises: `MemofastError` for a prompt that the checkpoint or the classes have no words for."""
    template = choice.template
    if isinstance(template, str):
        if template not in TEMPLATES:
            raise MemofastError(f"prompt.template {template!r}{nearest(template, TEMPLATES)}")
        template = TEMPLATES[template]
    words = WORDS | (choice.words or {})
    for name in classes:
        if name not in words:
            raise MemofastError(f"no word is known for class {name!r}; add prompt.words.{name}=WORD_PIECE")
    beyond = [piece for piece in (*template, *(words[name] for name in classes)) if piece >= vocabulary]
    if beyond:
        raise MemofastError(f"prompt: word piece {beyond[0]} is beyond the vocabulary of {init}; choose another one")
    return kind.start(
        init, classes, Prompt(tuple(template), choice.position, choice.prefix), [words[name] for name in classes],
        whole_vocabulary=choice.answers == "vocabulary", soft_from_words=choice.soft_from_words, **entries,
    )  # fmt: skip
