"""Corpora: what they hold, how any file becomes ids, and what is refused."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, knobs_of

from ablate.knobs import KnobError
from ablate.tasks.language_model.config import KJV, PTB, Synthetic, TextFiles
from ablate.tasks.language_model.data import Corpus, Windows, check_fits, load_corpus
from ablate.tasks.language_model.data import ptb as ptb_module
from ablate.tasks.language_model.data.encode import cached
from ablate.tasks.language_model.data.kjv import tokenize
from ablate.tasks.language_model.data.synthetic import entropy_rate, weights
from ablate.tasks.language_model.data.text import read_words
from ablate.tasks.language_model.training import describe


def text(path, **more) -> TextFiles:
    return TextFiles(
        **{"name": "text", "path": str(path), "valid": None, "test": None, "vocab_size": 100, "lower": False, **more}
    )


def words_of(content: bytes, tmp_path: Path, **more) -> list[str]:
    file = tmp_path / "t.txt"
    file.write_bytes(content)
    return [word for words in read_words(file, "data.path=t.txt", **more) for word in words]


def source(words, branching, order, tokens, eval_tokens, seed):
    return Synthetic(
        name="synthetic", vocab_size=words, branching=branching, order=order, tokens=tokens, eval_tokens=eval_tokens,
        seed=seed,
    )  # fmt: skip


def test_kjv_is_the_whole_bible_split_over_all_its_books():
    corpus = load_corpus(KJV(name="kjv", vocab_size=10_000))
    assert corpus.counts() == {"train": 853_362, "valid": 45_054, "test": 46_120}
    assert len(corpus.words) == 10_001
    assert corpus.digest == "e34dcffa61c82b1c03eb078a07ff409b12f31d69e97388826daca1816dc1ad7b"
    ends = corpus.words.index("<eos>")
    assert sum((getattr(corpus, split) == ends).sum() for split in ("train", "valid", "test")) == 31_102
    assert corpus.words[:10] == ("in", "the", "beginning", "god", "created", "heaven", "and", "earth", ".", "<eos>")
    # Representative: words of the Old and of the New Testament are in each split.
    for split in ("valid", "test"):
        held = {corpus.words[i] for i in np.unique(getattr(corpus, split))}
        assert {"moses", "david", "jesus", "lord", "paul"} <= held


def test_kjv_tokens_are_lower_case_words_and_single_punctuation_marks():
    verse = "Am I my brother’s keeper? [was] at Beth-el; the sons’ Cæsar’s (LORD)."
    assert tokenize(verse) == [
        "am", "i", "my", "brother’s", "keeper", "?", "was", "at", "beth-el", ";", "the", "sons’", "cæsar’s",
        "(", "lord", ")", ".", "<eos>",
    ]  # fmt: skip


@pytest.mark.skipif("ABLATE_DATA_DIR" not in os.environ, reason="needs PTB: set ABLATE_DATA_DIR to a folder with ptb/")
def test_ptb_has_its_known_counts_and_the_books_slice_of_418_words():
    corpus = load_corpus(PTB(name="ptb"))
    assert corpus.counts() == {"train": 929_589, "valid": 73_760, "test": 82_430}
    assert len(corpus.words) == 10_000
    assert len(corpus.slice(1000, "slice").words) == 418
    assert len(corpus.slice(1000, "full").words) == 10_000
    assert Windows(corpus.train, 20, 35).per_epoch == 1327
    assert Windows(corpus.valid, 10, 35).per_epoch == 210
    assert Windows(corpus.test, 10, 35).per_epoch == 235


def test_ptb_without_network_or_cache_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("ABLATE_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("ABLATE_DATA_DIR", raising=False)
    monkeypatch.setattr(ptb_module, "MIRRORS", ("http://127.0.0.1:9/",))
    with pytest.raises(KnobError, match=r"data=ptb: ptb.train.txt could not be fetched.*ABLATE_DATA_DIR.*data=kjv"):
        load_corpus(PTB(name="ptb"))


def test_ptb_from_the_wrong_files_is_refused(monkeypatch, tmp_path):
    (tmp_path / "ptb").mkdir()
    (tmp_path / "ptb" / "ptb.train.txt").write_text("not the treebank\n")
    monkeypatch.setenv("ABLATE_DATA_DIR", str(tmp_path))
    with pytest.raises(KnobError, match=r"not the known file \(its SHA-256 differs\)"):
        load_corpus(PTB(name="ptb"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a b\nc\n", ["a", "b", "<eos>", "c", "<eos>"]),
        (b"no newline", ["no", "newline", "<eos>"]),
        (b"\xef\xbb\xbfbom\n", ["bom", "<eos>"]),
        (b"cr lf\r\nx\r\n", ["cr", "lf", "<eos>", "x", "<eos>"]),
        ("one\u2028line\u0085only\n".encode(), ["one", "line", "only", "<eos>"]),
        (b"\n\n", ["<eos>", "<eos>"]),
        ("日本 語\n".encode(), ["日本", "語", "<eos>"]),
    ],
)
def test_only_a_line_feed_ends_a_line(content, words, tmp_path):
    assert words_of(content, tmp_path) == words


def test_a_text_reads_the_same_in_pieces_of_any_size(tmp_path, monkeypatch):
    content = ("wörter über wörter 日本 " * 40 + "\r\n").encode() * 3
    whole = words_of(content, tmp_path)
    for size in (1, 2, 3, 7, 64):
        monkeypatch.setattr("ablate.tasks.language_model.data.text._PIECE_BYTES", size)
        assert words_of(content, tmp_path) == whole


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"ab\0c", "byte 2 is NUL; this is not a text file"),
        (b"caf\xe9 au lait", "byte 3 is not UTF-8"),
        (b"cut off \xe6\x97", "byte 8 is not UTF-8"),
    ],
)
def test_a_file_that_is_no_text_is_refused_with_the_place(content, message, tmp_path):
    file = tmp_path / "bad.txt"
    file.write_bytes(content)
    with pytest.raises(KnobError, match=message):
        load_corpus(text(file))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(KnobError, match=r"nope.txt: No such file"):
        load_corpus(text(tmp_path / "nope.txt"))
    with pytest.raises(KnobError, match="Is a directory"):
        load_corpus(text(tmp_path))


def test_one_file_is_split_in_order_and_rare_words_become_unk(tmp_path):
    file = tmp_path / "t.txt"
    file.write_text("the cat sat\n" * 90 + "the dog sat\n" * 10)
    corpus = load_corpus(text(file))
    assert corpus.counts() == {"train": 360, "valid": 20, "test": 20}
    assert corpus.words == ("the", "cat", "sat", "<eos>", "<unk>")
    assert [corpus.words[i] for i in corpus.test[:4]] == ["the", "<unk>", "sat", "<eos>"]
    assert load_corpus(text(file, vocab_size=2)).words == ("the", "cat", "<unk>")


def test_three_files_are_train_valid_and_test(tmp_path):
    for split, words in {"a": "x y\n", "b": "Y\n", "c": "z x\n"}.items():
        (tmp_path / split).write_text(words)
    corpus = load_corpus(text(tmp_path / "a", valid=str(tmp_path / "b"), test=str(tmp_path / "c"), lower=True))
    assert [[corpus.words[i] for i in getattr(corpus, s)] for s in ("train", "valid", "test")] == [
        ["x", "y", "<eos>"], ["y", "<eos>"], ["<unk>", "x", "<eos>"],
    ]  # fmt: skip


def test_a_word_without_end_is_refused(tmp_path):
    with pytest.raises(KnobError, match="a word of over 1048576 characters"):
        words_of(b"x" * (3 << 20), tmp_path)


def test_the_cache_gives_back_what_was_built_and_survives_damage(tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATE_CACHE_DIR", str(tmp_path))
    built = []

    def build() -> Corpus:
        built.append(1)
        ids = np.arange(5, dtype=np.int32)
        return Corpus("x", ("a", "b", "c", "d", "e"), ids, ids[:2], ids[:3], floor_nll=1.5)

    first = cached("key", build)
    again = cached("key", build)
    assert len(built) == 1
    assert again.digest == first.digest
    assert again.floor_nll == 1.5
    damaged = next(tmp_path.rglob("train.npy"))
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    assert cached("key", build).digest == first.digest
    assert len(built) == 2


def test_the_markov_source_knows_its_own_perplexity():
    corpus = load_corpus(source(50, 5, 1, 60_000, 20_000, seed=3))
    # An outsider's estimate: count which word follows which in train, and score test with it.
    counts = np.full((50, 50), 1e-9)
    np.add.at(counts, (corpus.train[:-1], corpus.train[1:]), 1)
    p = counts / counts.sum(axis=1, keepdims=True)
    estimate = -np.log(p[corpus.test[:-1], corpus.test[1:]]).mean()
    assert corpus.floor_nll == pytest.approx(estimate, abs=0.01)
    assert corpus.floor_nll == pytest.approx(entropy_rate(5), abs=0.02)
    assert entropy_rate(1) == 0
    assert weights(5).sum() == pytest.approx(1)


def test_a_source_of_higher_order_is_not_predicted_by_one_word():
    corpus = load_corpus(source(50, 3, 2, 60_000, 5_000, seed=3))
    assert len(set(zip(corpus.train[:-1].tolist(), corpus.train[1:].tolist(), strict=True))) > 50 * 3 * 5
    followers: dict[tuple[int, int], set[int]] = {}
    ids = corpus.train.tolist()
    for a, b, c in zip(ids, ids[1:], ids[2:], strict=False):
        followers.setdefault((a, b), set()).add(c)
    assert max(map(len, followers.values())) == 3


def test_more_successors_than_words_are_refused():
    with pytest.raises(KnobError, match=r"data\.branching=9 data.vocab_size=5"):
        load_corpus(source(5, 9, 1, 1000, 1000, 0))


def test_windows_are_the_books_batches_and_wrap_around():
    ids = np.arange(23, dtype=np.int32)  # 22 inputs, 3 readers, jump 7
    windows = Windows(ids, batch=3, window=2)
    assert windows.per_epoch == 3
    inputs_KTB, targets_KTB = windows.at(0)
    assert inputs_KTB.tolist() == [[[0, 7, 14], [1, 8, 15]]]
    assert (targets_KTB == inputs_KTB + 1).all()
    assert windows.at(4)[0].tolist() == [[[8, 15, 0], [9, 16, 1]]]


def test_each_trial_of_a_pack_reads_from_its_own_start():
    ids = np.arange(23, dtype=np.int32)
    together = Windows(ids, batch=3, window=2, starts=(0, 5, 21))
    for place in (0, 4):
        inputs_KTB, targets_KTB = together.at(place)
        for k, start in enumerate((0, 5, 21)):
            alone = (Windows(ids, batch=3, window=2).at(place)[0][0] + start) % 22
            assert (inputs_KTB[k] == alone).all()
            assert (targets_KTB[k] == alone + 1).all()


@pytest.mark.parametrize("length", [701, 1000])
def test_a_corpus_too_short_for_a_window_names_the_largest_batch_that_works(length):
    from conftest import knobs_of

    ids = np.zeros(length, dtype=np.int32)
    corpus = Corpus("x", ("a", "<unk>"), ids, ids, ids)
    check_fits(knobs_of("batch=20", "window=35"), corpus)
    largest = (length - 1) // 35
    check_fits(knobs_of(f"batch={largest}", "window=35"), corpus)
    with pytest.raises(
        KnobError, match=f"train of data=x has {length} tokens.*the largest batch that works is {largest}$"
    ):
        check_fits(knobs_of(f"batch={largest + 1}", "window=35"), corpus)


def test_train_tokens_beyond_the_corpus_are_refused():
    ids = np.zeros(50, dtype=np.int32)
    with pytest.raises(KnobError, match="train_tokens=51: data=x has 50 train tokens"):
        Corpus("x", ("a",), ids, ids, ids).slice(51, "full")


def test_a_sliced_vocabulary_maps_other_words_to_unk():
    train = np.array([3, 1, 3, 2], dtype=np.int32)
    corpus = Corpus("x", ("a", "b", "c", "d"), train, np.array([0, 1], dtype=np.int32), train)
    sliced = corpus.slice(3, "slice")
    assert sliced.words == ("b", "d", "<unk>")
    assert sliced.train.tolist() == [1, 0, 1]
    assert sliced.valid.tolist() == [2, 0]


def test_rows_are_comparable_however_much_was_trained_on_and_start_alike_only_on_the_same_first_window():
    corpus = load_corpus(knobs_of(*TINY).data)
    whole, part, other, batch, wide = (
        describe(knobs_of(*TINY, *more)).record()
        for more in (
            [],
            ["train_tokens=1000", "batch=2"],
            ["train_tokens=25", "vocabulary=slice", "batch=1"],
            ["batch=2"],
            ["hidden=9"],
        )
    )
    assert whole["digest"] != part["digest"]
    assert whole["evaluated"] == part["evaluated"] != other["evaluated"]
    assert len({whole["alike"], part["alike"], batch["alike"]}) == 3
    assert whole["alike"] == wide["alike"]
    assert (whole["chance"], whole["floor"]) == (math.log(30), corpus.floor_nll)
    assert whole["sizes"] == corpus.counts()
