"""From a recipe to what the loop needs: open corpora, objectives by corpus, streams, capacity, model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from memofast import objectives
from memofast.data import Capacity, Corpus, Split
from memofast.data.batch import rounded_length
from memofast.data.demo import open_corpus
from memofast.data.feature_choice import reading
from memofast.data.modality import FEATURES
from memofast.data.sampling import Stream
from memofast.errors import MemofastError
from memofast.model import MemoBertConfig
from memofast.model.families import FAMILIES
from memofast.model.family import PreTraining
from memofast.model.feature_sets import FeatureSet, check_feature_sets, joined, unknown_feature_sets
from memofast.objectives import Objective
from memofast.ops.philox import Purpose
from memofast.prepare.text.vocabulary import vocabulary_of
from memofast.prepare.text.word_pieces import WordPieces
from memofast.train.optimisation import lines_on_fixed_groups, parameter_groups
from memofast.train.recipe import CorpusEntry, Recipe, Rows, Train


@dataclass
class Part:
    """One corpus of a run. shares: weight of each objective it serves in training, summing to one; checked: those that
    validation sees.

    served: by objective which training samples it can serve [n] bool.
    """

    corpus: Corpus
    train: Split
    validation: Split
    shares: dict[str, float]
    checked: tuple[str, ...]
    served: dict[str, np.ndarray]


@dataclass
class Plan:
    """A recipe with everything opened. capacity: of a training micro-batch; validation_capacity: of a validation batch.
    features: what made the rows of each modality; said: lines where that is not known."""

    recipe: Recipe
    parts: list[Part]
    config: MemoBertConfig
    objectives: dict[str, Objective]
    capacity: Capacity
    validation_capacity: Capacity
    features: dict[str, FeatureSet]
    said: list[str]

    def streams(self) -> list[Stream]:
        """A stream per corpus, in `update` mixing per objective and corpus, by weight."""
        return _streams(self.recipe.train, self.parts, self.objectives)

    @property
    def family(self) -> PreTraining:
        """How the recipe's family of models is pre-trained."""
        return FAMILIES[self.recipe.model.family].pre_training

    @property
    def feature_widths(self) -> dict[str, int]:
        """True width of a row by feature modality whose rows the model has ready."""
        widths = {name: width for name in FEATURES if (width := self.config.feature_width(name))}
        return {name: width for name, width in widths.items() if name not in self.config.made}


def make_plan(recipe: Recipe) -> Plan:
    """Open everything a recipe names.

    Raises: `MemofastError` for a missing corpus or split, no sample left, feature widths or extractors that differ, an
        objective that no corpus can serve, a checkpoint of another architecture.
    """
    corpora = [_open(entry) for entry in recipe.corpora]
    _check_names(corpora)
    family = FAMILIES[recipe.model.family].pre_training
    config = family.configured(recipe.model, corpora)
    features, said = _feature_sets(recipe, corpora)
    said += family.notes(recipe.model, config)
    classes = {target: names for corpus in reversed(corpora) for target, names in corpus.classes.items()}
    built = objectives.build(recipe.objective_options, config, classes, _language(recipe, corpora))
    _check_classes(recipe, corpora, built)
    config.heads, config.tables = _further_heads(config, built), _tables(config, built)
    parts = [_part(recipe, entry, corpus, config, built) for entry, corpus in zip(recipe.corpora, corpora, strict=True)]
    train = recipe.train
    _check_objectives(parts, built, config, train)
    if train.groups:
        with torch.device("meta"):  # names alone
            learner = objectives.Learner(family.model(config), built)
            parameter_groups(learner, train)
        said += lines_on_fixed_groups(learner, train)
    capacity = _training_capacity(_streams(train, parts, built), train.samples, train.rows)
    validation_capacity = _capacity(
        [part.validation for part in parts], train.samples, any(one.partners for one in built.values())
    )
    return Plan(recipe, parts, config, built, capacity, validation_capacity, features, said)


def make_model(plan: Plan) -> nn.Module:
    """The model at update 0: random weights from the run's seed, or those of `model.init`.

    Raises: `MemofastError` where the checkpoint's sizes are not the recipe's.
    """
    torch.manual_seed(plan.recipe.train.seed)
    return plan.family.begun(plan.recipe.model, plan.config, [part.train for part in plan.parts])


def _language(recipe: Recipe, corpora: list[Corpus]) -> Callable[[], WordPieces | None]:
    """The tokenizer of the corpora's words, opened where an objective asks for it."""

    @cache
    def language() -> WordPieces | None:
        folder = vocabulary_of(corpora, recipe.model.init)
        return WordPieces(folder) if folder else None

    return language


