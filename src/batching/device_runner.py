"""Executes plans over permanent device rows, up to two at a time: a step is launched before the last one is read.

What a sequence is stands on the device (batching.row_tables); the host sends what changed (batching.row_book). The
sampled tokens stay there as the next step's input, so nothing waits for the host: `launch` only enqueues, `collect`
reads. All work is ordered in one stream. Owns the device's tensors but the model's; knows nothing of queues.
"""

from __future__ import annotations

import time
from collections import deque
from functools import partial

import msgspec
import torch

from batching.attention_bounds import AttentionBounds, bounds_of
from batching.device_forward import DeviceForward
from batching.device_ops import DeviceOps, DeviceStep
from batching.device_transfer import Results, Upload
from batching.kernels.sampler_buffers import BROKEN_LOGITS, CHOSEN, SamplerBuffers
from batching.kernels.step_input_torch import StepInputs
from batching.kv_cache import KVCachePool
from batching.row_book import RowBook, RowPlan
from batching.row_tables import RowShape, RowTables
from batching.sampler import EDITED_ERROR, RAW_ERROR
from batching.step import SampledToken, ScheduledSequence, SchedulerOutput, StepOutput
from batching.step_buckets import Bucket, StepSize, choose_bucket, padded_decodes
from batching.step_graphs import CudaCapture, StepGraphs
from contracts.generation import TokenLogprob

MAX_IN_FLIGHT = 2
MIN_ROWS = 32
"""Rows of a plan that there is room for, also where fewer requests are served: warm-up has more."""
MAX_EDITS = 1100
"""Edited token ids of a request: 1,024 of logit_bias, 64 that stop, and the model's own endings."""


MAX_FRAMES = 64
"""Sizes of steps whose tensors are kept, more than step_buckets has: an upper bound of memory."""


class DeviceLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What the runner has to have room for."""

    max_num_seqs: int
    max_model_len: int
    vocab_size: int
    eos_token_ids: frozenset[int]

    @property
    def max_rows(self) -> int:
        return padded_decodes(max(self.max_num_seqs, MIN_ROWS))

    @property
    def max_len(self) -> int:
        """One more than is ever planned: a row that runs ahead of its end writes there."""
        return self.max_model_len + 1

    def num_bytes(self, block_size: int) -> int:
        """Of the tensors that a runner with these limits keeps on the device, but for its graphs."""
        shape = self.row_shape(block_size)
        block_tables = MAX_FRAMES * self.max_rows * shape.max_blocks
        return 4 * (shape.num_words + self.max_rows * self.vocab_size + block_tables)

    def row_shape(self, block_size: int) -> RowShape:
        """Twice the rows of a plan, so that none of the last two plans is given away."""
        return RowShape(
            num_rows=2 * self.max_rows,
            max_len=self.max_len,
            max_blocks=-(-self.max_len // block_size),
            max_edits=MAX_EDITS,
        )


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """The tensors of one bucket, the same in all its steps."""

    inputs: StepInputs
    plan: torch.Tensor
    block_tables: torch.Tensor


class InFlight(msgspec.Struct, frozen=True, kw_only=True):
    """A step that was launched and not collected."""

    plan: SchedulerOutput
    order: list[int] | None
    results: Results
    launched_s: float


class DeviceRunner:
    """A pipelined runner. Owner: the runner thread, from construction to the end."""

    def __init__(self, forward: DeviceForward, pool: KVCachePool, ops: DeviceOps, limits: DeviceLimits) -> None:
        """The pool must have a spare block, where tokens that pad a step are written; device is that of the pool."""
        self._forward, self._pool, self._ops, self._limits = forward, pool, ops, limits
        device = pool.layers[0].k.device
        shape = limits.row_shape(pool.block_size)
        self._device = device
        self._tables = RowTables(shape, device)
        self._book = RowBook(shape, pool.block_size, limits.eos_token_ids)
        self._buffers = SamplerBuffers(limits.max_rows, limits.vocab_size, device)
        self._plan = torch.zeros(2 * limits.max_rows, dtype=torch.int32, device=device)
        self._uploads = [Upload(limits.max_rows, device) for _ in range(MAX_IN_FLIGHT)]
        self._results = [Results(limits.max_rows, device) for _ in range(MAX_IN_FLIGHT)]
        self._frames: dict[tuple[int, int], Frame] = {}
        self.graphs = StepGraphs(CudaCapture() if ops.is_capturable and device.type == "cuda" else None)
        self._in_flight: deque[InFlight] = deque()
        self._num_launched = 0
        self._collected_s = 0.0

    def execute(self, plan: SchedulerOutput) -> StepOutput:
        """Launch a step and wait for it; RuntimeError while another one is in flight."""
        if self._in_flight:
            raise RuntimeError("execute was called with a step in flight; collect it first.")
        self.launch(plan)
        return self.collect()

    @torch.inference_mode()
    def launch(self, plan: SchedulerOutput) -> None:
        """Begin a step; does not wait for it. If it raises, nothing of the plan has happened to the rows."""
        if len(self._in_flight) >= MAX_IN_FLIGHT:
            raise RuntimeError(f"{MAX_IN_FLIGHT} steps are in flight; collect one first.")
        if len(plan.sequences) > self._limits.max_rows:
            raise ValueError(f"a plan of {len(plan.sequences)} sequences, at most {self._limits.max_rows} fit.")
        launched_s = time.perf_counter()
        row_plan = self._book.begin(plan)
        results = self._results[self._num_launched % MAX_IN_FLIGHT]
        try:
            self._start(plan, row_plan, results)
        except BaseException:
            self._book.undo()
            # The next attempt writes to the same pinned buffer, which the device may still be reading.
            if self._device.type == "cuda":
                torch.cuda.current_stream(self._device).synchronize()
            raise
        self._book.keep()
        self._num_launched += 1
        self._in_flight.append(InFlight(plan=plan, order=row_plan.order, results=results, launched_s=launched_s))

    def collect(self) -> StepOutput:
        """Wait for the oldest launched step and give its tokens; RuntimeError where none is in flight."""
        if not self._in_flight:
            raise RuntimeError("collect was called with no step in flight.")
        step = self._in_flight.popleft()
        sampled = _outputs(step)
        now_s = time.perf_counter()
        started_s = max(step.launched_s, self._collected_s)
        self._collected_s = now_s
        return StepOutput(step_id=step.plan.step_id, sampled=sampled, duration_s=now_s - started_s)

    def _start(self, plan: SchedulerOutput, row_plan: RowPlan, results: Results) -> None:
        if plan.blocks_to_clear:
            self._pool.clear(plan.blocks_to_clear)
        bucket, bounds = self._bucket(plan, row_plan)
        frame = self._frame(bucket)
        upload = self._uploads[self._num_launched % MAX_IN_FLIGHT]
        differences = upload.send_differences(row_plan)
        if differences is not None:
            self._ops.apply_differences(self._tables, differences)
        upload.send_plan(row_plan, frame.plan)
        self.graphs.run(bucket, partial(self._compute, frame, bounds))
        has_logprobs = any(sequence.sampling.num_logprobs is not None for sequence in plan.sequences)
        results.receive(self._buffers, frame.inputs.num_sampling, has_logprobs=has_logprobs)

    def _compute(self, frame: Frame, bounds: AttentionBounds) -> None:
        """The part of a step that a graph holds. The rows change in the last line alone."""
        inputs, num_rows = frame.inputs, frame.plan.shape[1]
        self._ops.build_inputs(self._tables, frame.plan, inputs)
        torch.index_select(self._tables.blocks, 0, frame.plan[0], out=frame.block_tables)
        step = DeviceStep(inputs=inputs, block_tables=frame.block_tables, bounds=bounds)
        self._ops.sample(self._forward(step), inputs, self._tables, self._buffers)
        self._ops.commit_tokens(self._tables, frame.plan, inputs, self._buffers.token_ids[:num_rows])

    def _bucket(self, plan: SchedulerOutput, row_plan: RowPlan) -> tuple[Bucket, AttentionBounds]:
        max_len = self._limits.max_len
        bounds = bounds_of(row_plan)
        size = StepSize(
            num_tokens=plan.num_tokens,
            num_rows=len(row_plan.rows),
            max_context_len=bounds.max_context_len,
            num_parts=bounds.num_parts,
        )
        bucket = choose_bucket(size, self._limits.max_rows, max_len)
        return bucket, bucket.bounds(max_len) if bucket.is_captured else bounds

    def _frame(self, bucket: Bucket) -> Frame:
        """The tensors of a step. Captured buckets of one size share theirs, whatever their bounds."""
        if not bucket.is_captured:
            return self._new_frame(bucket)
        key = bucket.num_tokens, bucket.num_rows
        if key not in self._frames:
            self._frames[key] = self._new_frame(bucket)
        return self._frames[key]

    def _new_frame(self, bucket: Bucket) -> Frame:
        rows, max_blocks = bucket.num_rows, self._tables.shape.max_blocks
        inputs = StepInputs(
            bucket.num_tokens,
            rows,
            block_size=self._pool.block_size,
            trash_block=self._pool.trash_block,
            device=self._device,
        )
        return Frame(
            inputs=inputs,
            plan=self._plan[: 2 * rows].view(2, rows),
            block_tables=torch.zeros(rows, max_blocks, dtype=torch.int32, device=self._device),
        )


def _outputs(step: InFlight) -> list[SampledToken | None]:
    """A token or an error for each sequence of the plan, None for those that are sound and do not sample.

    RuntimeError where the device has sampled other rows than the plan says: its tokens belong to nobody then.
    """
    sequences = step.plan.sequences
    order = range(len(sequences)) if step.order is None else step.order
    sampling = [index for index in order if sequences[index].is_sampling]
    checked = [index for index in order if not sequences[index].is_sampling]
    token_ids, status, num_sampling = step.results.wait()
    if num_sampling != len(sampling):
        raise RuntimeError(f"the device sampled {num_sampling} rows, the plan has {len(sampling)} that do.")
    sampled: list[SampledToken | None] = [None] * len(sequences)
    for place, index in enumerate(sampling):
        num_top = sequences[index].sampling.num_logprobs
        if status[place] != CHOSEN:
            sampled[index] = _error(status[place], sequences[index])
        elif num_top is None:
            sampled[index] = SampledToken(token_id=token_ids[place])
        else:
            logprob, top = step.results.logprobs(place, num_top)
            sampled[index] = SampledToken(token_id=token_ids[place], logprob=TokenLogprob(logprob=logprob, top=top))
    for place, index in enumerate(checked, len(sampling)):
        if status[place] != CHOSEN:
            sampled[index] = _error(status[place], sequences[index])
    return sampled


def _error(status: int, sequence: ScheduledSequence) -> SampledToken:
    text = RAW_ERROR if status == BROKEN_LOGITS else EDITED_ERROR
    return SampledToken(token_id=0, error=text.format(position=sequence.context_len))
