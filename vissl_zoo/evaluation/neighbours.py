"""The nearest neighbours by cosine, exactly: all products in float32, or in bfloat16 with a proof and float32 after it.

In bfloat16 the m = 1.5 k + 32 best of each query are found first, and their cosines computed anew in float32. That
none outside these m belongs among the k is then proved for each query from the norms of what rounding took away
(Cauchy–Schwarz); a query without a proof is searched again in float32, so the result never depends on the way taken.
The mean of the bank is subtracted before rounding: it changes no query's ranking, and embeddings of a narrow cone would
otherwise all look alike in bfloat16.

Of M similarities the m best are found among the blocks with the m highest maxima, m·16 of them, by NumPy's vectorised
partition. On one core, m = 332, 256 queries × 50,000 × 512: torch's topk 41 ms, this 17; the product 159 ms in float32,
30 in bfloat16.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from vissl_zoo.speed import run_trial

BLOCK = 16  # similarities of which only the maximum is looked at first
UNIT = 2.0**-8  # rounding to bfloat16, of 8 significant bits, changes a number by at most this share of it
WORTH_A_TRIAL = 5e9  # multiplications; below it the search takes a fraction of a second
TRIAL_QUERIES, TRIAL_BANK = 256, 8192
TOO_MANY = 0.3  # share of queries without a proof above which the rest is searched in float32


def nearest(
    queries: Tensor, bank: Tensor, k: int, *, chunk: int = 256, bank_chunk: int = 65536, exact: bool = False
) -> tuple[Tensor, Tensor]:
    """Cosine similarity and index (N, k) of each query's k nearest in the bank, the nearest first.

    Beside its arguments it holds chunk × bank_chunk similarities, (N, 2k) candidates and half the bank: 10,000 queries
    among a million images of width 512 stay under 4 GB, of which the bank itself is 2.

    Args:
        queries: (N, F), normalised here.
        bank: (M, F), normalised here, M >= k.
        k: neighbours.
        chunk: queries compared at once.
        bank_chunk: images of the bank that they are compared with at once.
        exact: never go by way of bfloat16, which may rank equals differently in the last digit of float32.
    """
    queries, bank = normalize(queries.float(), dim=1), bank.float()
    work = len(queries) * bank.numel()
    if (
        exact
        or spare(k) >= len(bank) // 2
        or work < WORTH_A_TRIAL
        or not _narrow_pays(queries, bank, k, chunk)
    ):
        return in_float32(queries, bank, k, chunk, bank_chunk)
    return by_bfloat16(queries, bank, k, chunk, bank_chunk)


def spare(k: int) -> int:
    """How many candidates are found in bfloat16 for k neighbours: with too few there is no proof, and none is free.

    Proved for k = 200, width 512: all of 300 queries of pure noise, among 50,000 as among a million; none of 1,000 in
    five or ten clusters (spread .3) of 50,000, all closer than the bound, where the search goes on in float32.
    """
    return k + k // 2 + 32


def in_float32(queries: Tensor, bank: Tensor, k: int, chunk: int, bank_chunk: int) -> tuple[Tensor, Tensor]:
    """`nearest` of normalised queries, straight."""
    values, indices = torch.empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64)
    for start in range(0, len(bank), bank_chunk):
        part = normalize(bank[start : start + bank_chunk], dim=1)
        found = [_best(q @ part.T, k) for q in queries.split(chunk)]
        values, indices = _merge(values, indices, found, start, k)
    return _sorted(values, indices, k)


def by_bfloat16(queries: Tensor, bank: Tensor, k: int, chunk: int, bank_chunk: int) -> tuple[Tensor, Tensor]:
    """`nearest` of normalised queries by way of bfloat16."""
    candidates = _Candidates(bank, spare(k), chunk, bank_chunk)
    values, indices = [], []
    plain = False
    for part in queries.split(8 * chunk):
        if plain:
            found = in_float32(part, bank, k, chunk, bank_chunk)
        else:
            *found, proved = candidates.nearest(part, k)
            if not proved.all():
                again = ~proved
                for old, new in zip(found, in_float32(part[again], bank, k, chunk, bank_chunk), strict=True):
                    old[again] = new
                plain = bool(again.float().mean() > TOO_MANY)
        values.append(found[0])
        indices.append(found[1])
    return torch.cat(values), torch.cat(indices)


class _Candidates:
    """A bank (M, F) in bfloat16, its mean taken away, in which the m best of a query are found roughly."""

    def __init__(self, bank: Tensor, m: int, chunk: int, bank_chunk: int):
        self._bank, self._m, self._chunk, self._bank_chunk = bank, m, chunk, bank_chunk
        self._inverse = 1 / torch.linalg.vector_norm(bank, dim=1).clamp_min(1e-12)  # (M,)
        self._mean = (self._inverse @ bank) / len(bank)  # (F,)
        self._narrow = torch.empty(bank.shape, dtype=torch.bfloat16)
        longest, lost = 0.0, 0.0  # of the centred bank: norm, and norm of what rounding takes away
        for start in range(0, len(bank), 8192):
            part = slice(start, start + 8192)
            centred = bank[part] * self._inverse[part, None] - self._mean
            self._narrow[part] = centred
            longest = max(longest, torch.linalg.vector_norm(centred, dim=1).max().item())
            rest = centred.sub_(self._narrow[part])
            lost = max(lost, torch.linalg.vector_norm(rest, dim=1).max().item())
        self._longest, self._lost = longest, lost

    def nearest(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Cosines and indices (N, k), sorted, and whether these are proved to be the k nearest (N,)."""
        narrow = queries.to(torch.bfloat16)
        rough, indices = torch.empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64)
        for start in range(0, len(self._narrow), self._bank_chunk):
            part = self._narrow[start : start + self._bank_chunk].T
            found = [_best(q @ part, self._m) for q in narrow.split(self._chunk)]
            rough, indices = _merge(rough, indices, found, start, self._m)
        values, places = self._cosines(queries, indices).topk(k, dim=1)
        # A cosine less the query's product with the mean is what was rounded: |that - rough| <= error.
        worst = rough.amin(dim=1)
        query_lost = torch.linalg.vector_norm(queries - narrow.float(), dim=1)
        summation = queries.shape[1] * 2.0**-23  # F terms added up in float32
        error = query_lost * self._longest + (1 + UNIT) * self._lost + summation * (1 + self._longest)
        proved = values[:, -1] - queries @ self._mean >= worst + 1.01 * UNIT * worst.abs() + error
        return values, indices.gather(1, places), proved

    def _cosines(self, queries: Tensor, indices: Tensor) -> Tensor:
        """Cosines (N, m) in float32 of each query with its candidates, whose rows are never copied."""
        count, m = indices.shape
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse")  # torch calls them a beta feature
            pattern = torch.sparse_csr_tensor(
                torch.arange(0, count * m + 1, m),
                indices.flatten(),
                torch.zeros(count * m),
                size=(count, len(self._bank)),
                check_invariants=False,
            )
            products = torch.sparse.sampled_addmm(pattern, queries, self._bank.T, beta=0.0).values()
        return products.view(count, m) * self._inverse[indices]


