"""Every setting, declared once: flag, environment variable, default and help derive from these fields.

The flag of `max_num_seqs` is `--max-num-seqs`, its variable `LLM_MAX_NUM_SEQS`; a `.env` file may hold the variables.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args, get_type_hints

import msgspec
from msgspec import Meta

EMBEDDED_MODEL = "quire-pico"

Port = Annotated[int, Meta(ge=0, le=65535)]
Positive = Annotated[int, Meta(ge=1)]
NonNegative = Annotated[int, Meta(ge=0)]
PositiveSeconds = Annotated[float, Meta(gt=0)]
Seconds = Annotated[float, Meta(ge=0)]


def _help(text: str) -> Meta:
    return Meta(description=text)


class _Group(msgspec.Struct, frozen=True, kw_only=True):
    """A group of settings whose secrets are replaced by *** wherever the group is shown."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        hints = get_type_hints(type(self), include_extras=True)
        values = [(name, getattr(self, name)) for name in self.__struct_fields__]
        return [(name, "***" if value is not None and _is_secret(hints[name]) else value) for name, value in values]

    def without_secrets(self) -> Self:
        """The same for a process that has no use of them."""
        hints = get_type_hints(type(self), include_extras=True)
        return msgspec.structs.replace(
            self, **{name: None for name in self.__struct_fields__ if _is_secret(hints[name])}
        )


def _is_secret(annotation: object) -> bool:
    return any((meta.extra or {}).get("is_secret") for meta in get_args(annotation) if isinstance(meta, Meta))


