"""Every attention backend equals a loop over positions, for every variant and after any history in the cache."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch

from batching.attention import select_backend
from batching.attention.cpu_backend import CpuBackend
from batching.attention.paged_layer import AttentionBackend
from batching.attention.reference import AttentionVariant, attend_sequence, causal_mask, gather
from batching.attention.torch_backend import TorchBackend
from batching.kv_cache import LayerCache, LayerShape
from batching.step import ScheduledSequence, SchedulerOutput
from batching.step_input import StepInput
from contracts.sampling import SamplingParams

BACKENDS: dict[str, Callable[[], AttentionBackend]] = {
    "torch": lambda: TorchBackend(torch.device("cpu")),
    "cpu": CpuBackend,
}
"""One line for each backend."""

NUM_Q_HEADS = 6
NUM_BLOCKS = 60
DIMS: dict[str, tuple[int, int]] = {"ragged": (12, 8), "whole vectors": (32, 16), "many vectors": (64, 80)}
"""Of keys and of values: kernels take whole vectors of 8 or 16 numbers, and the rest one by one."""

VARIANTS: dict[str, AttentionVariant] = {
    "plain": AttentionVariant(scaling=0.4),
    "window": AttentionVariant(scaling=0.4, sliding_window=5),
    "window of one": AttentionVariant(scaling=0.4, sliding_window=1),
    "wide window": AttentionVariant(scaling=0.4, sliding_window=500),
    "softcap": AttentionVariant(scaling=0.4, softcap=1.5),
    "window and softcap": AttentionVariant(scaling=0.4, sliding_window=5, softcap=1.5),
    "sinks": AttentionVariant(scaling=0.4, sinks=torch.linspace(-2.0, 3.0, NUM_Q_HEADS)),
    "window and sinks": AttentionVariant(scaling=0.4, sliding_window=5, sinks=torch.linspace(-2.0, 3.0, NUM_Q_HEADS)),
}

ROWS: dict[str, list[tuple[int, int]]] = {
    "first token": [(0, 1)],
    "one decode": [(16, 1)],
    "decodes at block edges": [(3, 1), (4, 1), (5, 1), (15, 1), (31, 1)],
    "whole prompt": [(0, 19)],
    "chunk after a prefix": [(13, 6)],
    "long chunk": [(3, 45)],
    "mixed": [(7, 1), (0, 5), (22, 1), (9, 11), (0, 2)],
}
"""(tokens in the cache, tokens computed now) of each sequence of a step."""


def naive_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, variant: AttentionVariant) -> torch.Tensor:
    """One position, one head at a time in float64. q, k, v `[tokens, heads, dim]` of one whole sequence."""
    num_tokens, num_heads, _ = q.shape
    group = num_heads // k.shape[1]
    out = torch.zeros(num_tokens, num_heads, v.shape[2], dtype=torch.float64)
    for position in range(num_tokens):
        first = max(0, position + 1 - (variant.sliding_window or position + 1))
        for head in range(num_heads):
            keys = k[first : position + 1, head // group].double()
            scores = keys @ q[position, head].double() * variant.scaling
            if variant.softcap is not None:
                scores = torch.tanh(scores / variant.softcap) * variant.softcap
            weights = scores.exp()
            total = weights.sum()
            if variant.sinks is not None:
                total = total + variant.sinks[head].double().exp()
            out[position, head] = weights @ v[first : position + 1, head // group].double() / total
    return out


class PagedCase:
    """Sequences of random q, k and v, their block tables in a shuffled cache full of garbage, and the right answer."""

    def __init__(
        self,
        rows: list[tuple[int, int]],
        num_kv_heads: int,
        block_size: int,
        dtype: torch.dtype,
        dims: tuple[int, int] = DIMS["ragged"],
    ) -> None:
        self.k_dim, self.v_dim = dims
        self.random = torch.Generator().manual_seed(7)
        shape = LayerShape(num_kv_heads=num_kv_heads, k_dim=self.k_dim, v_dim=self.v_dim)
        self.cache = LayerCache(shape, NUM_BLOCKS, block_size, torch.empty(0, dtype=dtype))
        self.cache.k.normal_(std=50.0, generator=self.random)
        self.cache.v.normal_(std=50.0, generator=self.random)
        self.plan = make_plan(rows, block_size, torch.randperm(NUM_BLOCKS, generator=self.random).tolist())
        self.step = StepInput(self.plan, block_size)
        self.q, self.k, self.v = [], [], []  # type: ignore[var-annotated]
        for start, num_tokens in packed_order(rows):
            for tensors, num_heads, dim in self._parts(num_kv_heads):
                tensors.append(torch.randn(start + num_tokens, num_heads, dim, generator=self.random).to(dtype))
        self._write_prefixes(packed_order(rows), block_size)
        self.new = [num_tokens for _, num_tokens in packed_order(rows)]

    def _parts(self, num_kv_heads: int) -> list[tuple[list[torch.Tensor], int, int]]:
        return [
            (self.q, NUM_Q_HEADS, self.k_dim),
            (self.k, num_kv_heads, self.k_dim),
            (self.v, num_kv_heads, self.v_dim),
        ]

    def _write_prefixes(self, rows: list[tuple[int, int]], block_size: int) -> None:
        tables = {row.start * 1000 + len(row.token_ids): row.block_ids for row in self.plan.sequences}
        for (start, num_tokens), k, v in zip(rows, self.k, self.v, strict=True):
            table = tables[start * 1000 + num_tokens]
            for position in range(start):
                self.cache.k[table[position // block_size], :, position % block_size] = k[position]
                self.cache.v[table[position // block_size], :, position % block_size] = v[position]

    def packed(self, tensors: list[torch.Tensor]) -> torch.Tensor:
        """The tokens computed now, `[heads, T, dim]`."""
        return torch.cat([tensor[-new:] for tensor, new in zip(tensors, self.new, strict=True)]).transpose(0, 1)

    def expected(self, variant: AttentionVariant) -> torch.Tensor:
        """`[T, heads, v_dim]`."""
        outs = [naive_attention(q, k, v, variant) for q, k, v in zip(self.q, self.k, self.v, strict=True)]
        return torch.cat([out[-new:] for out, new in zip(outs, self.new, strict=True)])


def packed_order(rows: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Single tokens first, as StepInput packs them."""
    return sorted(rows, key=lambda row: row[1] > 1)


