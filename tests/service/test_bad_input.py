"""Bad parameters and bad bodies are refused with an error that names the field, and disturb nobody."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
WINDOW = 4096
VOCAB_SIZE = 272
MAX_ERROR_BYTES = 4096


def check_error(reply: httpx.Response, status: int, param: str | None) -> dict[str, Any]:
    assert reply.status_code == status
    assert len(reply.content) < MAX_ERROR_BYTES
    assert reply.headers["x-should-retry"] == "false"
    error: dict[str, Any] = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    return error


@pytest.mark.usefixtures("canary")
class TestParameters:
    @pytest.mark.parametrize("value", [0, -1, 9, 10**9, 2**63, 1.5, "2", True])
    async def test_bad_n_is_refused_by_name(self, client: httpx.AsyncClient, value: Any) -> None:
        check_error(await client.post(CHAT, json={"messages": MESSAGES, "n": value}), 400, "n")

    @pytest.mark.parametrize(
        ("field", "value", "param"),
        [
            ("best_of", 0, "best_of"),
            ("best_of", 9, "best_of"),
            ("best_of", "2", "best_of"),
            ("best_of", True, "best_of"),
            ("n", 2**63, "n"),
        ],
    )
    async def test_bad_best_of_is_refused(self, client: httpx.AsyncClient, field: str, value: Any, param: str) -> None:
        check_error(await client.post(COMPLETIONS, json={"prompt": "a", field: value}), 400, param)

    async def test_best_of_below_n_is_refused(self, client: httpx.AsyncClient) -> None:
        check_error(await client.post(COMPLETIONS, json={"prompt": "a", "n": 3, "best_of": 2}), 400, "best_of")

    async def test_fan_out_of_prompts_and_samples_is_counted_before_it_is_made(self, client: httpx.AsyncClient) -> None:
        check_error(await client.post(COMPLETIONS, json={"prompt": ["a"] * 33, "n": 2}), 400, "n")

    @pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
    @pytest.mark.parametrize("value", [0, -1, 1.5, "3"])
    async def test_bad_max_tokens_is_refused(self, client: httpx.AsyncClient, field: str, value: Any) -> None:
        check_error(await client.post(CHAT, json={"messages": MESSAGES, field: value}), 400, field)

    @pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
    @pytest.mark.parametrize("value", [WINDOW, 10**12])
    async def test_more_tokens_than_the_window_is_context_length_exceeded(
        self, client: httpx.AsyncClient, field: str, value: int
    ) -> None:
        error = check_error(await client.post(CHAT, json={"messages": MESSAGES, field: value}), 400, field)
        assert error["code"] == "context_length_exceeded"

    async def test_prompt_longer_than_the_window_is_context_length_exceeded(self, client: httpx.AsyncClient) -> None:
        reply = await client.post(CHAT, json={"messages": [{"role": "user", "content": "x" * WINDOW}]})
        assert check_error(reply, 400, "messages")["code"] == "context_length_exceeded"

    @pytest.mark.parametrize("value", [-1, 21, VOCAB_SIZE, 10**9, 1.5, True])
    async def test_bad_top_logprobs_is_refused(self, client: httpx.AsyncClient, value: Any) -> None:
        body = {"messages": MESSAGES, "logprobs": True, "top_logprobs": value}
        check_error(await client.post(CHAT, json=body), 400, "top_logprobs")

    @pytest.mark.parametrize("value", [-1, 21, VOCAB_SIZE, 10**9, 1.5, True])
    async def test_bad_completion_logprobs_is_refused(self, client: httpx.AsyncClient, value: Any) -> None:
        check_error(await client.post(COMPLETIONS, json={"prompt": "a", "logprobs": value}), 400, "logprobs")

    @pytest.mark.parametrize("value", [-1, 0, 21])
    async def test_prompt_logprobs_is_refused(self, client: httpx.AsyncClient, value: int) -> None:
        reply = await client.post(COMPLETIONS, json={"prompt": "a", "prompt_logprobs": value})
        check_error(reply, 400, "prompt_logprobs")

    @pytest.mark.parametrize("token_id", [-1, VOCAB_SIZE, VOCAB_SIZE + 1, 2**31, 2**63, "x"])
    async def test_bad_stop_token_id_is_refused(self, client: httpx.AsyncClient, token_id: Any) -> None:
        reply = await client.post(CHAT, json={"messages": MESSAGES, "stop_token_ids": [token_id]})
        check_error(reply, 400, "stop_token_ids[0]")

    @pytest.mark.parametrize("token_id", [-1, VOCAB_SIZE, VOCAB_SIZE + 1, 2**31, 2**63, "x"])
    async def test_bad_logit_bias_key_is_refused(self, client: httpx.AsyncClient, token_id: Any) -> None:
        reply = await client.post(CHAT, json={"messages": MESSAGES, "logit_bias": {str(token_id): 1}})
        check_error(reply, 400, "logit_bias")

    @pytest.mark.parametrize("token_id", [-1, VOCAB_SIZE, VOCAB_SIZE + 1, 2**31, 2**63])
    async def test_bad_prompt_token_id_is_refused(self, client: httpx.AsyncClient, token_id: int) -> None:
        reply = await client.post(COMPLETIONS, json={"prompt": [1, token_id]})
        assert reply.status_code == 400
        assert reply.json()["error"]["param"].startswith("prompt")

    @pytest.mark.parametrize(
        "field", ["temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty"]
    )
    @pytest.mark.parametrize("literal", ["1e308", "1e999", "-3", '"1"', "true", "[1]"])
    async def test_bad_sampling_number_is_refused(self, client: httpx.AsyncClient, field: str, literal: str) -> None:
        body = f'{{"messages": [{{"role": "user", "content": "hi"}}], "{field}": {literal}}}'
        check_error(await client.post(CHAT, content=body), 400, field)

    @pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "nan"])
    async def test_numbers_that_json_lacks_are_refused(self, client: httpx.AsyncClient, literal: str) -> None:
        body = f'{{"messages": [{{"role": "user", "content": "hi"}}], "temperature": {literal}}}'
        check_error(await client.post(CHAT, content=body), 400, None)

    @pytest.mark.parametrize("prompt", ["", " \n", [], [[]], [""], ["a", ""], [1, "a"], [[1], "a"]])
    async def test_empty_or_mixed_prompt_is_refused(self, client: httpx.AsyncClient, prompt: Any) -> None:
        reply = await client.post(COMPLETIONS, json={"prompt": prompt})
        assert reply.status_code == 400
        assert reply.json()["error"]["param"].startswith("prompt")

    @pytest.mark.parametrize(
        ("messages", "param"),
        [
            ([], "messages"),
            (None, "messages"),
            ("hi", "messages"),
            ([{}], "messages[0].role"),
            ([{"role": "robot", "content": "hi"}], "messages[0].role"),
            ([{"role": "user"}], "messages[0].content"),
            ([{"role": "user", "content": 5}], "messages[0].content"),
            ([*MESSAGES, {"role": "user", "content": [{"type": "text", "text": 5}]}], "messages[1].content[0].text"),
            ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content[0].type"),
        ],
    )
    async def test_bad_message_is_refused_with_its_path(
        self, client: httpx.AsyncClient, messages: Any, param: str
    ) -> None:
        check_error(await client.post(CHAT, json={"messages": messages}), 400, param)

    @pytest.mark.parametrize("stop", [["a"] * 5, "", ["a", ""], "x" * 2**20, 5, [5]])
    async def test_bad_stop_is_refused(self, client: httpx.AsyncClient, stop: Any) -> None:
        reply = await client.post(CHAT, json={"messages": MESSAGES, "stop": stop})
        assert reply.status_code == 400
        assert reply.json()["error"]["param"].startswith("stop")
        assert len(reply.content) < MAX_ERROR_BYTES

    @pytest.mark.parametrize(
        "name",
        [
            *("kv_transfer_params", "prompt_embeds", "n_discard", "cache_salt", "chat_template", "request_id"),
            *(
                "chat_template_kwargs",
                "add_generation_prompt",
                "tokenize",
                "documents",
                "tenant",
                "image_url",
                "seq_id",
            ),
        ],
    )
    async def test_internal_and_vendor_fields_are_refused(self, client: httpx.AsyncClient, name: str) -> None:
        """S10, S21, S22: templates are the model's, and nothing internal can be set from outside."""
        reply = await client.post(CHAT, json={"messages": MESSAGES, name: {"a": 1}})
        assert check_error(reply, 400, name)["code"] == "unknown_parameter"

    @pytest.mark.parametrize(
        "extra",
        [
            {"logit_bias": {str(number): 1 for number in range(100_000)}},
            {"tools": [{"type": "function"}] * 10_000},
            {"messages": MESSAGES * 100_000},
            {"unknown-" * 50 + str(number): 1 for number in range(1_000)},
        ],
        ids=["logit_bias", "tools", "messages", "unknown fields"],
    )
    async def test_huge_collections_are_refused_briefly(self, client: httpx.AsyncClient, extra: dict[str, Any]) -> None:
        """S11"""
        reply = await client.post(CHAT, json={"messages": MESSAGES, **extra})
        assert reply.status_code == 400
        assert len(reply.content) < MAX_ERROR_BYTES

    async def test_error_is_never_larger_than_a_page_whatever_is_sent(self, client: httpx.AsyncClient) -> None:
        body = {"messages": MESSAGES, "model": "m" * 1_000_000, "\u00e9" * 100_000: 1}
        reply = await client.post(CHAT, json=body)
        assert reply.status_code == 400
        assert len(reply.content) < MAX_ERROR_BYTES


