import itertools
from collections import namedtuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memofast import _C
from memofast.ops import TokenPolicy, token_mask, token_mask_reference
from memofast.ops.philox import Purpose
from memofast.ops.token_mask import BACKENDS, parameters_of

DEVICES = {"reference": "cpu", "cpu": "cpu", "cuda": "cuda"}
FAST = [
    pytest.param(name, marks=pytest.mark.gpu if DEVICES[name] == "cuda" else ())
    for name in BACKENDS
    if name != "reference"
]
KINDS = ["whole_word", "token", "emotion_word", "whole_word_emotion"]
POLICIES = [TokenPolicy(kind, at_least_one=one) for kind in KINDS for one in (None, False, True)] + [
    TokenPolicy(kind, probability=p, emotion_probability=e, at_least_one=True)
    for kind in KINDS
    for p, e in [((0, 1), (0, 1)), ((1, 1), (1, 1)), ((1, 2), (7, 1000)), ((999, 1000), (1, 100))]
]
ODD = [0, 1, 2, 3, 15, 16, 17, 33, 63, 100, 129, 160, 0, 64, 36]
MASK = 103


def batch(lengths, seed=0, spare=0):
    """Sentences of `lengths` rows: [CLS], words of 1 to 3 pieces, [SEP]; a fifth of the pieces have a lexicon class."""
    generator = torch.Generator().manual_seed(seed)
    rows = sum(lengths) + spare
    offsets = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)
    words = torch.full((rows,), -1, dtype=torch.int32)
    for first, n in zip(offsets.tolist(), lengths, strict=False):
        sizes = torch.randint(1, 4, (n,), generator=generator)
        if n > 2:
            words[first + 1 : first + n - 1] = torch.arange(n).repeat_interleave(sizes)[: n - 2].int()
    ids = torch.randint(2000, 30000, (rows,), generator=generator, dtype=torch.int32)
    emotion = torch.randint(-20, 5, (rows,), generator=generator, dtype=torch.int32).clamp(min=-1)
    keys = (torch.arange(len(lengths)) - 3) * 0x9E3779B97F4A7C1
    return dict(token_ids=ids, word_ids=words, offsets=offsets, sample_keys=keys, emotion=emotion)


def copies(samples, words, emotion=(), pieces=2):
    """`samples` sentences of `words` words of `pieces` pieces; the words in `emotion` have a lexicon class at their
    last piece."""
    n = words * pieces + 2
    word = torch.cat((torch.tensor([-1]), torch.arange(words).repeat_interleave(pieces), torch.tensor([-1]))).int()
    classes = torch.full((n,), -1, dtype=torch.int32)
    classes[[1 + w * pieces + pieces - 1 for w in emotion]] = 2
    return dict(
        token_ids=torch.randint(2000, 30000, (samples * n,), dtype=torch.int32),
        word_ids=word.repeat(samples),
        offsets=torch.arange(0, samples * n + 1, n, dtype=torch.int32),
        sample_keys=torch.arange(samples) * 7919 - 5,
        emotion=classes.repeat(samples),
    )


def rng(seed=2**40 + 5, step=17):
    return torch.tensor([seed, step])


def targets_of(data, policy, samples):
    """[samples, n] labelled, [MASK]ed and changed rows."""
    masked = token_mask(rng=rng(), policy=policy, site=5, **data)
    labelled = masked.labels.reshape(samples, -1) >= 0
    return labelled, masked.token_ids.reshape(samples, -1), data["token_ids"].reshape(samples, -1)


def close(rate, expected, trials):
    expected = torch.as_tensor(expected)
    return ((rate - expected).abs() <= 6 * (expected * (1 - expected) / trials).sqrt() + 1e-9).all()