def make_plan(rows: list[tuple[int, int]], block_size: int, free: list[int]) -> SchedulerOutput:
    sequences = [
        ScheduledSequence(
            seq_id=index,
            token_ids=[0] * num_tokens,
            start=start,
            # One block more than needed, as a table may have.
            block_ids=[free.pop() for _ in range(-(-(start + num_tokens) // block_size) + 1)],
            is_sampling=True,
            sampling=SamplingParams(),
            seed=0,
            num_output_tokens=0,
        )
        for index, (start, num_tokens) in enumerate(rows)
    ]
    return SchedulerOutput(step_id=0, sequences=sequences, num_tokens=sum(new for _, new in rows), num_decodes=0)


def run_backend(backend: AttentionBackend, case: PagedCase, variant: AttentionVariant) -> torch.Tensor:
    backend.begin(case.step)
    return backend.forward(case.cache, case.packed(case.q), case.packed(case.k), case.packed(case.v), variant)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("backend", "dims"), [("torch", "ragged"), ("cpu", "ragged"), ("cpu", "whole vectors"), ("cpu", "many vectors")]
)
def test_backend_equals_the_loop_over_positions(backend: str, dims: str, variant: str, rows: str) -> None:
    case = PagedCase(ROWS[rows], num_kv_heads=2, block_size=4, dtype=torch.float32, dims=DIMS[dims])
    actual = run_backend(BACKENDS[backend](), case, VARIANTS[variant])
    torch.testing.assert_close(actual.double(), case.expected(VARIANTS[variant]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_kv_heads", [1, 2, 3, 6])
@pytest.mark.parametrize("block_size", [1, 4, 16, 18])
@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_any_grouping_and_block_size_gives_the_same(
    backend: str, dims: str, block_size: int, num_kv_heads: int
) -> None:
    case = PagedCase([(2, 1), (5, 1), (0, 9), (1, 3)], num_kv_heads, block_size, torch.float32, DIMS[dims])
    variant = VARIANTS["window and sinks"]
    actual = run_backend(BACKENDS[backend](), case, variant)
    torch.testing.assert_close(actual.double(), case.expected(variant), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dims", ["ragged", "whole vectors"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_bfloat16_is_near_the_loop_over_positions(backend: str, dims: str, variant: str) -> None:
    case = PagedCase(ROWS["mixed"], num_kv_heads=2, block_size=4, dtype=torch.bfloat16, dims=DIMS[dims])
    actual = run_backend(BACKENDS[backend](), case, VARIANTS[variant])
    assert actual.dtype == torch.bfloat16
    torch.testing.assert_close(actual.double(), case.expected(VARIANTS[variant]), rtol=2e-2, atol=3e-2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_new_keys_and_values_go_to_their_slots_and_nowhere_else(backend: str) -> None:
    case = PagedCase(ROWS["mixed"], num_kv_heads=2, block_size=4, dtype=torch.float32)
    before = case.cache.k.clone()
    run_backend(BACKENDS[backend](), case, VARIANTS["plain"])
    blocks, offsets = torch.from_numpy(case.step.block_of).long(), torch.from_numpy(case.step.offset_of).long()
    assert torch.equal(case.cache.k[blocks, :, offsets], case.packed(case.k).transpose(0, 1))
    before[blocks, :, offsets] = case.cache.k[blocks, :, offsets]
    assert torch.equal(case.cache.k, before)


@pytest.mark.parametrize("rows", ["one decode", "whole prompt", "chunk after a prefix", "mixed"])
@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_in_unread_slots_reaches_nobody(backend: str, dims: str, rows: str) -> None:
    case = PagedCase(ROWS[rows], num_kv_heads=2, block_size=4, dtype=torch.float32, dims=DIMS[dims])
    expected = run_backend(BACKENDS[backend](), case, VARIANTS["plain"])
    case.cache.k[case.cache.k.abs() > 10] = float("nan")  # the garbage, wide of what the sequences hold
    case.cache.v[case.cache.v.abs() > 10] = float("nan")
    actual = run_backend(BACKENDS[backend](), case, VARIANTS["plain"])
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_in_one_sequence_reaches_no_other(backend: str, dims: str) -> None:
    case = PagedCase(ROWS["mixed"], num_kv_heads=2, block_size=4, dtype=torch.float32, dims=DIMS[dims])
    expected = run_backend(BACKENDS[backend](), case, VARIANTS["plain"])
    case.cache.k[case.plan.sequences[2].block_ids] = float("nan")  # the second single-token row
    actual = run_backend(BACKENDS[backend](), case, VARIANTS["plain"])
    assert not actual[1].isfinite().any()
    keep = [0, *range(2, case.step.num_tokens)]
    torch.testing.assert_close(actual[keep], expected[keep])


@pytest.mark.parametrize("variant", VARIANTS)
def test_reference_equals_the_loop_for_one_sequence(variant: str) -> None:
    case = PagedCase([(0, 11)], num_kv_heads=2, block_size=4, dtype=torch.float32)
    run_backend(TorchBackend(torch.device("cpu")), case, VARIANTS[variant])
    block_ids = torch.tensor(case.plan.sequences[0].block_ids)
    actual = attend_sequence(case.packed(case.q), case.cache, block_ids, 11, VARIANTS[variant])
    torch.testing.assert_close(actual.double(), case.expected(VARIANTS[variant]), rtol=1e-5, atol=1e-5)


def test_gather_follows_the_block_table() -> None:
    cache = torch.arange(3 * 2 * 2, dtype=torch.float32).view(3, 1, 2, 2)
    assert gather(cache, torch.tensor([2, 0]), 3).tolist() == [[[8, 9], [10, 11], [0, 1]]]


def test_causal_mask_ends_at_each_query_and_begins_with_its_window() -> None:
    mask = causal_mask(2, 4, 2, torch.device("cpu"))
    assert mask.int().tolist() == [[0, 1, 1, 0], [0, 0, 1, 1]]


def test_a_cpu_gets_the_backend_of_its_kernels() -> None:
    assert isinstance(select_backend(torch.device("cpu")), CpuBackend)


def test_cuda_gets_torch_where_there_is_no_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "batching.attention.triton_backend", None)
    assert isinstance(select_backend(torch.device("cuda")), TorchBackend)
