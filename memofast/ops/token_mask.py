"""token_mask: masked word pieces and their labels, by token, whole-word and emotion-word policy."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from memofast import _C
from memofast.ops import backends, faults, library, row_lists
from memofast.ops.philox import Purpose, below, draw, rows_of, stream_key

KINDS = {"whole_word": 0, "token": 1, "emotion_word": 2, "whole_word_emotion": 3}
BACKENDS = ("reference", "cpu", "cuda")


@dataclass(frozen=True)
class TokenPolicy:
    """Which word pieces of a sentence become targets, and what the model sees in their place. Special tokens never do.

    kind: `token`: each piece with `probability`; `whole_word`: each word, with all its pieces;
        `emotion_word`: each piece with a lexicon class with `emotion_probability`; a sentence where this chooses none
        is treated as by `token`;
        `whole_word_emotion`: words with a lexicon class with `emotion_probability`, others so that `probability` of all
        L words are expected: max(probability L - emotion_probability E, 0) / (L - E).
        Targets become [MASK] (80 %), a random piece (10 %, another one for each piece) or stay (10 %); always [MASK] in
        `whole_word_emotion`.
    probability, emotion_probability: (numerator, denominator), denominators at most 1000.
    at_least_one: a sentence without a target gets one, as [MASK]: its first piece, or, of whole words, a uniformly
    random word.
        None: as the original in effect had it, on for `token` and `emotion_word`, off for whole words.
    mask_id: id of [MASK]. random_low, random_high: random pieces are uniform in [random_low, random_high).

    Source: MEmoBERT's mlm, mlm_wwm, melm and melm_wwm (after eMLM, ACL 2021); 80/10/10 is BERT's.
    """

    kind: str = "whole_word"
    probability: tuple[int, int] = (3, 20)
    emotion_probability: tuple[int, int] = (1, 2)
    at_least_one: bool | None = None
    mask_id: int = 103
    random_low: int = 999
    random_high: int = 30522

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"TokenPolicy: kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        row_lists.check_ratio("TokenPolicy", "probability", self.probability)
        row_lists.check_ratio("TokenPolicy", "emotion_probability", self.emotion_probability)
        low, high = self.random_low, self.random_high
        if type(low) is not int or type(high) is not int or not 0 <= low < high < 2**31:
            raise ValueError(f"TokenPolicy: random_low must be less than random_high, got {low!r} and {high!r}")
        if type(self.mask_id) is not int or not 0 <= self.mask_id < 2**31:
            raise ValueError(f"TokenPolicy: mask_id must be a token's id, got {self.mask_id!r}")

    @property
    def whole_words(self) -> bool:
        return self.kind in ("whole_word", "whole_word_emotion")

    @property
    def needs_emotion(self) -> bool:
        return self.kind in ("emotion_word", "whole_word_emotion")

    @property
    def ensures_one(self) -> bool:
        return not self.whole_words if self.at_least_one is None else self.at_least_one

    def capacity(self, rows: int, samples: int) -> int:
        """Entries that the targets of `rows` packed rows need, up to 8 sigma; words count as four pieces in the
        variance."""
        share = self.probability[0] / self.probability[1]
        if self.needs_emotion:
            share = max(share, self.emotion_probability[0] / self.emotion_probability[1])
        extra = (4 if self.whole_words else 1) * samples if self.ensures_one else 0
        return row_lists.capacity(rows, rows * share + extra, 4 * rows * share * (1 - share))


class TokenParameters(NamedTuple):
    """A policy and which use of it, in integers, as the raw operator takes them; kernels read them by these names."""

    kind: int
    numerator: int
    denominator: int
    emotion_numerator: int
    emotion_denominator: int
    at_least_one: int
    mask_id: int
    random_low: int
    random_high: int
    purpose: int
    site: int


class MaskedTokens(NamedTuple):
    """Masked word pieces.

    token_ids [rows] int32: what the model reads. labels [rows] int32: the original id at targets, -1 elsewhere.
    indices [entries] int32: target rows, ascending; unused entries are 0.
    count [1] int32: number of targets. overflow [1] int32: 1 where they are more than `indices` holds.
    """

    token_ids: Tensor
    labels: Tensor
    indices: Tensor
    count: Tensor
    overflow: Tensor


def token_mask(
    token_ids: Tensor,
    word_ids: Tensor,
    offsets: Tensor,
    sample_keys: Tensor,
    rng: Tensor,
    policy: TokenPolicy,
    *,
    site: int,
    purpose: Purpose = Purpose.MASK,
    emotion: Tensor | None = None,
    selected: Tensor | None = None,
    capacity: int | None = None,
    backend: str = "auto",
) -> MaskedTokens:
    """Choose and corrupt word pieces; a sample's result depends on (rng, purpose, site, its key, its own rows) alone.

    Args:
        token_ids: [rows] int32. word_ids: [rows] int32, index of the word in its sentence, -1 at special tokens.
        offsets: [B+1] int32, first row of each sample; rows past `offsets[-1]` are left alone.
        sample_keys: [B] int64. rng: [2] int64, run seed and update number.
        site: which use this is, so that uses do not share numbers.
        emotion: [rows] int32, lexicon class of the piece, -1 none; a word has one where any of its pieces has. The
        emotion kinds need it.
        selected: [B] bool, samples to mask; None means all.
        capacity: entries of `indices`; None: exactly the targets on a CPU in eager mode, `policy.capacity` otherwise.
    Returns: `MaskedTokens`. Bit-identical on all backends.
    Raises: `ValueError` for a wrong type, shape, device or backend, or a missing `emotion`.
    """
    if not isinstance(policy, TokenPolicy):
        raise ValueError(f"token_mask: policy must be a TokenPolicy, got {type(policy).__name__}")
    if not policy.needs_emotion:
        emotion = None
    chosen = backend_for(token_ids, word_ids, offsets, sample_keys, rng, policy, emotion, selected, backend)
    parameters = parameters_of(policy, purpose, site)
    operands = token_ids, word_ids, offsets, sample_keys, rng, emotion, selected
    if capacity is None:
        if offsets.is_cpu and type(offsets) is Tensor and library.is_eager():
            return MaskedTokens(*_run(*operands, None, parameters, chosen))
        capacity = policy.capacity(token_ids.numel(), sample_keys.numel())
    row_lists.check_targets("token_mask", token_ids.numel(), capacity)
    return MaskedTokens(*_raw(*operands, capacity, [*parameters], chosen))


def backend_for(
    token_ids: Tensor,
    word_ids: Tensor,
    offsets: Tensor,
    sample_keys: Tensor,
    rng: Tensor,
    policy: TokenPolicy,
    emotion: Tensor | None,
    selected: Tensor | None,
    backend: str = "auto",
) -> str:
    """The backend that `token_mask` takes for these operands, which are checked."""
    if policy.needs_emotion and emotion is None:
        raise ValueError(f"token_mask: policy kind {policy.kind!r} needs emotion, the lexicon class of each piece")
    if not row_lists.batch_fits(offsets, sample_keys, rng, selected):
        row_lists.check_batch("token_mask", offsets, sample_keys, rng, selected)
    library.require_tensor("token_mask", "token_ids", token_ids)
    library.require_tensor("token_mask", "word_ids", word_ids)
    rows, device = token_ids.numel(), offsets.device
    for name, tensor in (("token_ids", token_ids), ("word_ids", word_ids), ("emotion", emotion)):
        if tensor is not None:
            library.check_tensor("token_mask", name, tensor, shape=(rows,), dtype=torch.int32, device=device)
    automatic = backends.automatic("token_mask", offsets)
    chosen = library.resolve("token_mask", backend, automatic, BACKENDS)
    if chosen != automatic:
        library.require_device("token_mask", chosen, offsets)
    return chosen


def token_mask_reference(
    token_ids: Tensor,
    word_ids: Tensor,
    offsets: Tensor,
    sample_keys: Tensor,
    rng: Tensor,
    policy: TokenPolicy,
    *,
    site: int,
    purpose: Purpose = Purpose.MASK,
    emotion: Tensor | None = None,
    selected: Tensor | None = None,
    capacity: int | None = None,
) -> MaskedTokens:
    """The specification of `token_mask`, in plain PyTorch.

    Words are draws of (rng, purpose, site, sample key) at (position, block). A unit u (a piece: its row in the sample;
    a word: its word id) is decided by word u % 4 at (u // 4, 0): a target where it is below the unit's threshold,
    [MASK] where it is below 8/10 and a random piece where below 9/10 of it. The random id of row j comes from word j %
    4 at (j // 4, 1). `emotion_word` decides row j anew by word j % 4 at (j // 4, 2) where it chose none. The word to
    mask at least is `below(word 0 at (0, 3), L)`.
    """
    rows, device = token_ids.numel(), offsets.device
    sample, position = rows_of(offsets, rows)
    keys = torch.cat(
        (sample_keys, sample_keys.new_zeros(1))
    )  # rows past the end belong to one more sample, which is off
    on = torch.ones_like(keys, dtype=torch.bool) if selected is None else torch.cat((selected, selected.new_zeros(1)))
    key = stream_key(rng, purpose, site)
    word_ids = word_ids.to(torch.int64)
    inside = (word_ids >= 0) & on[sample] & (sample < sample_keys.numel())
    new_word = inside & ((position == 0) | (word_ids != word_ids.roll(1)))
    word = new_word.cumsum(0) * inside  # number of the row's word among all words, from 1; 0: none

    def words(unit: Tensor, block: int) -> Tensor:
        unit = unit.clamp(min=0)
        return draw(key, keys[sample], unit // 4, torch.full_like(unit, block)).gather(1, (unit % 4)[:, None])[:, 0]

    def per_sample(flags: Tensor) -> Tensor:
        return torch.zeros_like(keys).scatter_add(0, sample, flags.to(torch.int64))

    unit = word_ids if policy.whole_words else position
    probability = row_lists.threshold(policy.probability)
    limit = torch.full_like(unit, probability)
    if policy.needs_emotion:
        emotional = inside & (emotion >= 0)
        if policy.whole_words:
            emotional = (
                torch.zeros(rows + 1, dtype=torch.int64, device=device).scatter_add(0, word, emotional.to(torch.int64))[
                    word
                ]
                > 0
            )
            limit = _other_words(policy, per_sample(new_word), per_sample(new_word & emotional))[sample]
        else:
            limit = torch.zeros_like(unit)
        limit = torch.where(emotional, row_lists.threshold(policy.emotion_probability), limit)
    decision = words(unit, 0)
    chosen = inside & (decision < limit)
    if policy.kind == "emotion_word":
        none = (per_sample(chosen) == 0)[sample]
        decision = torch.where(none, words(unit, 2), decision)
        limit = torch.where(none, probability, limit)
        chosen = inside & (decision < limit)
    if policy.ensures_one:
        none = inside & (per_sample(chosen) == 0)[sample]
        ordinal = word - 1 - (per_sample(new_word).cumsum(0) - per_sample(new_word))[sample]
        if policy.whole_words:
            zero = torch.zeros_like(keys)
            forced = none & (ordinal == below(draw(key, keys, zero, zero + 3)[:, 0], per_sample(new_word))[sample])
        else:
            forced = none & (per_sample(inside).cumsum(0) - per_sample(inside))[sample].eq(inside.cumsum(0) - 1)
        chosen |= forced
        decision = torch.where(forced, 0, decision)
        limit = torch.where(forced, 10, limit)
    keep_mask = torch.ones_like(chosen) if policy.kind == "whole_word_emotion" else decision < limit * 8 // 10
    random_ids = policy.random_low + below(words(position, 1), policy.random_high - policy.random_low)
    seen = torch.where(keep_mask, policy.mask_id, torch.where(decision < limit * 9 // 10, random_ids, token_ids))
    seen = torch.where(chosen, seen, token_ids).to(torch.int32)
    return MaskedTokens(seen, torch.where(chosen, token_ids, -1), *row_lists.compact(chosen, capacity))


def _other_words(policy: TokenPolicy, words: Tensor, emotional: Tensor) -> Tensor:
    """Threshold of words without a lexicon class in sentences of so many words, so many of them emotional."""
    (n, d), (en, ed) = policy.probability, policy.emotion_probability
    top = (n * ed * words - en * d * emotional).clamp(min=0)
    bottom = (d * ed * (words - emotional)).clamp(min=1)
    return (torch.minimum(top, bottom) << 32) // bottom


def parameters_of(policy: TokenPolicy, purpose: int, site: int) -> TokenParameters:
    """Policy, purpose and site as the raw operator takes them."""
    return TokenParameters(
        KINDS[policy.kind], *policy.probability, *policy.emotion_probability, policy.ensures_one,
        policy.mask_id, policy.random_low, policy.random_high, purpose, site,
    )  # fmt: skip


def _implementation(*arguments):
    *operands, parameters, backend = arguments
    return _run(*operands, row_lists.parameters("token_mask", TokenParameters, parameters), backend)


def _check(token_ids, word_ids, offsets, sample_keys, rng, emotion, selected, capacity, parameters, backend) -> None:
    policy = _policy_of(row_lists.parameters("token_mask", TokenParameters, parameters))
    backend_for(token_ids, word_ids, offsets, sample_keys, rng, policy, emotion, selected)


def _policy_of(p: TokenParameters) -> TokenPolicy:
    kind, probability = row_lists.kind_of("token_mask", KINDS, p.kind), (p.numerator, p.denominator)
    emotion_probability, at_least_one = (p.emotion_numerator, p.emotion_denominator), bool(p.at_least_one)
    return TokenPolicy(kind, probability, emotion_probability, at_least_one, p.mask_id, p.random_low, p.random_high)


def _run(token_ids, word_ids, offsets, sample_keys, rng, emotion, selected, capacity, p, backend):
    row_lists.check_targets("token_mask", token_ids.numel(), capacity)
    if backend == "reference":
        policy = _policy_of(p)
        row_lists.check_use("token_mask", offsets, token_ids.numel(), p.purpose, p.site)
        options = dict(site=p.site, purpose=p.purpose, emotion=emotion, selected=selected, capacity=capacity)
        return tuple(token_mask_reference(token_ids, word_ids, offsets, sample_keys, rng, policy, **options))
    tensors = token_ids, word_ids, offsets, sample_keys, rng, emotion, selected
    seen, labels = torch.empty_like(token_ids), torch.empty_like(token_ids)
    if backend == "cuda":
        *listed, workspace = row_lists.list_on_cuda(sample_keys, capacity)
        status = _C.token_mask_on_cuda(*tensors, seen, labels, p, *listed, workspace, library.stream(offsets))
        faults.check_status("token_mask", status, tensors)
        return seen, labels, *listed
    found = _C.token_mask(*tensors, seen, labels, p)
    if found < 0:
        faults.check_status("token_mask", found, tensors)
    return seen, labels, *row_lists.listed(labels, found, False, capacity)


def _fake(token_ids, word_ids, offsets, sample_keys, rng, emotion, selected, capacity, parameters, backend):
    new, rows = offsets.new_empty, token_ids.numel()
    return new(rows), new(rows), new(capacity), new(1), new(1)


_raw = library.define(
    "token_mask(Tensor token_ids, Tensor word_ids, Tensor offsets, Tensor sample_keys, Tensor rng, Tensor? emotion, "
    "Tensor? selected, "
    "int capacity, int[] parameters, str backend) -> (Tensor seen, Tensor labels, Tensor indices, Tensor count, "
    "Tensor overflow)",
    _implementation,
    _fake,
    BACKENDS,
    _check,
    integer=True,
)