def _best(scores: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """The m highest (N, m) of scores (N, M) in float32, in no order, and their columns; all where M <= m."""
    width = scores.shape[1]
    if width <= m:
        return scores.float(), torch.arange(width).expand(len(scores), -1)
    length = width // BLOCK
    if length < 2 * m:
        values = scores.float()
        columns = _highest(values, m)
        return values.gather(1, columns), columns
    # Block b is the columns b, b + length, …: a maximum over them is taken for many blocks at once.
    maxima = scores[:, : BLOCK * length].view(len(scores), BLOCK, length).amax(1).float()
    blocks = _highest(maxima, m)
    columns = (blocks[:, None, :] + length * torch.arange(BLOCK)[:, None]).flatten(1)
    rest = torch.arange(BLOCK * length, width).expand(len(scores), -1)
    columns = torch.cat([columns, rest], dim=1)
    values = scores.gather(1, columns).float()
    kept = _highest(values, m)
    return values.gather(1, kept), columns.gather(1, kept)


def _highest(values: Tensor, m: int) -> Tensor:
    """Columns (N, m) of the m highest of each row, in no order."""
    width = values.shape[1]
    return torch.from_numpy(np.argpartition(values.numpy(), width - m, axis=1)[:, width - m :])


def _merge(
    values: Tensor, indices: Tensor, found: list[tuple[Tensor, Tensor]], start: int, m: int
) -> tuple[Tensor, Tensor]:
    """The m best of those so far and of those found in the part of the bank that begins at `start`."""
    values = torch.cat([values, torch.cat([f[0] for f in found])], dim=1)
    indices = torch.cat([indices, torch.cat([f[1] for f in found]) + start], dim=1)
    if values.shape[1] <= m:
        return values, indices
    kept = _highest(values, m)
    return values.gather(1, kept), indices.gather(1, kept)


def _sorted(values: Tensor, indices: Tensor, k: int) -> tuple[Tensor, Tensor]:
    values, order = values.topk(k, dim=1)
    return values, indices.gather(1, order)


def _narrow_pays(queries: Tensor, bank: Tensor, k: int, chunk: int) -> bool:
    """Whether a small search is faster by way of bfloat16."""
    few, part = queries[:TRIAL_QUERIES], bank[:TRIAL_BANK]
    few, part = few.contiguous(), part.contiguous()
    k = min(k, len(part) // 8)
    ready = _Candidates(part, spare(k), chunk, len(part))  # made once for all queries, not for each trial
    ways = {
        "float32": lambda: in_float32(few, part, k, chunk, len(part)),
        "bfloat16": lambda: ready.nearest(few, k),
    }
    return run_trial(ways).choice == "bfloat16"