START = b'{"messages": [{"role": "user", "content": "hi"}]'


@pytest.mark.usefixtures("canary")
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
class TestBodies:
    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(b"", id="empty"),
            pytest.param(b" \r\n\t", id="blank"),
            pytest.param(b"null", id="null"),
            pytest.param(b"[]", id="array"),
            pytest.param(b"5", id="number"),
            pytest.param(b'"text"', id="string"),
            pytest.param(b"\xef\xbb\xbf" + START + b"}", id="byte order mark"),
            pytest.param(START, id="truncated"),
            pytest.param(START + b"} {}", id="two objects"),
            pytest.param(b'{"prompt": "\xff", ' + START[1:-1] + b'\xff"}]}', id="invalid UTF-8"),
            pytest.param(b'{"user": "\xff"' + b"," + START[1:] + b"}", id="invalid UTF-8 in a label"),
            pytest.param(START + b', "\xff": 1}', id="invalid UTF-8 in a name"),
            pytest.param(START + b', "user": "\\ud800"}', id="lone surrogate"),
            pytest.param(START + b', "user": "\\udc00"}', id="lone low surrogate"),
            pytest.param(START + b', "n": ' + b"9" * 100_000 + b"}", id="long integer"),
            pytest.param(START + b', "temperature": ' + b"9" * 100_000 + b"}", id="long float"),
            pytest.param(b"[" * 100_000, id="deep array"),
            pytest.param(b'{"a":' * 100_000, id="deep object"),
            pytest.param(START + b', "tools": [' + b'{"a":' * 100_000, id="deep tool schema"),
            pytest.param(START + b', "zzz": ' + b"[" * 5_000 + b"]" * 5_000 + b"}", id="deep unknown field"),
            pytest.param(b"\x00\x01\x02", id="binary"),
            pytest.param(b"prompt=hi", id="form"),
        ],
    )
    async def test_body_that_is_no_request_is_400(self, client: httpx.AsyncClient, path: str, body: bytes) -> None:
        reply = await client.post(path, content=body)
        assert reply.status_code == 400
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
        assert len(reply.content) < MAX_ERROR_BYTES

    @pytest.mark.parametrize(
        "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
    )
    async def test_what_a_foreign_form_could_send_is_415(
        self, client: httpx.AsyncClient, path: str, content_type: str
    ) -> None:
        reply = await client.post(path, content=START + b"}", headers={"content-type": content_type})
        assert check_error(reply, 415, None)["code"] == "unsupported_media_type"


async def test_unicode_and_nul_round_trip(client: httpx.AsyncClient, engine: Any) -> None:
    text = "é\u0000\u2028\U0001f600"
    reply = await client.post(COMPLETIONS, json={"prompt": text, "echo": True, "max_tokens": 1})
    assert reply.json()["choices"][0]["text"] == text + "H"
    assert bytes(engine.requests[0].prompt_token_ids) == text.encode()


async def test_nulls_mean_absent(client: httpx.AsyncClient) -> None:
    body = {"messages": MESSAGES, "n": None, "stream": None, "stop": None, "tools": None, "nonsense": None}
    assert (await client.post(CHAT, json=body)).status_code == 200
