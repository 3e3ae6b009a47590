"""Near-duplicate sentences: the rule, the index against all pairs, real dialogues."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memofast.prepare.corpora.text_tables import read_text_corpus
from memofast.prepare.sources.near_duplicates import ALIKE, SHORT, Match, find_near_duplicates, similarity, words_of

few_words = st.lists(
    st.sampled_from(["i", "you", "do", "not", "know", "what", "are", "they", "saying", "there"]), max_size=9
).map(" ".join)


def test_words_are_what_is_compared():
    assert words_of("You\x92re a GENIUS!") == words_of("You\u2019re a genius") == ("youre", "a", "genius")
    assert words_of("ﬁne—really?!") == ("fine", "really")
    assert words_of("?! ...") == ()


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("What?", "what!!", True),
        ("What now?", "What then?", False),
        ("I know.", "I know, I know, I know, I know.", False),
        ("Oh my God, he's lost it.", "Oh my God, he\u2019s lost it. He's lost it.", True),
        ("I have never been to Rome in my whole life", "I have never been to Rome in my whole life before", True),
        ("I have never been to Rome in my life", "She was always late for dinner at my house", False),
    ],
)
def test_the_rule(one, other, alike):
    found = find_near_duplicates([one], [other])
    assert (0 in found.first) == (0 in found.second) == alike
    assert (similarity(words_of(one), words_of(other)) >= ALIKE) == alike


def test_the_most_similar_and_first_match_is_named():
    said = "where did you put all of my keys"
    found = find_near_duplicates([said], [said + " then", "other words entirely in here", said.upper(), said])
    assert found.first == {0: Match(2, 1.0)}
    assert sorted(found.second) == [0, 2, 3]


def test_nothing_is_like_no_words():
    assert find_near_duplicates(["...", ""], ["...", "?"]).first == {}


@given(st.lists(few_words, max_size=12), st.lists(few_words, max_size=12), st.sampled_from([0.3, 0.5, 0.6, 0.8, 1.0]))
def test_the_index_finds_what_comparing_all_pairs_finds(first, second, alike):
    found = find_near_duplicates(first, second, alike)
    expected = {}
    for i, one in enumerate(first):
        values = [similarity(words_of(one), words_of(other)) if words_of(other) else 0 for other in second]
        if words_of(one) and values and max(values) >= alike:
            expected[i] = Match(values.index(max(values)), max(values))
    assert found.first == expected
    swapped = find_near_duplicates(second, first, alike)
    assert found.second == swapped.first and found.first == swapped.second


@given(st.text(string.printable, max_size=60))
def test_a_sentence_is_like_itself(sentence):
    found = find_near_duplicates([sentence], [sentence])
    assert bool(found.first) == bool(words_of(sentence))


@pytest.mark.real
def test_real_dialogues_that_repeat_each_other(real_data):
    """EmotionLines dev is MELD dev; EmoryNLP has the same films in part."""

    def texts(kind, file):
        return [sentence.text for sentence in read_text_corpus(kind, real_data / "text" / file)]

    def longer(sentences, found):
        return sum(len(words_of(sentences[place])) >= SHORT for place in found)

    dev = texts("meld", "meld/dev_sent_emo.csv")
    same = find_near_duplicates(texts("emotionlines", "emotionlines/friends_dev.json"), dev)
    assert len(same.second) == len(dev) == 1109
    emory = texts("emorynlp", "emorynlp/emorynlp_train_final.csv")
    found = find_near_duplicates(emory, dev)
    assert longer(dev, found.second) == 66 and longer(emory, found.first) == 80
