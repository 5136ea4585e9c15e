"""The softmax layer without its logits in memory: log-probabilities of targets, their ranks, and the likeliest words.

Boundary: tensors of one device in, new tensors out; `score`, `top_k` and `log_probabilities` of
`model.kernels.reference` are what it computes. All three cut their rows alike, make a tile of logits by the same code
and add up the same log-sum-exps of tiles by that of `model.kernels.rows`, so of the same `hidden` they give the same
log-probability to the bit. It needs Triton.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.kernels.launch import Launch, blocks, power_of_two
from model.kernels.rows import MOST_MERGED, add_up, merge

MOST_CANDIDATES = 16
"""Largest k whose candidates are found tile by tile; for more, the logits of a few rows are written."""
MOST_LOGITS = 1 << 25
"""Logits of the rows that are treated together, written or not: 128 MB, and twice that where they are sorted."""
MOST_ROWS = 1 << 16
"""Rows that are treated together of the smallest vocabularies: a launch's grid has an end."""


class Cut(NamedTuple):
    """How a pass over the table is cut into programs, and how one reads."""

    block_r: int
    """Rows of a program: 1 multiplies by sums, more by the tensor cores."""
    block_v: int
    """Words of a tile."""
    block_e: int
    """Columns that are read at a time."""
    warps: int
    stages: int
    """Blocks of columns that are on their way through shared memory; 1 reads straight into registers."""


def cut(rows: int, bytes_each: int) -> Cut:
    """The cut for so many rows and a table of numbers of so many bytes."""
    if rows > 16 and bytes_each == 2:
        return Cut(64, 128, 64, warps=4, stages=3)
    return Cut(16, 128, 64, warps=4, stages=4 if bytes_each == 2 else 3)


class Form(IntEnum):
    """What a pass over the table makes of its tiles of logits; all but the last also make their log-sum-exps."""

    LOGITS = 0
    """All of them: `[R, V]`."""
    TARGETS = 1
    """Those of one word a row: `[R]`."""
    CANDIDATES = 2
    """Keys of the k largest of each tile: `[R, tiles, k]`."""
    RANKS = 3
    """How many of each tile are likelier than a given log-probability: `[R, tiles]`."""


def log_probabilities(hidden: Tensor, table: Tensor, bias: Tensor) -> Tensor:
    """Log-probability of every word `[R, V]` from `hidden [R, E]`, `table [V, E]` and `bias [V]`."""
    result = hidden.new_empty(len(hidden), len(table))
    count = _rows_together(table)
    for part, logits in zip(hidden.split(count), result.split(count), strict=True):
        logits.sub_(_log_sum_exp(Form.LOGITS, part, table, bias, logits))
    return result