def _further_heads(config: MemoBertConfig, built: dict[str, Objective]) -> dict[str, dict[str, Any]]:
    """Heads that objectives ask for beside those that every model has."""
    every, asked = config.every_head, {}
    published = every.keys() - config.heads.keys()
    for name, objective in built.items():
        for head, kind in objective.heads.items():
            if asked.setdefault(head, every.get(head, kind)) != kind:
                raise MemofastError(
                    f"objectives.{name} asks for a head {head} of another size than another objective, or than "
                    "model.init; give both the same options"
                )
    return {head: kind.described() for head, kind in asked.items() if head not in published}


def _tables(config: MemoBertConfig, built: dict[str, Objective]) -> dict[str, int]:
    """Input tables that objectives ask for."""
    asked: dict[str, int] = {}
    for name, objective in built.items():
        for table, entries in objective.tables.items():
            if asked.setdefault(table, config.tables.get(table, entries)) != entries:
                raise MemofastError(
                    f"objectives.{name} asks for an input table {table} of {entries} entries, another objective or "
                    f"model.init for one of {asked[table]}; give both the same options"
                )
    return asked


def _open(entry: CorpusEntry) -> Corpus:
    return reading(open_corpus(entry.path, entry.weight), entry.features)


def _feature_sets(recipe: Recipe, corpora: list[Corpus]) -> tuple[dict[str, FeatureSet], list[str]]:
    """What made the rows of each modality, and lines where that is not known. Raises: `MemofastError` where those of
    two corpora, or of one and the checkpoint to start from, were made by different extractors."""
    found, said = joined(corpora)
    if init := recipe.model.init:
        for corpus in corpora:
            check_feature_sets(init, corpus)
            said += unknown_feature_sets(init, corpus)
    return found, said


def _check_names(corpora: list[Corpus]) -> None:
    first: dict[str, Corpus] = {}
    for corpus in corpora:
        if corpus.name in first:
            raise MemofastError(
                f"corpora {first[corpus.name].path} and {corpus.path} are both named {corpus.name!r}; "
                "rename one in its corpus.json"
            )
        first[corpus.name] = corpus


def _check_classes(recipe: Recipe, corpora: list[Corpus], built: dict[str, Objective]) -> None:
    """Raises: `MemofastError` where two corpora that serve an objective mean other things by its targets, or more than
    it can tell."""
    for name, objective in built.items():
        entries = zip(recipe.corpora, corpora, strict=True)
        serving = [corpus for entry, corpus in entries if not entry.objectives or name in entry.objectives]
        for target in objective.needs:
            having = [corpus for corpus in serving if target in corpus.classes]
            for corpus in having[1:]:
                if corpus.classes[target] != having[0].classes[target]:
                    both = [f"{', '.join(one.classes[target])} in corpus {one.path}" for one in (having[0], corpus)]
                    raise MemofastError(
                        f"objectives.{name}: {target} are of the classes {' and '.join(both)}; prepare both alike, or "
                        "leave one out"
                    )
        needed = {target for target in objective.needs if " " not in target}
        for target, (option, most) in objective.classes.items():
            for corpus in (corpus for corpus in serving if needed <= corpus.targets):
                if (count := len(corpus.classes.get(target, ()))) > most:
                    raise MemofastError(
                        f"objectives.{name}: {target} of corpus {corpus.path} is of {count} classes, more than {most}; "
                        f"set objectives.{name}.{option}={count}"
                    )
        objective.name_classes(
            {t: corpus.classes[t] for corpus in serving for t in objective.needs if t in corpus.classes}
        )


def _part(
    recipe: Recipe, entry: CorpusEntry, corpus: Corpus, config: MemoBertConfig, built: dict[str, Objective]
) -> Part:
    train = corpus.split("train", _longest(recipe.train.longest, config))
    validation = corpus.split(recipe.validate_.split, _longest(recipe.validate_.longest, config))
    served = {name: objective.eligible(train.facts) for name, objective in built.items()}
    for name in entry.objectives or ():
        if not served[name].any():
            needs = " and ".join(built[name].needs)
            raise MemofastError(
                f"corpus {corpus.path} is to serve objective {name}, but no training sample has {needs}; take it out "
                "of the corpus's objectives"
            )
    wanted = entry.objectives or list(built)
    shares = {name: recipe.shares[name] for name in wanted if served[name].any()}
    total = sum(shares.values())
    shares = {name: share / total for name, share in shares.items()}
    checked = tuple(name for name in shares if built[name].eligible(validation.facts).any())
    return Part(corpus, train, validation, shares, checked, served)


def _longest(limits: Rows, config: MemoBertConfig) -> tuple[int, int, int]:
    """A sample must fit the position tables too."""
    tables = (config.max_position_embeddings, config.visual_positions, config.speech_positions)
    given = (limits.text, limits.visual, limits.speech)
    return tuple(min(limit or table, table) for limit, table in zip(given, tables, strict=True))


