"""Text to token ids and back, by the convention of one corpus.

Boundary: words, ids and offsets; the one file it knows is its own `tokenizer.json`. How one typed word becomes the
corpus's tokens is `model.conventions`, how tokens are written as text `model.spelling`. Imports no torch.
"""

from __future__ import annotations

import hashlib
import math
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model.conventions import EOS, LONGEST_WORD, NUMBER, UNK, Convention, Splitter, splitter, words_of
from model.conventions.base import PLAIN_MARKS
from model.errors import TextError
from model.files import read_json, write_json
from model.spelling import surface, written

Ids = npt.NDArray[np.int32]

SPECIALS = (EOS, UNK)
"""What every vocabulary holds."""

FORMAT = "pru-tokenizer"
VERSION = 1

CACHED_WORDS = 1 << 16
CACHED_LENGTH = 64
"""Typed words up to this many characters are remembered, so that the cache's memory is bounded."""

_TOKEN = np.dtype([("id", np.int32), ("start", np.int32), ("end", np.int32), ("unknown", np.int32)])
"""A token of one typed word, its offsets counted from the word's start."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_WORDS = re.compile(r"\n|\S+")
_WORDS_AND_EOS = re.compile(rf"\n|{EOS}|(?:(?!{EOS})\S)++")


@dataclass(frozen=True, eq=False)
class Tokens:
    """What a text of n tokens became; every array has the shape [n]."""

    ids: Ids
    starts: Ids
    """First code point of each token in the text."""
    ends: Ids
    """Code point after the last of each token: `text[start:end]` is what was typed."""
    unknown: npt.NDArray[np.bool_]
    """Whether the token is `<unk>` for want of a word; a literal `<unk>` is not."""
    words: Ids
    """Which typed word a token belongs to, counted from 0. A newline counts as one; a word may have no token."""

    def __len__(self) -> int:
        return len(self.ids)


class Vocabulary:
    """The words a model knows in the order of their ids, and the convention by which text becomes such words."""

    def __init__(self, words: Sequence[str], convention: Convention) -> None:
        """Raise `TextError` for words without `<eos>` or `<unk>`, with one twice, or with one no text can hold."""
        self.words = tuple(words)
        self.convention = Convention(convention)
        self._ids = {word: token_id for token_id, word in enumerate(self.words)}
        if len(self._ids) != len(self.words):
            twice = next(word for word, count in Counter(self.words).items() if count > 1)
            raise TextError(f"vocabulary: {twice!r} is listed more than once; give every word one id")
        for special in SPECIALS:
            if special not in self._ids:
                raise TextError(f"vocabulary: {special} is missing; every vocabulary needs {EOS} and {UNK}")
        for word in self.words:
            if word.split() != [word]:
                raise TextError(f"vocabulary: {word!r} is empty or holds a blank; words are what stands between blanks")
            if _SURROGATE.search(word):
                raise TextError(f"vocabulary: {word!r} holds half a character; words are text that UTF-8 can hold")
        self.eos_id = self._ids[EOS]
        self.unk_id = self._ids[UNK]

    @classmethod
    def from_lines(
        cls, lines: Iterable[str], convention: Convention, *, min_count: int = 1, max_words: int | None = None
    ) -> Vocabulary:
        """The words of corpus lines and an `<eos>` a line, by falling frequency.

        Words with less than `min_count` occurrences are left out, and of the others all beyond the `max_words` most
        frequent (`<eos>` and `<unk>` count among those, and stay). Ties are in order of first appearance; `<unk>` comes
        last if the lines have none.
        """
        counts: Counter[str] = Counter()
        for line in lines:
            counts.update(words_of(line, convention))
            counts[EOS] += 1
        for special in SPECIALS:
            counts[special] += 0
        ranked = counts.most_common()
        frequent = [word for word, count in ranked if count >= min_count and word not in SPECIALS]
        room = len(frequent) if max_words is None else max(0, max_words - len(SPECIALS))
        kept = {*SPECIALS, *frequent[:room]}
        return cls([word for word, _ in ranked if word in kept], convention)

    def __len__(self) -> int:
        return len(self.words)

    @property
    def identity(self) -> dict[str, str | int]:
        """What tells this vocabulary from any other, for records of what was trained with it."""
        words = hashlib.sha256("\n".join(self.words).encode()).hexdigest()
        return {"convention": self.convention.value, "words": len(self), "sha256": words}

    def id_of(self, word: str) -> int:
        """Id of a word as the corpus writes it, or that of `<unk>`."""
        return self._ids.get(word, self.unk_id)

    def word_of(self, token_id: int) -> str:
        """Word of an id as the corpus writes it."""
        return self.words[token_id]

    def encode(self, text: str) -> Ids:
        """Ids of a whole text as a model reads it in training: every line ends with `<eos>`, the last one too."""
        return self.tokenise(text if text.endswith("\n") else text + "\n", final_newline=True).ids

    def tokenise(
        self, text: str, *, specials: bool = False, final_newline: bool = False, most: int | None = None
    ) -> Tokens:
        """Tokens of plain text, or of corpus lines, which come back unchanged.

        Each blank-delimited word is tokenised by itself, so a cut between words never matters. A newline is `<eos>`,
        and blanks at the ends are ignored. `final_newline`: whether the newline that ends a text counts, as it
        does where the text goes on; else the caller adds the one `<eos>` a text's end has, if it wants it.
        `specials`: whether a literal `<eos>` in the text is the token, rather than unknown.
        `most`: leave off after the word in which there are more tokens than that: what is refused costs no more.
        """
        stop = len(text) if final_newline else _before_final_newline(text)
        enough = math.inf if most is None else most * _TOKEN.itemsize
        split, remembered = self._split, self._remembered
        splits, offsets, size = [], [], 0
        for match in (_WORDS_AND_EOS if specials else _WORDS).finditer(text, 0, stop):
            typed = match[0]
            tokens_of_word = (remembered if len(typed) <= CACHED_LENGTH else split)(typed, specials)
            splits.append(tokens_of_word)
            offsets.append(match.start())
            size += len(tokens_of_word)
            if size > enough:
                break
        counts = np.fromiter(map(len, splits), dtype=np.int32, count=len(splits)) // _TOKEN.itemsize
        tokens = np.frombuffer(b"".join(splits), dtype=_TOKEN)
        offset = np.repeat(np.array(offsets, dtype=np.int32), counts)
        return Tokens(
            ids=np.ascontiguousarray(tokens["id"]),
            starts=tokens["start"] + offset,
            ends=tokens["end"] + offset,
            unknown=tokens["unknown"].astype(np.bool_),
            words=np.repeat(np.arange(len(splits), dtype=np.int32), counts),
        )

    def detokenise(self, ids: Iterable[int]) -> str:
        """Plain text of ids as people write it: blanks, hyphens and quotes in their places, a newline for `<eos>`."""
        return "".join(written((self.words[token_id] for token_id in ids), self.convention))

    def surface(self, token_id: int) -> str:
        """One word as it is shown to a person: "-" for the joiner "@-@"."""
        return surface(self.words[token_id], self.convention)

    def is_special(self, token_id: int) -> bool:
        """Whether an id stands for something other than itself: `<unk>`, `<eos>`, and `N` under the PTB convention."""
        return token_id in self._special

    def is_word(self, token_id: int) -> bool:
        """Whether an id is a word that a person would type: not special, and with a letter or a digit in it."""
        word = self.words[token_id]
        # Nearly every word is letters and digits alone, which is found out in one call.
        return token_id not in self._special and word[0] != "<" and (word.isalnum() or any(map(str.isalnum, word)))

    def completions(self, prefix: str) -> Ids:
        """Ids, ascending, whose surface starts with `prefix`: in any case if the prefix is lower case, else in its own.

        Under the PTB convention, which has no upper case, in any case always.
        """
        any_case = self._any_case(prefix)
        forms, ids = self._index_any_case if any_case else self._index
        wanted = prefix.lower() if any_case else prefix
        first = bisect_left(forms, wanted)
        last = bisect_right(forms, wanted, lo=first, key=lambda form: form[: len(wanted)])
        return np.sort(ids[first:last])

    def begins(self, word: str, prefix: str) -> bool:
        """Whether a word, which need not be in the vocabulary, is a completion of `prefix` by the same rule.

        Curly quotes are as good as straight ones.
        """
        word, prefix = word.translate(PLAIN_MARKS), prefix.translate(PLAIN_MARKS)
        return word.lower().startswith(prefix.lower()) if self._any_case(prefix) else word.startswith(prefix)

    def _any_case(self, prefix: str) -> bool:
        return self.convention is Convention.PTB or prefix == prefix.lower()

    def save(self, path: Path) -> None:
        """Write `tokenizer.json`."""
        content = {"format": FORMAT, "version": VERSION, "convention": self.convention.value, "words": self.words}
        write_json(path, content)

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read `tokenizer.json`; raise `TextError` that names the file when it is not one.

        How that is mended depends on whose file it is, and is for the caller to say.
        """
        content = read_json(path, TextError)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise TextError(f"{path} is not a tokenizer of this project")
        if content.get("version") != VERSION:
            raise TextError(f"{path} has version {content.get('version')}, not {VERSION}")
        words = content.get("words")
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise TextError(f"{path} holds no list of words")
        try:
            return cls(words, Convention(str(content.get("convention"))))
        except (ValueError, TextError) as problem:
            raise TextError(f"{path}: {problem}") from None

    def _split(self, typed: str, specials: bool) -> bytes:
        """Tokens of one typed word (or newline) as packed rows of `_TOKEN`."""
        if typed == "\n" or (specials and typed == EOS):
            rows = [(self.eos_id, 0, len(typed), 0)]
        elif len(typed) > LONGEST_WORD:
            rows = [(self.unk_id, 0, len(typed), 1)]
        else:
            rows = [
                (self.unk_id, start, end, 1) if word is None else (self._ids[word], start, end, 0)
                for word, start, end in self._splitter.split(typed)
            ]
        return np.array(rows, dtype=_TOKEN).tobytes()

    @cached_property
    def _remembered(self) -> Callable[[str, bool], bytes]:
        return lru_cache(CACHED_WORDS)(self._split)

    @cached_property
    def _splitter(self) -> Splitter:
        return splitter(self.convention, self.words)

    @cached_property
    def _special(self) -> frozenset[int]:
        number = [self._ids[NUMBER]] if self.convention is Convention.PTB and NUMBER in self._ids else []
        return frozenset([self.eos_id, self.unk_id, *number])

    @cached_property
    def _surfaces(self) -> list[str]:
        return [surface(word, self.convention) for word in self.words]

    @cached_property
    def _index(self) -> tuple[list[str], Ids]:
        return _sorted_index(self._surfaces)

    @cached_property
    def _index_any_case(self) -> tuple[list[str], Ids]:
        return _sorted_index([form.lower() for form in self._surfaces])


def _sorted_index(forms: list[str]) -> tuple[list[str], Ids]:
    """Forms in order, and the id of each."""
    order = sorted(range(len(forms)), key=forms.__getitem__)
    return [forms[token_id] for token_id in order], np.array(order, dtype=np.int32)


def _before_final_newline(text: str) -> int:
    """Where a text ends without its last newline, if nothing but blanks follows that."""
    body = len(text.rstrip())
    return max(body, text.rfind("\n", body))
