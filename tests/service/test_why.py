"""A record becomes true sentences: each cause is named with its numbers, and the largest part is the cause."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from click.testing import CliRunner

from contracts.explanation import Explanation, ExplanationList
from contracts.finish_reason import FinishReason
from contracts.records import BlockHolder, Chunk, RequestRecord, SampleRecord, StepShare, Wait, WaitCause
from contracts.settings import ServerSettings, Settings
from service.cli import main
from service.routes.requests import with_link
from service.timeline import draw_phases, draw_timeline
from service.why import explain
from tests.fakes import FakeEngine
from tests.service.terminal.scripted_api import scripted_api

OFFSET_S = 1000.0
TRACE = "0af7651916cd43dd8448eb211c80319c"


def sample(**changes: Any) -> SampleRecord:
    """Waited 2 s, prefilled in two steps, decoded 10 tokens in 1 s."""
    plain = SampleRecord(
        sample_index=0,
        submitted_s=50.0,
        waits=[Wait(50.0, 52.0, {WaitCause.BLOCKS: 1.9, WaitCause.STEP: 0.1}, 3, 1, [BlockHolder("cmpl-big", 120)])],
        chunks=[Chunk(52.0, 52.2, 512, 4, 100), Chunk(52.2, 52.3, 88, 4, 0)],
        num_waits=1,
        num_chunks=2,
        decode=StepShare(10, 40, 700, 0.8),
        num_prompt_tokens=856,
        num_cached_tokens=256,
        num_output_tokens=11,
        num_preemptions=0,
        first_token_s=52.3,
        observed_s=53.3,
        finished_s=53.3,
        finish_reason=FinishReason.LENGTH,
    )
    return msgspec.structs.replace(plain, **changes)


def record(*samples: SampleRecord, **changes: Any) -> RequestRecord:
    plain = RequestRecord(
        request_id="cmpl-1",
        client_request_id="req_1",
        traceparent=f"00-{TRACE}-00f067aa0ba902b7-01",
        tenant="alice",
        num_samples=len(samples) or 1,
        samples=list(samples) or [sample()],
    )
    return msgspec.structs.replace(plain, **changes)


def test_numbers_are_of_the_whole_request() -> None:
    told = explain(record(), OFFSET_S)
    assert (told.id, told.request_id, told.trace_id, told.key) == ("cmpl-1", "req_1", TRACE, "alice")
    assert (told.submitted, told.status, told.finish_reason) == (1050.0, "completed", "length")
    assert (told.total_ms, told.queue_ms, told.ttft_ms, told.decode_ms) == (3300.0, 2000.0, 2300.0, 1000.0)
    assert (told.prompt_tokens, told.cached_tokens, told.completion_tokens) == (856, 256, 11)


def test_sentences_name_every_cause_with_its_numbers() -> None:
    assert explain(record(), OFFSET_S).sentences == [
        "Ended (length) after 3,300 ms: 856 prompt tokens, 256 of them from the prefix cache, 11 generated. "
        "Most of the time: waiting: KV blocks exhausted.",
        "Waited 1,900 ms because the KV blocks were exhausted, 100 ms while the step that was running when it came "
        "ended.",
        "Most blocks were held by cmpl-big (120).",
        "Ahead of it in the queue: 3.",
        "Let in before it though they came later: 1.",
        "Prefill took 300 ms for 600 tokens in 2 chunks, beside up to 3 other sequences and 100 prefill tokens of "
        "theirs.",
        "Decoding took 1,000 ms: 10 steps of 100 ms (80 ms of it in the model), shared by 4.0 sequences on average; "
        "700 prefill tokens of other requests ran in these steps.",
    ]


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({}, "waiting: KV blocks exhausted"),
        ({"waits": [Wait(50.0, 52.0, {WaitCause.BATCH: 2.0}, 0)]}, "waiting: the batch was full"),
        ({"waits": [Wait(50.0, 52.0, {WaitCause.BUDGET: 2.0}, 0)]}, "waiting: the token budget"),
        ({"waits": [Wait(50.0, 52.0, {WaitCause.SHARE: 2.0}, 0)]}, "waiting: the fair share of other keys"),
        ({"waits": [Wait(50.0, 52.0, {WaitCause.PRIORITY: 2.0}, 0)]}, "waiting: requests of higher priority"),
        ({"waits": [], "chunks": [Chunk(50.0, 52.3, 856, 1, 0)]}, "prefill"),
        ({"waits": [], "chunks": [], "first_token_s": 50.1}, "decode"),
    ],
)
def test_largest_part_is_the_main_cause(changes: dict[str, Any], cause: str) -> None:
    assert explain(record(sample(**changes)), OFFSET_S).main_cause == cause


def test_preemption_is_told_and_its_wait_is_no_decoding() -> None:
    again = Wait(52.5, 53.1, {WaitCause.BLOCKS: 0.6}, 0, preempted_by="cmpl-old", num_lost_tokens=858)
    told = explain(record(sample(waits=[Wait(50.0, 50.0, {}, 0), again], num_waits=2, num_preemptions=1)), OFFSET_S)
    assert told.sentences[1] == (
        "Preempted by cmpl-old, which needed its blocks: 858 computed tokens were lost, and it waited 600 ms for its "
        "place."
    )
    assert told.preemptions == 1
    assert [phase.name for phase in told.phases] == ["queue", "prefill", "prefill", "decode", "preempted", "decode"]
    assert told.sentences[-1].startswith("Decoding took 400 ms: 10 steps of 40 ms")


def test_one_that_preempted_itself_is_not_told_of_another() -> None:
    again = Wait(52.5, 53.1, {WaitCause.BLOCKS: 0.6}, 0, preempted_by="cmpl-1", num_lost_tokens=858)
    told = explain(record(sample(waits=[Wait(50.0, 50.0, {}, 0), again], num_waits=2, num_preemptions=1)), OFFSET_S)
    assert told.sentences[1] == (
        "Preempted as no block was left for its own request: 858 computed tokens were lost, and it waited 600 ms for "
        "its place."
    )


def test_nothing_decodes_between_the_chunks_that_are_computed_again() -> None:
    waits = [
        Wait(50.0, 52.0, {WaitCause.BLOCKS: 2.0}, 0),
        Wait(52.5, 52.6, {WaitCause.BLOCKS: 0.1}, 0, preempted_by="cmpl-old"),
        Wait(53.0, 53.05, {WaitCause.BLOCKS: 0.05}, 0, preempted_by="cmpl-old"),
    ]
    again = [Chunk(52.6, 52.7, 512, 4, 0), Chunk(52.701, 52.8, 346, 4, 0), Chunk(53.05, 53.1, 860, 4, 0)]
    told = explain(record(sample(waits=waits, chunks=[*sample().chunks, *again], num_preemptions=2)), OFFSET_S)
    decodes = [(phase.start_ms, phase.end_ms) for phase in told.phases if phase.name == "decode"]
    assert decodes == [(2300.0, 2500.0), (2800.0, 3000.0), (3100.0, 3300.0)]


def test_ids_of_other_keys_are_shown_to_whoever_may_see_all() -> None:
    holders = [BlockHolder("cmpl-foreign", 9, "bob"), BlockHolder("cmpl-own", 5, "alice")]
    waits = [
        Wait(50.0, 51.0, {WaitCause.BLOCKS: 1.0}, 0, 0, holders),
        Wait(51.5, 52.0, {WaitCause.BLOCKS: 0.5}, 0, preempted_by="cmpl-foreign", preempter_tenant="bob"),
        Wait(52.5, 53.0, {WaitCause.BLOCKS: 0.5}, 0, preempted_by="cmpl-own", preempter_tenant="alice"),
    ]
    told = record(sample(waits=waits, num_waits=3))
    assert repr(explain(told, OFFSET_S)).count("cmpl-foreign") == 4
    hidden = explain(told, OFFSET_S, is_all_shown=False)
    assert "cmpl-foreign" not in repr(hidden)
    assert repr(hidden).count("cmpl-own") == 4
    assert "Most blocks were held by a request of another key (9), cmpl-own (5)." in hidden.sentences


def test_one_that_waits_is_told_as_waiting() -> None:
    waiting = sample(
        waits=[Wait(50.0, None, {WaitCause.BATCH: 1.5}, 7)],
        chunks=[],
        num_chunks=0,
        decode=StepShare(),
        num_output_tokens=0,
        first_token_s=None,
        finished_s=None,
        finish_reason=None,
        observed_s=51.5,
    )
    told = explain(record(waiting), OFFSET_S)
    assert (told.status, told.total_ms, told.queue_ms, told.ttft_ms) == ("queued", 1500.0, 1500.0, None)
    assert told.sentences[0].startswith("Still queued after 1,500 ms")
    assert [(phase.name, phase.end_ms) for phase in told.phases] == [("queue", None)]


def test_samples_are_told_together() -> None:
    told = explain(record(sample(), sample(sample_index=1, finished_s=54.0, observed_s=54.0)), OFFSET_S)
    assert (told.total_ms, told.completion_tokens) == (4000.0, 22)
    assert {phase.sample for phase in told.phases} == {0, 1}


def test_timeline_is_text_with_a_bar_for_each_phase() -> None:
    lines = draw_timeline(explain(record(), OFFSET_S)).splitlines()
    assert lines[:2] == ["cmpl-1  (req_1)", f"trace {TRACE}"]
    assert [line.split()[-1 - 2 * 0] for line in lines if "█" in line]
    assert sum("█" in line for line in lines) == 4


@pytest.mark.parametrize(("width", "has_bars"), [(100, True), (60, True), (30, False)])
def test_timeline_fits_a_terminal(width: int, has_bars: bool) -> None:
    lines = list(draw_phases(explain(record(), OFFSET_S), width))
    assert max(map(len, lines)) <= width
    assert [("█" in line) == has_bars for line in lines] == [True] * 4


class TestRoutes:
    async def test_requests_are_listed_and_found(self, client: httpx.AsyncClient, engine: FakeEngine) -> None:
        engine.remembered = [record()]
        listed = msgspec.json.decode(
            (await client.get("/v1/requests?order=slowest&limit=5")).content, type=ExplanationList
        )
        one = msgspec.json.decode((await client.get("/v1/requests/req_1")).content, type=Explanation)
        (first,) = listed.data
        assert explain(record(model="fake/model"), one.submitted - 50.0) == one
        assert explain(record(model="fake/model"), first.submitted - 50.0) == first
        assert first.submitted == pytest.approx(one.submitted, abs=0.1)  # each looks at the clock
        assert [(query.is_slowest_first, query.limit, query.any_id) for query in engine.queries] == [
            (True, 5, None),
            (False, 1, "req_1"),
        ]

    async def test_timeline_is_plain_text(self, client: httpx.AsyncClient, engine: FakeEngine) -> None:
        engine.remembered = [record()]
        reply = await client.get("/v1/requests/cmpl-1/timeline")
        assert reply.headers["content-type"].startswith("text/plain")
        assert reply.text == draw_timeline(explain(record(), OFFSET_S))

    @pytest.mark.parametrize(
        ("url", "trace_id", "link"),
        [
            ("http://j:16686/", TRACE, f"http://j:16686/trace/{TRACE}"),
            (None, TRACE, None),
            ("http://j:16686", None, None),
        ],
    )
    def test_trace_is_linked_where_jaeger_is_known(
        self, url: str | None, trace_id: str | None, link: str | None
    ) -> None:
        told = msgspec.structs.replace(explain(record(), OFFSET_S), trace_id=trace_id)
        linked = with_link(told, url)
        assert linked.trace_url == link
        assert (link or trace_id or "no trace") in draw_timeline(linked) or trace_id is None

    async def test_what_is_not_remembered_is_a_404(self, client: httpx.AsyncClient) -> None:
        for path in ("/v1/requests/none", "/v1/requests/none/timeline"):
            reply = await client.get(path)
            assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")

    @pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "limit=%C2%B2", "order=oldest", "sort=up"])
    async def test_bad_parameter_is_refused_by_name(self, client: httpx.AsyncClient, query: str) -> None:
        reply = await client.get(f"/v1/requests?{query}")
        assert reply.status_code == 400
        assert reply.json()["error"]["param"] == query.partition("=")[0]

    async def test_engine_is_told_the_http_request(self, client: httpx.AsyncClient, engine: FakeEngine) -> None:
        await client.post("/v1/completions", json={"prompt": ["a", "b"]}, headers={"x-request-id": "mine-1"})
        assert [request.client_request_id for request in engine.requests] == ["mine-1"] * 2


class TestOwners:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        path = tmp_path / "keys.toml"
        scopes = {"alice": '["infer"]', "bob": '["infer", "admin"]'}
        path.write_text(
            "".join(f'[[keys]]\nlabel = "{n}"\nkey = "{n}-0123456789abcdef"\nscopes = {s}\n' for n, s in scopes.items())
        )
        path.chmod(0o600)
        return Settings(server=ServerSettings(api_keys_file=str(path)))

    @pytest.mark.parametrize(("name", "tenant"), [("alice", "alice"), ("bob", None)], ids=["infer", "admin"])
    async def test_key_asks_for_its_own_requests_only(
        self, client: httpx.AsyncClient, engine: FakeEngine, name: str, tenant: str | None
    ) -> None:
        headers = {"authorization": f"Bearer {name}-0123456789abcdef"}
        assert (await client.get("/v1/requests", headers=headers)).status_code == 200
        assert (await client.get("/v1/requests/req_1", headers=headers)).status_code == 404
        assert [query.tenant for query in engine.queries] == [tenant] * 2
        foreign = Wait(50.0, 51.0, {WaitCause.BLOCKS: 1.0}, 0, 0, [BlockHolder("cmpl-foreign", 9, "carol")])
        engine.remembered = [record(sample(waits=[foreign]))]
        reply = await client.get("/v1/requests/req_1/timeline", headers=headers)
        assert ("cmpl-foreign" in reply.text) == (tenant is None)

    async def test_nobody_asks_without_a_key(self, client: httpx.AsyncClient) -> None:
        assert (await client.get("/v1/requests")).status_code == 401


class TestCommand:
    @pytest.mark.parametrize("arguments", [[], ["id", "--slowest", "1"], ["--slowest", "1", "--newest", "1"]])
    def test_exactly_one_thing_is_asked_for(self, arguments: list[str]) -> None:
        result = CliRunner().invoke(main, ["why", *arguments])
        assert result.exit_code == 2
        assert "REQUEST_ID, --slowest N or --newest N" in result.output

    def test_server_that_does_not_answer_is_one_line(self) -> None:
        result = CliRunner().invoke(main, ["why", "id", "--base-url", "http://127.0.0.1:9"])
        assert result.exit_code == 6
        assert result.output.startswith("Error: Nothing answers at http://127.0.0.1:9 ")
        assert len(result.output.splitlines()) == 1

    @pytest.mark.parametrize("url", ["", "ftp://h", "http://", "http://h:port"])
    def test_address_that_is_none_is_one_line(self, url: str) -> None:
        result = CliRunner().invoke(main, ["why", "id", "--base-url", url])
        assert result.exit_code == 2
        assert len(result.output.splitlines()) == 1

    @pytest.mark.parametrize("reply", [[], {"data": 5}, {"id": "a"}, "text", None])
    @pytest.mark.parametrize("is_json", [(), ("--json",)])
    @pytest.mark.parametrize("asked", [("id",), ("--newest", "1")])
    def test_answer_of_another_program_is_one_line(
        self, reply: object, is_json: tuple[str, ...], asked: tuple[str, ...]
    ) -> None:
        with scripted_api(v1_requests=reply, v1_requests_id=reply) as api:
            result = CliRunner().invoke(main, ["why", *asked, *is_json, "--base-url", api.url])
        assert (result.exit_code, len(result.output.splitlines())) == (6, 1)

    @pytest.mark.parametrize(
        ("arguments", "path"),
        [
            (["a/b"], "/v1/requests/a%2Fb"),
            (["--slowest", "5"], "/v1/requests?limit=5&order=slowest"),
            (["--newest", "2"], "/v1/requests?limit=2&order=newest"),
        ],
    )
    def test_answer_is_drawn(self, arguments: list[str], path: str) -> None:
        told = explain(record(), OFFSET_S)
        with scripted_api(v1_requests=ExplanationList(data=[told]), **{"v1_requests_a%2Fb": told}) as api:
            server = ["--base-url", f"{api.url}/v1", "--api-key", "k"]
            result = CliRunner().invoke(main, ["why", *arguments, *server])
        assert result.output == draw_timeline(told)
        assert [(asked.path, asked.headers["authorization"]) for asked in api.asked] == [(path, "Bearer k")]

    def test_json_is_what_the_server_answers(self) -> None:
        told = msgspec.json.decode(msgspec.json.encode(explain(record(), OFFSET_S)))
        with scripted_api(v1_requests_id=told) as api:
            result = CliRunner().invoke(main, ["why", "id", "--json", "--base-url", api.url])
        assert msgspec.json.decode(result.output) == told