class EngineSettings(_Group, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the engine loads and how much it may hold."""

    model: Annotated[str, _help("Embedded model, local directory or hub name of a transformers checkpoint.")] = (
        EMBEDDED_MODEL
    )
    served_model_name: Annotated[str | None, _help("Name in the API; default: the model as given.")] = None
    dtype: Annotated[Literal["auto", "float32", "bfloat16"], _help("Type of weights and computation.")] = "auto"
    kv_dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "fp8"],
        _help("Type of cached keys and values; fp8 (float8_e4m3fn) halves them on a GPU with Triton."),
    ] = "auto"
    device: Annotated[Literal["auto", "cpu", "cuda"], _help("Where the model runs; auto takes CUDA if present.")] = (
        "auto"
    )
    max_model_len: Annotated[Positive | None, _help("Longest prompt plus output in tokens; default: the model's.")] = (
        None
    )
    max_num_seqs: Annotated[Positive, _help("Most sequences in one batch.")] = 128
    max_num_batched_tokens: Annotated[Positive, _help("Token budget of one step.")] = 1024
    max_prefill_tokens_while_decoding: Annotated[
        Positive, _help("Most prompt tokens in a step that also decodes, so that streams keep flowing.")
    ] = 512
    kv_cache_memory: Annotated[
        str | None,
        Meta(description="KV cache size, such as 512MiB or 4GiB; default: from free memory.", extra={"unit": "bytes"}),
    ] = None
    gpu_memory_utilization: Annotated[
        float,
        Meta(gt=0, le=1, description="Fraction of a GPU's memory that may be filled; the KV cache takes what is left."),
    ] = 0.9
    block_size: Annotated[Positive, _help("Tokens in one block of the KV cache.")] = 16
    enable_prefix_caching: Annotated[bool, _help("Reuse the KV blocks of equal prompt beginnings.")] = True
    num_speculative_tokens: Annotated[
        int,
        Meta(
            ge=0,
            le=16,
            description="Most draft tokens of a request in one step, taken from where its last three tokens stood "
            "before, while few requests run; its text stays the same. 0: none.",
        ),
    ] = 0
    max_queued_requests: Annotated[Positive, _help("Waiting requests beyond which new ones get 503.")] = 1024
    max_queued_tokens: Annotated[Positive, _help("Waiting prompt tokens beyond which new requests get 503.")] = (
        1_000_000
    )
    priority_ageing_s: Annotated[PositiveSeconds, _help("Seconds of waiting worth one level of priority.")] = 10.0
    num_threads: Annotated[
        NonNegative,
        _help("CPU threads of the model; 0 takes the cores that it may use, one less for a tiny model."),
    ] = 0
    step_timeout_s: Annotated[
        PositiveSeconds,
        _help("Seconds, beyond 20 times the longest recent step, after which a step counts as hung."),
    ] = 4.0
    seed: Annotated[int | None, _help("Seed for requests that give none; default: random for each request.")] = None
    model_cache_dir: Annotated[
        str | None, _help("Directory for what is fetched from the hub; default: the hub library's own (HF_HUB_CACHE).")
    ] = None
    offline: Annotated[bool, _help("Never ask the hub: use local files only (HF_HUB_OFFLINE=1 does the same).")] = False


class CatalogSettings(_Group, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which models beside MODEL may be served, and how many of them may be loaded at once."""

    models: Annotated[
        str, _help("More models, with commas between them: alias=directory, alias=hub/name, or a ready entry's name.")
    ] = ""
    models_file: Annotated[str | None, _help("TOML file that declares more models, one [[models]] table for each.")] = (
        None
    )
    default_model: Annotated[str | None, _help("Declared model that serves requests without one; default: MODEL.")] = (
        None
    )
    max_loaded_models: Annotated[
        Positive | None, _help("Most models loaded at once; default: as many as the memory holds.")
    ] = None
    max_loaded_memory: Annotated[
        str | None,
        Meta(
            description="Memory that loaded models may take together, such as 8GiB; default: what is free at start.",
            extra={"unit": "bytes"},
        ),
    ] = None


class ServerSettings(_Group, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the HTTP side listens, limits and logs."""

    host: Annotated[str, _help("Address to listen on.")] = "127.0.0.1"
    port: Annotated[Port, _help("Port to listen on; 0 takes a free one.")] = 8000
    workers: Annotated[Positive, _help("HTTP worker processes in front of the engine.")] = 1
    log_level: Annotated[Literal["debug", "info", "warning", "error"], _help("Least severe log line written.")] = "info"
    log_format: Annotated[
        Literal["auto", "console", "json"], _help("auto: console on a terminal, else JSON lines.")
    ] = "auto"
    unknown_fields: Annotated[
        Literal["refuse", "ignore"],
        _help("Request fields that nobody knows: refuse with 400, or ignore and name them in a reply header."),
    ] = "refuse"
    max_body_bytes: Annotated[Positive, _help("Largest request body.")] = 8 * 1024 * 1024
    request_timeout_s: Annotated[
        PositiveSeconds | None, _help("Deadline of each request in seconds; default: none.")
    ] = None
    header_timeout_s: Annotated[PositiveSeconds, _help("Seconds within which a request's headers must arrive.")] = 10.0
    body_timeout_s: Annotated[PositiveSeconds, _help("Seconds within which a request's body must arrive.")] = 30.0
    drain_delay_s: Annotated[
        Seconds, _help("Seconds after SIGTERM in which requests are still taken, while readiness already says no.")
    ] = 0.0
    drain_timeout_s: Annotated[
        Seconds, _help("Seconds after the delay in which running requests may end; then they are ended.")
    ] = 30.0
    engine_timeout_s: Annotated[
        PositiveSeconds, _help("Seconds without a sign of life after which the engine counts as hung and is replaced.")
    ] = 4.0
    api_keys: Annotated[
        str | None,
        Meta(
            description="Keys that may use the server, label=key pairs with commas between them.",
            extra={"is_secret": True},
        ),
    ] = None
    api_keys_file: Annotated[
        str | None, _help("TOML file of keys with their scopes and limits; read again whenever it changes.")
    ] = None
    insecure_no_auth: Annotated[bool, _help("Listen beyond this machine without any key.")] = False
    allowed_hosts: Annotated[str, _help("Host names, with commas between them, that requests may name.")] = ""
    cors_origins: Annotated[
        str, _help("Origins, with commas between them, whose pages may use the API; literal, such as https://a.org.")
    ] = ""
    conversations_db: Annotated[
        str | None,
        _help("SQLite file of conversations, or none to keep none; default: quire/conversations.db among user data."),
    ] = None
    conversations_url: Annotated[
        str | None,
        Meta(
            description="Database of conversations instead of a file: postgresql://user:password@host/name.",
            extra={"is_secret": True},
        ),
    ] = None
    max_conversation_length: Annotated[
        int,
        Meta(ge=1, le=1000, description="Most turns of a kept conversation in a prompt, where it has no limit itself."),
    ] = 50
    compat: Annotated[
        str,
        _help(
            "Older services whose clients are served: picollm, ruvon, fastapi_llm, gemma_stream, llm_serving, with "
            "commas between them; all, or none."
        ),
    ] = "all"
    metrics_compat: Annotated[
        Literal["none", "vllm"], _help("vllm: /metrics has vLLM's names as well, for existing dashboards and gateways.")
    ] = "none"
    otlp_endpoint: Annotated[
        str | None, _help("Base URL of an OTLP/HTTP collector for traces, such as http://127.0.0.1:4318.")
    ] = None
    otlp_protocol: Annotated[
        Literal["http/protobuf", "grpc"] | None,
        _help("How the collector is spoken to; grpc needs the extra of that name. Default: http/protobuf."),
    ] = None
    otlp_metrics: Annotated[
        bool, _help("Send the metrics of the GenAI conventions to the collector as well; /metrics has more.")
    ] = False
    trace_steps: Annotated[
        NonNegative, _help("One of so many engine steps becomes a span of its own, if there is a collector; 0: none.")
    ] = 100
    trace_content: Annotated[
        bool, _help("Put prompts and replies into the spans. They are personal data: keep it off unless you debug.")
    ] = False
    jaeger_url: Annotated[
        str | None, _help("Address of Jaeger's page, such as http://127.0.0.1:16686, for links to traces.")
    ] = None
    ssl_certfile: Annotated[str | None, _help("PEM certificate chain; serves HTTPS together with --ssl-keyfile.")] = (
        None
    )
    ssl_keyfile: Annotated[str | None, _help("PEM private key of --ssl-certfile.")] = None


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of one `quire serve`."""

    engine: EngineSettings = msgspec.field(default_factory=EngineSettings)
    catalog: CatalogSettings = msgspec.field(default_factory=CatalogSettings)
    server: ServerSettings = msgspec.field(default_factory=ServerSettings)