def _streams(train: Train, parts: list[Part], built: dict[str, Objective]) -> list[Stream]:
    found = []
    for part in parts:
        if train.mixing == "sample":
            able = np.any([part.served[name] for name in part.shares], axis=0)
            own = {None: Stream(part.train, part.corpus.weight, None, able)}
        else:
            own = {
                name: Stream(part.train, part.corpus.weight * share, name, part.served[name])
                for name, share in part.shares.items()
            }
        for name, stream in own.items():
            # those that this corpus serves: another one's may find no partner here
            asking = [built[one] for one in ([name] if name else part.shares) if built[one].partners]
            stream.room = _room(stream, asking, train.seed) if asking else None
            found.append(stream)
    return found


def _room(stream: Stream, asking: list[Objective], seed: int) -> Callable[[np.ndarray, int], np.ndarray]:
    """Rows that samples may come to show, if they serve an objective which shows them another's."""
    split, pool = stream.split, stream.chosen

    def room(indices: np.ndarray, epoch: int) -> np.ndarray:
        shown = [objective.places(split, pool, indices, seed, epoch, Purpose.PARTNER) for objective in asking]
        return np.max([objectives.rows_shown(split, places, indices) for places in shown], axis=0)

    return room


def _check_objectives(parts: list[Part], built: dict[str, Objective], config: MemoBertConfig, train: Train) -> None:
    for name, objective in built.items():
        if not any(name in part.shares for part in parts):
            needs = " and ".join(objective.needs)
            if any(part.served[name].any() for part in parts):
                raise MemofastError(f"objectives.{name}: no corpus names it among its objectives; leave it out")
            raise MemofastError(f"objectives.{name}: no corpus can serve it, none has {needs}; leave it out")
        if not any(name in part.checked for part in parts):
            raise MemofastError(
                f"objectives.{name}: no validation sample has {' and '.join(objective.needs)}, so that nobody would "
                "see how it goes; leave it out, or choose another validate.split"
            )
        if moving := [modality for modality in objective.rebuilds if modality in config.made]:
            raise MemofastError(
                f"objectives.{name} gives rows of {moving[0]} back, which a network that is trained along makes, so "
                "that they would move; set its share to 0"
            )
        hidden = [head.modality for head in objective.heads.values() if head.kind in ("rows", "soft_labels")]
        if told := [modality for modality in hidden if modality in config.told_by_neighbours]:
            raise MemofastError(
                f"objectives.{name} hides rows of {told[0]}, whose network makes the rows beside out of them too, so "
                "that those would tell; set its share to 0"
            )
        if objective.couples and train.samples < 2:
            raise MemofastError(f"objectives.{name} compares the samples of a micro-batch; raise train.samples above 1")
        if objective.by_dropout and not (config.hidden_dropout_prob or config.attention_probs_dropout_prob):
            raise MemofastError(
                f"objectives.{name} compares what dropout makes of a sample; set model.hidden_dropout_prob above 0"
            )
    for part in parts:
        if not part.shares:
            raise MemofastError(f"corpus {part.corpus.path} serves none of the recipe's objectives; leave it out")
        for objective in (built[name] for name in part.shares if built[name].partners):
            of_train = [(part.train, Purpose.PARTNER)]  # whether there is anybody to show, told before anything begins
            of_validation = [(part.validation, Purpose.VALIDATION_PARTNER)] if objective.name in part.checked else []
            for split, purpose in of_train + of_validation:
                objective.places(split, np.arange(len(split)), np.arange(0), train.seed, 0, purpose)


def _capacity(splits: list[Split], samples: int, partners: bool) -> Capacity:
    """Room for so many samples of any lengths. partners: they may show rows of one another."""
    longest = np.max([split.lengths.max(0) for split in splits], axis=0)
    most = int(longest.sum()) if partners else max(int(split.lengths.sum(1).max()) for split in splits)
    return Capacity(samples, *(samples * longest).tolist(), longest=rounded_length(most))


_DEVIATIONS, _ROUNDED_TO = 3, 128


def _training_capacity(streams: list[Stream], samples: int, given: Rows) -> Capacity:
    """Room for so many samples of usual lengths, as a captured step computes all of it: what is `given`, else rows of
    each modality that one batch in 250 would exceed, which then ends a few samples early."""
    whole = _capacity([stream.split for stream in streams], samples, any(stream.room for stream in streams))
    lengths = [
        stream.split.lengths if stream.eligible is None else stream.split.lengths[stream.eligible] for stream in streams
    ]
    usual = np.max([samples * own.mean(0) + _DEVIATIONS * samples**0.5 * own.std(0) for own in lengths], axis=0)
    rounded = (np.ceil(usual / _ROUNDED_TO) * _ROUNDED_TO).astype(int) - (1, 0, 0)  # the spare row of a captured step
    possible = np.array((whole.text, whole.visual, whole.speech))
    room = np.minimum(possible, np.maximum(rounded, possible // samples))
    limits = [limit or int(rows) for limit, rows in zip((given.text, given.visual, given.speech), room, strict=True)]
    return Capacity(samples, *limits, longest=whole.longest)
