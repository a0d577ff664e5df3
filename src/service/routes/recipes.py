"""How a request's reply is made, written down when the request is taken and read by whoever follows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from contracts.errors import NotResumable
from contracts.generation import GenerationRequest
from contracts.records import RequestRecord
from contracts.reply_recipe import ReplyKind, ReplyRecipe
from contracts.sampling import SamplingParams
from service.routes.generation import ReplyHead
from service.translate import TextRequest

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(ReplyRecipe)


def with_recipes(
    requests: Sequence[TextRequest], kind: ReplyKind, head: ReplyHead, *, has_usage: bool
) -> list[TextRequest]:
    """The same requests, each with the recipe of its reply for the engine to keep."""
    replace = msgspec.structs.replace
    return [
        replace(one, generation=replace(one.generation, reply_recipe=_ENCODER.encode(recipe)))
        for one in requests
        for recipe in [_recipe(one, kind, head, num_prompts=len(requests), has_usage=has_usage)]
    ]


def _recipe(
    request: TextRequest, kind: ReplyKind, head: ReplyHead, *, num_prompts: int, has_usage: bool
) -> ReplyRecipe:
    return ReplyRecipe(
        kind=kind,
        response_id=head.id,
        created=head.created,
        model=head.model,
        system_fingerprint=head.system_fingerprint,
        num_prompts=num_prompts,
        num_prompt_tokens=request.num_prompt_tokens,
        stop_strings=request.stop_strings,
        continues_prompt=request.continues_prompt,
        wants_logprobs=request.wants_logprobs,
        has_usage=has_usage,
        has_echo=request.echo_text is not None,
    )


def read_recipe(record: RequestRecord) -> ReplyRecipe:
    """The recipe of a request whose events can be made again; raises NotResumable."""
    if not record.reply_recipe:
        raise NotResumable("This request came without HTTP: there is no stream of events that could be resumed.")
    recipe = _DECODER.decode(record.reply_recipe)
    if recipe.num_prompts > 1:
        raise NotResumable(
            f"This request has {recipe.num_prompts} prompts, whose events have no common order; send one prompt in a "
            "request that is to be resumed."
        )
    if recipe.has_echo:
        raise NotResumable("This request asked for 'echo', and prompts are not kept; resumed it would lack the prompt.")
    return recipe


def followed_request(record: RequestRecord, recipe: ReplyRecipe) -> TextRequest:
    """What turns the request's tokens into text again."""
    generation = GenerationRequest(
        request_id=record.request_id, prompt_token_ids=[], sampling=SamplingParams(), num_samples=record.num_samples
    )
    return TextRequest(
        generation=generation,
        stop_strings=recipe.stop_strings,
        wants_logprobs=recipe.wants_logprobs,
        num_prompt_tokens=recipe.num_prompt_tokens,
        continues_prompt=recipe.continues_prompt,
    )


def head_of(recipe: ReplyRecipe, record: RequestRecord) -> ReplyHead:
    """What every chunk of the reply repeats."""
    return ReplyHead(
        id=recipe.response_id,
        created=recipe.created,
        model=recipe.model,
        system_fingerprint=recipe.system_fingerprint,
        trace_id=record.trace_id or msgspec.UNSET,
    )
