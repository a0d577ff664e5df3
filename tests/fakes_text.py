"""Tiny tokenizers made in memory, chat templates in the manner of real models, and the structs around them."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from contracts.engine import EngineInfo
from contracts.generation import FinishReason, GenerationDelta, GenerationRequest, TokenLogprob
from contracts.sampling import SamplingParams
from service.chat_template import ChatTemplate
from service.token_bytes import byte_level_table
from service.tokenizer import TextTokenizer
from service.translate import ServedModel, TextRequest

SPECIAL_TOKENS = (
    "<|begin_of_text|>",
    "<|im_start|>",
    "<|im_end|>",
    "<bos>",
    "<start_of_turn>",
    "<end_of_turn>",
    "[INST]",
)
SPECIAL_NAMES = {"bos_token": "<|begin_of_text|>", "eos_token": "<|im_end|>"}

UNKNOWN = "<unk>"

CHATML_TEMPLATE = """\
{%- if messages[0]['role'] != 'system' %}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

LLAMA3_TEMPLATE = """\
{{- bos_token }}
{%- if tools is not none %}{{ tools | tojson(indent=2) }}{% endif %}
{%- for message in messages %}
    {% set header = '<|im_start|>' + message.role + '\\n\\n' -%}
    {{- header + message.content | trim + '<|im_end|>' }}
{%- endfor %}
{% if add_generation_prompt %}
{{- '<|im_start|>assistant\\n\\n' -}}
{% endif %}
"""

GEMMA_TEMPLATE = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}\
{% for message in messages %}\
{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}\
{% generation %}\
{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endgeneration %}\
{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}"""

MISTRAL_TEMPLATE = """\
{%- set ns = namespace(count=0) %}
{%- for message in messages %}
    {%- if message["role"] == "system" %}{% continue %}{% endif %}
    {%- if (message["role"] == "user") != (ns.count % 2 == 0) %}
        {{- raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif %}
    {%- set ns.count = ns.count + 1 %}
    {%- if message["role"] == "user" %}
        {{- "[INST] " + message["content"] + " [/INST]" }}
    {%- else %}
        {{- message["content"] | tojson + eos_token }}
    {%- endif %}
{%- endfor %}
"""


def byte_level_json(add_bos: bool = False) -> str:
    """A byte-level BPE with all 256 bytes, a few merges and control tokens."""
    vocab = {character: number for number, character in enumerate(sorted(byte_level_table()))}
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "w"), ("Ġw", "o"), ("ð", "Ł"), ("Ã", "©")]
    for left, right in merges:
        vocab[left + right] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.add_tokens([AddedToken("<think>"), AddedToken("  ", normalized=False)])
    if add_bos:
        bos = SPECIAL_TOKENS[0]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return tokenizer.to_str()


def byte_fallback_json() -> str:
    """A BPE in the manner of SentencePiece: `▁` for spaces, `<0xE2>` for bytes, leading space stripped."""
    pieces = [UNKNOWN, "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "h", "i", "é", "▁h", "▁hi"]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    merges = [("▁", "h"), ("▁h", "i")]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token=UNKNOWN, fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([UNKNOWN, "<s>", "</s>"])
    return tokenizer.to_str()


def word_piece_json() -> str:
    """A tokenizer whose decoder is of a kind that Quire does not take apart."""
    pieces = ["[UNK]", "hello", "world", "##ly", ","]
    tokenizer = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token=pieces[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer.to_str()


def byte_level_tokenizer(add_bos: bool = False) -> TextTokenizer:
    return TextTokenizer(byte_level_json(add_bos), SPECIAL_NAMES)


def served_model(
    template: str | None = CHATML_TEMPLATE,
    *,
    tokenizer: TextTokenizer | None = None,
    max_model_len: int = 256,
    num_blocks: int = 64,
    num_padding_rows: int = 10,
) -> ServedModel:
    """A model named `tiny`, alias `org/tiny`; its output matrix has a few rows more than the tokenizer has tokens."""
    tokenizer = tokenizer or byte_level_tokenizer()
    info = EngineInfo(
        model_name="tiny",
        model_path="tiny",
        architecture="LlamaForCausalLM",
        device="cpu",
        dtype="float32",
        vocab_size=tokenizer.vocab_size + num_padding_rows,
        max_model_len=max_model_len,
        eos_token_ids=[1],
        block_size=16,
        num_blocks=num_blocks,
        max_num_seqs=8,
        max_num_batched_tokens=256,
        num_parameters=1,
        fingerprint="fp_test",
    )
    compiled = None
    if template is not None:
        compiled = ChatTemplate(template, tokenizer.special_tokens, tokenizer.control_tokens)
    return ServedModel(info=info, tokenizer=tokenizer, template=compiled, names=("tiny", "org/tiny"))


def text_request(
    stop: Sequence[str] = (), *, wants_logprobs: bool = False, num_samples: int = 1, continues_prompt: bool = False
) -> TextRequest:
    generation = GenerationRequest(
        request_id="r", prompt_token_ids=[1], sampling=SamplingParams(), num_samples=num_samples
    )
    return TextRequest(
        generation=generation,
        stop_strings=tuple(stop),
        wants_logprobs=wants_logprobs,
        num_prompt_tokens=1,
        continues_prompt=continues_prompt,
    )


def delta(
    token_ids: Sequence[int],
    finish_reason: FinishReason | None = None,
    *,
    ended_by_token: bool = False,
    logprobs: list[TokenLogprob] | None = None,
) -> GenerationDelta:
    return GenerationDelta(
        request_id="r",
        sample_index=0,
        token_ids=list(token_ids),
        finish_reason=finish_reason,
        ended_by_token=ended_by_token,
        logprobs=logprobs,
    )


def streamed(tokenizer: TextTokenizer, ids: list[int]) -> str:
    stream = tokenizer.stream()
    return "".join(map(stream.push, ids)) + stream.flush()