def assert_same(ours, theirs):
    for name, a, b in zip(ours._fields, ours, theirs, strict=True):
        assert a.dtype == b.dtype and torch.equal(a.cpu(), b.cpu()), name


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_equals_reference(backend, policy, poisoned_memory):
    data = {name: tensor.to(DEVICES[backend]) for name, tensor in batch(ODD, spare=5).items()}
    for selected in (None, torch.arange(len(ODD), device=data["offsets"].device) % 3 != 1):
        for capacity in (None, 7, 1024):
            options = dict(site=1 << 20, purpose=Purpose.VALIDATION_MASK, selected=selected, capacity=capacity)
            state = rng().to(data["offsets"].device)
            ours = token_mask(rng=state, policy=policy, backend=backend, **data, **options)
            if capacity is None and backend != "cpu":
                options["capacity"] = policy.capacity(data["token_ids"].numel(), len(ODD))
            assert_same(ours, token_mask_reference(rng=state, policy=policy, **data, **options))


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name == "cpu"])
@settings(max_examples=60, deadline=None)
@given(
    sentences=st.lists(st.lists(st.tuples(st.integers(-1, 12), st.integers(-2, 3)), max_size=40), max_size=8),
    policy=st.sampled_from(POLICIES),
    seed=st.integers(-(2**63), 2**63 - 1),
)
def test_equals_reference_anywhere(backend, sentences, policy, seed):
    """Any word ids, in any order, with gaps and special tokens inside."""
    data = batch([len(sentence) for sentence in sentences])
    pairs = [pair for sentence in sentences for pair in sentence]
    data["word_ids"] = torch.tensor([word for word, _ in pairs], dtype=torch.int32)
    data["emotion"] = torch.tensor([emotion for _, emotion in pairs], dtype=torch.int32)
    ours = token_mask(rng=rng(seed), policy=policy, site=9, backend=backend, **data)
    assert_same(ours, token_mask_reference(rng=rng(seed), policy=policy, site=9, **data))


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_outputs_describe_one_another(policy):
    data = batch(ODD * 20, spare=4)
    masked = token_mask(rng=rng(), policy=policy, site=5, **data)
    target = masked.labels >= 0
    assert torch.equal(target.nonzero().flatten().int(), masked.indices)
    assert masked.count.item() == masked.indices.numel() and masked.overflow.item() == 0
    assert torch.equal(masked.labels[target], data["token_ids"][target])
    assert torch.equal(masked.token_ids[~target], data["token_ids"][~target])
    assert (data["word_ids"][target] >= 0).all()
    if policy.whole_words:
        sample = torch.searchsorted(data["offsets"][1:], torch.arange(target.numel(), dtype=torch.int32), right=True)
        same_word = (data["word_ids"][1:] == data["word_ids"][:-1]) & (sample[1:] == sample[:-1])
        assert torch.equal(target[1:][same_word], target[:-1][same_word])
    if policy.ensures_one:
        has_words = torch.tensor([n > 2 for n in ODD * 20])
        firsts = torch.searchsorted(masked.indices, data["offsets"])
        assert torch.equal(firsts[1:] > firsts[:-1], has_words)


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_a_sample_does_not_depend_on_its_batch(policy):
    data = batch(ODD)
    per_row = ("token_ids", "word_ids", "emotion")
    together = token_mask(rng=rng(), policy=policy, site=5, **data).token_ids.split(ODD)
    pieces = {name: data[name].split(ODD) for name in per_row}
    order = torch.randperm(len(ODD), generator=torch.Generator().manual_seed(1)).tolist()
    lengths = [ODD[i] for i in order]
    shuffled = {name: torch.cat([pieces[name][i] for i in order]) for name in per_row}
    shuffled |= dict(sample_keys=data["sample_keys"][order], offsets=batch(lengths)["offsets"])
    reordered = token_mask(rng=rng(), policy=policy, site=5, **shuffled).token_ids.split(lengths)
    for place, i in enumerate(order):
        single = {name: pieces[name][i] for name in per_row} | dict(sample_keys=data["sample_keys"][i : i + 1])
        single["offsets"] = torch.tensor([0, ODD[i]], dtype=torch.int32)
        alone = token_mask(rng=rng(), policy=policy, site=5, **single).token_ids
        assert torch.equal(together[i], alone) and torch.equal(reordered[place], alone)


