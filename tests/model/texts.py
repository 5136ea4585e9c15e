"""Small vocabularies in each convention, written for the tests."""

from __future__ import annotations

from collections.abc import Iterable

from model.conventions import EOS, Convention, words_of
from model.vocabulary import Vocabulary

WIKITEXT_LINES = [
    "= The Harbour =",
    "The harbour lies 3 @.@ 5 km ( 2 mi ) north @-@ west of the old town , near St. Agnes .",
    'It was " well known " to sailors in 1990 ; about 1 @,@ 200 ships a year came from the U.S. and the U.K.',
    "O 'Brien didn 't say the ship 's name – the sailors ' songs don 't either !",
    "Mr. H. G. Tarn paid $ 5 @,@ 000 ( 10 % ) : a fair price ? No. 7 and / or No. 8 <unk> 20 – 30 ° C ...",
    "' It is the 1980s ' , he said — café au lait & rock 'n'roll . . . [ sic ] # 1 <formula> it 's I 'm they 've re",
    "000 200 1 2 3 5 7 8 9 10 km ² first- second and - -- year A.B. Amazon.com s n pre do",
]
PTB_LINES = [
    "mr. tarn said the company 's profit rose N N to $ N million from us$ N million in the year",
    "shareholders of at&t inc. do n't expect the directors ' report before oct. N <unk>",
    "i 'm sure they 've ca wo can not be # N a 1\\/2-year u.s. u.s.-based long-term '80s n. plan",
    "says it 's he 'd we 'll",
]
PLAIN_LINES = [
    "Captain O'Hara didn't sail the well-known ship (a 1,200-ton barque) home; it's still there, he said.",
    '"Don\'t wait... the tide turns at 10:30!" -- so wrote the mate, e.g. in the U.S. -- "Well?!"',
    "<unk> 🙂 and/or 3.14 % at site.org _now_ === naïve हिन्दी",
]


def wikitext() -> Vocabulary:
    return Vocabulary.from_lines(WIKITEXT_LINES, Convention.WIKITEXT)


def ptb() -> Vocabulary:
    return Vocabulary.from_lines(PTB_LINES, Convention.PTB)


def plain() -> Vocabulary:
    return Vocabulary.from_lines(PLAIN_LINES, Convention.PLAIN)


def ids_of_lines(vocabulary: Vocabulary, lines: Iterable[str]) -> list[int]:
    """Ids of corpus lines, token by token, with `<eos>` after every line."""
    tokens = (token for line in lines for token in (*words_of(line, vocabulary.convention), EOS))
    return [vocabulary.id_of(token) for token in tokens]


def readable(vocabulary: Vocabulary, text: str) -> str:
    """Tokens of a text with blanks between them; those not in the vocabulary as they were typed, in brackets."""
    tokens = vocabulary.tokenise(text)
    return " ".join(
        f"[{text[start:end]}]" if unknown else vocabulary.word_of(token_id)
        for token_id, unknown, start, end in zip(tokens.ids, tokens.unknown, tokens.starts, tokens.ends, strict=True)
    )