def score(hidden: Tensor, table: Tensor, bias: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability and rank `[R]` of `targets [R]`: a rank is 1 + the number of words strictly likelier.

    Two passes over the table: what a target's log-probability is compared with has to be computed as that was.
    """
    values, ranks = hidden.new_empty(len(hidden)), hidden.new_empty(len(hidden), dtype=torch.int32)
    count = _rows_together(table)
    parts = [x.split(count) for x in (hidden, targets, values, ranks)]
    for vectors, words, value, rank in zip(*parts, strict=True):
        total = _log_sum_exp(Form.TARGETS, vectors, table, bias, value, words)
        value.sub_(total[:, 0])
        likelier = hidden.new_empty(len(vectors), _tiles_of(vectors, table), dtype=torch.int32)
        launch(Form.RANKS, vectors, table, bias, likelier, total, value).run()
        torch.sum(likelier, dim=1, dtype=torch.int32, out=rank).add_(1)
    return values, ranks


def top_k(hidden: Tensor, table: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Ids and log-probabilities `[R, k]` of the k likeliest words (k at most V), best first, ties by lower id."""
    ids, values = hidden.new_empty(len(hidden), k, dtype=torch.int32), hidden.new_empty(len(hidden), k)
    count = _rows_together(table)
    for part, best, value in zip(hidden.split(count), ids.split(count), values.split(count), strict=True):
        # A kernel is compiled for each number of candidates, so that there are few such numbers.
        most, tiles = power_of_two(k, 4, MOST_CANDIDATES), _tiles_of(part, table)
        if k <= most and tiles * most <= MOST_MERGED:
            candidates = hidden.new_empty(len(part), tiles, most, dtype=torch.int64)
            of_tiles = hidden.new_empty(len(part), tiles)
            launch(Form.CANDIDATES, part, table, bias, candidates, of_tiles).run()
            merge(candidates, of_tiles, best, value).run()
        else:
            logits = hidden.new_empty(len(part), len(table))
            total = _log_sum_exp(Form.LOGITS, part, table, bias, logits)
            keys = keys_of(logits).topk(k, dim=1).values
            best.copy_(_LAST - (keys & _LAST))
            ordered = (keys >> 32).int()
            torch.sub((ordered ^ (ordered >> 31 & _LAST)).view(torch.float32), total, out=value)
    return ids, values


_LAST = 0x7FFFFFFF


def keys_of(logits: Tensor) -> Tensor:
    """What `_keys` makes of a tile, of whole rows of logits `[R, V]`."""
    bits = logits.view(torch.int32)
    words = torch.arange(logits.shape[1], device=logits.device)
    return (bits ^ (bits >> 31 & _LAST)).long() << 32 | (_LAST - words)


def _rows_together(table: Tensor) -> int:
    return min(MOST_ROWS, max(1, MOST_LOGITS // len(table)))


def _tiles_of(hidden: Tensor, table: Tensor) -> int:
    return blocks(len(table), cut(len(hidden), table.element_size()).block_v)


def _log_sum_exp(
    form: Form, hidden: Tensor, table: Tensor, bias: Tensor, out: Tensor, targets: Tensor | None = None
) -> Tensor:
    """The log-sum-exp of every row's logits `[R, 1]`; `out` is filled with what `form` makes."""
    of_tiles = hidden.new_empty(len(hidden), _tiles_of(hidden, table))
    launch(form, hidden, table, bias, out, of_tiles, targets).run()
    total = hidden.new_empty(len(hidden), 1)
    add_up(of_tiles, total).run()
    return total


def launch(
    form: Form,
    hidden: Tensor,
    table: Tensor,
    bias: Tensor,
    out: Tensor,
    log_sum_exps: Tensor,
    given: Tensor | None = None,
) -> Launch:
    """The launch that fills `out` with what `form` makes and `log_sum_exps [R, tiles]` with those of the tiles.

    `given [R]` are the targets; for ranks their log-probabilities, and `log_sum_exps [R, 1]` of whole rows is read.
    """
    (rows, size), words = hidden.shape, len(table)
    chosen = cut(rows, table.element_size())
    arguments = {
        "hidden": hidden,
        "table": table,
        "bias": bias,
        "given": out if given is None else given,
        "out": out,
        "log_sum_exps": log_sum_exps,
        "rows": rows,
        "words": words,
        "hidden_row": hidden.stride(0),
        "hidden_column": hidden.stride(1),
        "table_row": table.stride(0),
        "table_column": table.stride(1),
        "bias_word": bias.stride(0),
        "given_row": 1 if given is None else given.stride(0),
    }
    constants = {
        "FORM": int(form),
        "K": out.shape[2] if form is Form.CANDIDATES else 0,
        "SIZE": size,
        "BLOCK_R": chosen.block_r,
        "BLOCK_V": chosen.block_v,
        "BLOCK_E": power_of_two(size, 16, chosen.block_e),
        "STAGES": chosen.stages,
    }
    grid = (blocks(words, chosen.block_v), blocks(rows, chosen.block_r))
    return Launch(_tiles, grid, arguments, constants, chosen.warps, chosen.stages)


@triton.jit
def _logits(
    hidden,
    table,
    bias,
    row,
    rows,
    word,
    words,
    hidden_row,
    hidden_column,
    table_row,
    table_column,
    bias_word,
    SIZE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_E: tl.constexpr,
    STAGES: tl.constexpr,
):
    """A tile of logits `[BLOCK_R, BLOCK_V]`, minus infinity for words beyond the last; vectors in the table's type."""
    # Of one row, still to be summed over its last axis, which needs no tensor core.
    total = tl.zeros((BLOCK_V, BLOCK_E) if BLOCK_R == 1 else (BLOCK_R, BLOCK_V), tl.float32)
    vectors = hidden + row.to(tl.int64)[:, None] * hidden_row
    entries = table + word.to(tl.int64)[:, None] * table_row
    for start in tl.range(0, SIZE, BLOCK_E, num_stages=STAGES):
        e = start + tl.arange(0, BLOCK_E)
        inside = (e < SIZE)[None, :]
        weights = tl.load(entries + e[None, :] * table_column, mask=(word < words)[:, None] & inside, other=0.0)
        x = tl.load(vectors + e[None, :] * hidden_column, mask=(row < rows)[:, None] & inside, other=0.0)
        x = x.to(weights.dtype)
        if BLOCK_R == 1:
            total += x.to(tl.float32) * weights.to(tl.float32)
        else:
            total = tl.dot(x, tl.trans(weights), total, input_precision="ieee")
    if BLOCK_R == 1:
        total = tl.sum(total, 1)[None, :]
    biases = tl.load(bias + word * bias_word, mask=word < words, other=float("-inf"))
    return total + biases[None, :]


@triton.jit
def _keys(logits, word):
    """An integer for each logit that sorts by value, then by lower word.

    The bits of a float sort as integers do where those below the sign of a negative one are turned over.
    """
    bits = logits.to(tl.int32, bitcast=True)
    ordered = bits ^ (bits >> 31 & 0x7FFFFFFF)
    return ordered.to(tl.int64) << 32 | (0x7FFFFFFF - word)[None, :].to(tl.int64)


@triton.jit(do_not_specialize=["rows"])
def _tiles(
    hidden,
    table,
    bias,
    given,
    out,
    log_sum_exps,
    rows,
    words,
    hidden_row,
    hidden_column,
    table_row,
    table_column,
    bias_word,
    given_row,
    FORM: tl.constexpr,
    K: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_E: tl.constexpr,
    STAGES: tl.constexpr,
):
    tile, tiles = tl.program_id(0), tl.num_programs(0)
    row = tl.program_id(1) * BLOCK_R + tl.arange(0, BLOCK_R)
    word = tile * BLOCK_V + tl.arange(0, BLOCK_V)
    present = row < rows
    logits = _logits(
        hidden,
        table,
        bias,
        row,
        rows,
        word,
        words,
        hidden_row,
        hidden_column,
        table_row,
        table_column,
        bias_word,
        SIZE,
        BLOCK_R,
        BLOCK_V,
        BLOCK_E,
        STAGES,
    )
    place = row.to(tl.int64) * tiles + tile
    if FORM != 3:
        largest = tl.max(logits, 1)
        log_sum_exp = largest + tl.log(tl.sum(tl.exp(logits - largest[:, None]), 1))
        tl.store(log_sum_exps + place, log_sum_exp, mask=present)
    if FORM == 0:
        there = out + row.to(tl.int64)[:, None] * words + word[None, :]
        tl.store(there, logits, mask=present[:, None] & (word < words)[None, :])
    elif FORM == 1:
        target = tl.load(given + row * given_row, mask=present, other=-1)
        # The one program whose words the target is among has its logit.
        logit = tl.sum(tl.where(word[None, :] == target[:, None], logits, 0.0), 1)
        tl.store(out + row, logit, mask=present & (target // BLOCK_V == tile))
    elif FORM == 2:
        keys = _keys(logits, word)
        for k in range(0, K):
            best = tl.max(keys, 1)
            tl.store(out + place * K + k, best, mask=present)
            keys = tl.where(keys == best[:, None], -0x7FFFFFFFFFFFFFFF, keys)
    else:
        value = tl.load(given + row * given_row, mask=present, other=0.0)
        log_sum_exp = tl.load(log_sum_exps + row, mask=present, other=0.0)
        likelier = (logits - log_sum_exp[:, None]) > value[:, None]
        tl.store(out + place, tl.sum(likelier.to(tl.int32), 1), mask=present)