def test_whole_words_at_their_rate():
    samples, words = 100_000, 5
    data = copies(samples, words)
    labelled, seen, given = targets_of(data, TokenPolicy(), samples)
    assert close(labelled.float().mean(0)[1:-1], 0.15, samples) and not labelled[:, [0, -1]].any()
    assert close((~labelled.any(1)).float().mean(), 0.85**words, samples)
    firsts, seconds = labelled[:, 1:-1:2], labelled[:, 2:-1:2]
    assert torch.equal(firsts, seconds)
    as_mask = (seen == MASK)[:, 1:-1].reshape(samples, words, 2)
    assert torch.equal(as_mask[..., 0], as_mask[..., 1])  # a word is [MASK] in all its pieces or in none
    count = labelled.sum()
    assert close(as_mask.sum() / count, 0.8, count // 2)
    assert close((labelled & (seen == given)).sum() / count, 0.1, count // 2)
    replaced = seen[labelled & (seen != MASK) & (seen != given)]
    assert replaced.min() >= 999 and replaced.max() <= 30521
    assert close((replaced < 999 + 29523 // 3).float().mean(), 1 / 3, replaced.numel())
    pairs = (labelled & (seen != MASK) & (seen != given))[:, 1:-1].reshape(samples, words, 2).all(-1)
    both = seen[:, 1:-1].reshape(samples, words, 2)[pairs]
    assert (both[:, 0] == both[:, 1]).float().mean() < 0.01  # each piece has a random id of its own


def test_at_least_one_word_is_uniform():
    samples, words = 50_000, 4
    policy = TokenPolicy(probability=(0, 1), at_least_one=True)
    labelled, seen, _ = targets_of(copies(samples, words), policy, samples)
    assert (labelled.sum(1) == 2).all() and (seen[labelled] == MASK).all()
    assert close(labelled.float().mean(0)[1:-1], 1 / words, samples)


def test_tokens_at_their_rate_and_the_first_piece_where_none():
    samples, n = 100_000, 6
    labelled, seen, given = targets_of(copies(samples, n // 2), TokenPolicy("token"), samples)
    none = 0.85**n
    assert close(labelled.float().mean(0)[2:-1], 0.15, samples)
    assert close(labelled.float().mean(0)[1], 0.15 + none, samples)
    others = labelled[:, 2:]
    assert close((seen[:, 2:][others] == MASK).float().mean(), 0.8, others.sum())
    assert close((seen == given)[:, 2:][others].float().mean(), 0.1, others.sum())
    without = TokenPolicy("token", at_least_one=False)
    assert close(targets_of(copies(samples, n // 2), without, samples)[0].float().mean(0)[1:-1], 0.15, samples)


def test_emotion_words_then_tokens_then_the_first_piece():
    samples = 100_000
    labelled, _, _ = targets_of(copies(samples, 3, emotion=(0, 2)), TokenPolicy("emotion_word"), samples)
    rates = labelled.float().mean(0)
    fallback = 0.25
    none = fallback * 0.85**6
    assert close(rates[[2, 6]], 0.5 + fallback * 0.15, samples)
    assert close(rates[[3, 4, 5]], fallback * 0.15, samples)
    assert close(rates[1], fallback * 0.15 + none, samples)


@pytest.mark.parametrize(
    "words, emotion, expected", [(10, (3, 7), 0.0625), (5, (1, 2), 0.0), (6, (), 0.15), (3, (0, 1, 2), 0.5)]
)
def test_whole_word_emotion_shares(words, emotion, expected):
    samples = 100_000
    policy = TokenPolicy("whole_word_emotion")
    labelled, seen, _ = targets_of(copies(samples, words, emotion), policy, samples)
    rates = labelled.float().mean(0)[1:-1].reshape(words, 2)
    plain = [w for w in range(words) if w not in emotion]
    assert close(rates[list(emotion)], 0.5, samples) and close(rates[plain], expected, samples)
    assert (seen[labelled] == MASK).all()


def test_unselected_samples_are_left_alone():
    data = batch([40] * 50)
    selected = torch.arange(50) % 2 == 0
    everything = token_mask(rng=rng(), policy=TokenPolicy(), site=1, **data)
    some = token_mask(rng=rng(), policy=TokenPolicy(), site=1, selected=selected, **data)
    keep = selected.repeat_interleave(40)
    assert torch.equal(some.labels, torch.where(keep, everything.labels, -1))
    assert torch.equal(some.token_ids, torch.where(keep, everything.token_ids, data["token_ids"]))


def test_capacity_and_overflow():
    data = batch([36] * 100)
    exact = token_mask(rng=rng(), policy=TokenPolicy(), site=1, **data)
    masked = token_mask(rng=rng(), policy=TokenPolicy(), site=1, capacity=128, **data)
    assert exact.count.item() > 128 and masked.count.item() == exact.count.item() and masked.overflow.item() == 1
    assert torch.equal(masked.indices, exact.indices[:128])
    assert exact.count.item() < TokenPolicy().capacity(3600, 100) == 896


def test_words_longer_than_expected_are_listed_all_the_same():
    """One word of 400 pieces is all targets or none: far more than the expected 15 %."""
    data = copies(3, 1, pieces=400)
    policy = TokenPolicy(at_least_one=True)
    masked = token_mask(rng=rng(), policy=policy, site=1, **data)
    assert (
        policy.capacity(1206, 3) < masked.count.item() == masked.indices.numel() == 1200 and masked.overflow.item() == 0
    )


def test_empty_batch():
    masked = token_mask(rng=rng(), policy=TokenPolicy("token"), site=1, **batch([]))
    assert masked.indices.shape == masked.labels.shape == (0,) and masked.count.item() == 0


@pytest.mark.parametrize("backend", [name for name in BACKENDS if DEVICES[name] == "cpu"])
def test_registration(backend):
    data = batch([36, 0, 5])
    for selected, emotion in [(None, None), (torch.tensor([True, False, True]), data["emotion"])]:
        policy = TokenPolicy("whole_word" if emotion is None else "emotion_word", at_least_one=True)
        arguments = (
            data["token_ids"], data["word_ids"], data["offsets"], data["sample_keys"], rng(), emotion, selected,
            128, [*parameters_of(policy, 3, 7)], backend,
        )  # fmt: skip
        torch.library.opcheck(torch.ops.memofast.token_mask.default, arguments)


def test_kernels_read_parameters_by_their_names():
    data = batch(ODD)
    given = parameters_of(TokenPolicy("whole_word_emotion", emotion_probability=(2, 5), at_least_one=True), 3, 5)
    turned = namedtuple("Turned", reversed(given._fields))(**given._asdict())
    written = torch.zeros(2, 2, sum(ODD), dtype=torch.int32)
    for results, parameters in zip(written, (given, turned), strict=True):
        ids = data["token_ids"], data["word_ids"], data["offsets"], data["sample_keys"], rng(), data["emotion"]
        assert _C.token_mask(*ids, None, *results, parameters) > 0
    assert torch.equal(*written)
    less = namedtuple("Less", given._fields[:-3])(*given[:-3])
    with pytest.raises(AttributeError, match="purpose"):
        _C.token_mask(*ids, None, *written[0], less)


@pytest.mark.parametrize("place", range(7))
def test_the_raw_operator_refuses_what_its_kernel_cannot_read(place):
    data = batch(ODD)
    operands = [data["token_ids"], data["word_ids"], data["offsets"], data["sample_keys"], rng(), data["emotion"]]
    operands.append(torch.ones(len(ODD), dtype=torch.bool))
    operands[place] = operands[place][:-1]
    parameters = [*parameters_of(TokenPolicy("emotion_word"), 3, 5)]
    with pytest.raises(ValueError, match=r"token_mask: \w+ must have shape \[\d+\], got"):
        torch.ops.memofast.token_mask(*operands, 128, parameters, "cpu")


@pytest.mark.gpu
def test_a_captured_mask_follows_the_update():
    data, state = {name: tensor.cuda() for name, tensor in batch(ODD).items()}, rng().cuda()
    options = dict(policy=TokenPolicy("emotion_word"), site=7, capacity=1024, backend="cuda")
    before = token_mask(rng=state, **data, **options)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = token_mask(rng=state, **data, **options)
    state += 1
    graph.replay()
    assert_same(captured, token_mask(rng=state, **data, **options))
    assert not torch.equal(captured.labels, before.labels)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_breaks(dynamic):
    def run(token_ids, word_ids, offsets, keys, state):
        return token_mask(token_ids, word_ids, offsets, keys, state, TokenPolicy(), site=3)

    compiled = torch.compile(run, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for lengths in ([36, 5, 0], [64, 20, 31, 7]):
        data = batch(lengths)
        arguments = (data["token_ids"], data["word_ids"], data["offsets"], data["sample_keys"], rng())
        masked, exact = compiled(*arguments), run(*arguments)
        assert torch.equal(masked.token_ids, exact.token_ids) and torch.equal(masked.labels, exact.labels)
        assert torch.equal(masked.indices[: exact.count.item()], exact.indices) and masked.indices.numel() % 128 == 0


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(token_ids=torch.zeros(20)), "token_ids must be torch.int32, got torch.float32"),
        (dict(word_ids=torch.zeros(3, dtype=torch.int32)), r"word_ids must have shape \[20\], got \[3\]"),
        (dict(word_ids=torch.zeros(40, dtype=torch.int32)[::2]), "word_ids must be contiguous"),
        (dict(emotion=None), "policy kind 'emotion_word' needs emotion"),
        (dict(emotion=torch.zeros(20)), "emotion must be torch.int32"),
        (
            dict(offsets=torch.tensor([0, 21], dtype=torch.int32)),
            "offsets must start at 0, never decrease, and end within the rows given",
        ),
        (dict(offsets=torch.tensor([1, 20], dtype=torch.int32)), "offsets must start at 0"),
        (dict(backend="cuda"), "backend 'cuda' needs cuda tensors, got cpu"),
        (dict(backend="fast"), "backend 'fast' is not one of auto, reference"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(ValueError, match=message):
        token_mask(rng=rng(), policy=TokenPolicy("emotion_word"), site=1, **(batch([20]) | change))


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(kind="word"), "kind must be one of whole_word, token, emotion_word, whole_word_emotion, got 'word'"),
        (dict(probability=0.15), r"probability must be \(numerator, denominator\)"),
        (dict(emotion_probability=(1, 2000)), "emotion_probability must be"),
        (dict(random_low=5, random_high=5), "random_low must be less than random_high"),
    ],
)
def test_policy_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        TokenPolicy(**options)
