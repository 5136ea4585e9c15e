"""Words with their parts of speech: from a tagged text to the ids of a vocabulary, by coarse category.

Boundary: a file of `word/TAG` tokens in, ids out. The file is text, or a zip of `.pos` files like the sample of the
Penn Treebank that NLTK distributes.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from model.errors import CorpusError
from model.files import decode_text, read_text
from model.vocabulary import Ids, Vocabulary

OTHER = "other"
CATEGORY_TAGS = {
    "nouns": "NN NNS NNP NNPS",
    "verbs": "VB VBD VBG VBN VBP VBZ MD",
    "adjectives": "JJ JJR JJS",
    "adverbs": "RB RBR RBS WRB",
    "determiners": "DT PDT WDT EX",
    "prepositions": "IN",
    "pronouns": "PRP PRP$ WP WP$",
    "conjunctions": "CC",
    "numbers": "CD",
    OTHER: "TO RP POS FW LS SYM UH -LRB- -RRB- -NONE-",
}
"""Penn Treebank tags of each category, by the universal tagset (Petrov et al. 2012); its particles and x are `other`.

`other` also takes every tag without a letter, which are those of punctuation.
"""
CATEGORY = {tag: category for category, tags in CATEGORY_TAGS.items() for tag in tags.split()}

TaggedWords = Counter[tuple[str, str]]
"""How often each word stood with each tag."""

_CHUNK_MARK = re.compile(r"\[|\]|=+")
"""What is no word in the Treebank's files: brackets around noun phrases, and lines between sentences."""

_ZIP = b"PK\x03\x04"


def read_tagged_words(path: Path) -> TaggedWords:
    """Count the words and tags of a file.

    A slash within a word may be written `\\/`; of alternatives (`VBG|NN`) the first tag counts.
    Raises `CorpusError`: unreadable, no tagged word in it, or a token, named with its line, that is no `word/TAG`.
    """
    words: TaggedWords = Counter()
    for source, text in _texts(path):
        for number, line in enumerate(text.split("\n"), start=1):
            words.update(_parse(token, source, number) for token in line.split() if not _CHUNK_MARK.fullmatch(token))
    if not words:
        raise CorpusError(f"{path} holds no tagged word; give text of word/TAG tokens, or a zip of .pos files of such")
    return words


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    """Name and text of the file, or of every `.pos` file in the zip."""
    try:
        with path.open("rb") as file:
            # What is left of a zip whose end, and with it its list of files, is lost begins as a whole one does.
            begins_as_zip = file.read(len(_ZIP)) == _ZIP
    except OSError:
        begins_as_zip = False
    if not begins_as_zip and not zipfile.is_zipfile(path):
        yield str(path), read_text(path, CorpusError)
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(name for name in archive.namelist() if name.endswith(".pos")):
                source = f"{path}: {name}"
                yield source, decode_text(archive.read(name), source, CorpusError)
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as problem:
        raise CorpusError(f"{path} cannot be unpacked ({problem}); fetch it again") from None


def _parse(token: str, source: str, line: int) -> tuple[str, str]:
    word, _, tags = token.rpartition("/")
    tag = tags.split("|")[0]
    if not word or not tag:
        raise CorpusError(f"{source}, line {line}: {token!r} is not word/TAG; tag every word, or take the token out")
    if tag not in CATEGORY and any(map(str.isalpha, tag)):
        raise CorpusError(f"{source}, line {line}: {token!r} has no Penn Treebank tag; tag the text with those")
    return word.replace("\\/", "/"), tag


def words_by_category(vocabulary: Vocabulary, tagged: TaggedWords, ids: Ids) -> dict[str, list[int]]:
    """Ids by category, each id once, ascending: those that occur in `ids`, the text, and are tagged.

    A tagged word is matched as the vocabulary's convention writes it, and left out where that is not one known word.
    A word of several tags counts under its most frequent one, of equally frequent ones the first in the file.
    """
    occurring = {*ids.tolist()} - {vocabulary.eos_id, vocabulary.unk_id}
    tags: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for (word, tag), count in tagged.items():
        tokens = vocabulary.tokenise(word).ids.tolist()
        if len(tokens) == 1 and tokens[0] in occurring:
            tags[tokens[0]][tag] += count
    by_category: dict[str, list[int]] = {category: [] for category in CATEGORY_TAGS}
    for token_id in sorted(tags):
        [(tag, _)] = tags[token_id].most_common(1)
        by_category[CATEGORY.get(tag, OTHER)].append(token_id)
    return by_category
