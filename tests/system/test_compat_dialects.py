"""Every route that clients of five older services use, behind two workers, as their documents show it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.system.compat_client import QUESTION, client_of, data_of, events_of
from tests.system.quire_process import READY, QuireProcess, running_quire

JSON = ("-H", "Content-Type: application/json")


@pytest.fixture(scope="module")
def quire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuireProcess]:
    """The model of the package behind two workers."""
    directory = tmp_path_factory.mktemp("q")
    flags = ("--port", "0", "--workers", "2", "--conversations-db", str(directory / "kept.db"), "--num-threads", "1")
    with running_quire(directory, "serve", *flags, "--served-model-name", "gpt2") as quire:
        quire.wait_for(READY)
        yield quire


@pytest.fixture
def client(quire: QuireProcess) -> Iterator[httpx.Client]:
    with client_of(quire) as client:
        yield client


def curl(quire: QuireProcess, *arguments: str) -> str:
    """What a documented line prints, with the server's own address in it."""
    words = [word.replace("http://localhost:8000", quire.address) for word in arguments]
    done = subprocess.run(["curl", "-sS", *words], capture_output=True, check=True, timeout=60, env=os.environ)
    return done.stdout.decode()


# ---- picoLLM


def test_smoke_test_of_old_streams_tokens_until_done(client: httpx.Client) -> None:
    body = {"messages": QUESTION, "temperature": 0.0, "top_k": 1, "max_tokens": 40, "seed": 42}
    events = events_of(client.post("/chat/completions", json=body).raise_for_status().text)
    chunks = [data_of(event) for event in events[:-1]]
    assert events[-1] == "data: [DONE]"
    assert "".join(chunk.get("token", "") for chunk in chunks) != ""
    assert [chunk.get("done") for chunk in chunks] == [None] * (len(chunks) - 1) + [True]
    assert {chunk["gpu"] for chunk in chunks if "token" in chunk} == {0}
    contents = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert "".join(contents) == "".join(chunk.get("token", "") for chunk in chunks)


def test_same_text_comes_from_the_canonical_route(client: httpx.Client) -> None:
    body = {"messages": QUESTION, "temperature": 0.0, "top_k": 1, "max_tokens": 40, "seed": 42}
    events = events_of(client.post("/chat/completions", json=body).text)
    streamed = "".join(data_of(event).get("token", "") for event in events[:-1])
    whole = client.post("/v1/chat/completions", json=body | {"model": "gpt2", "stream": False}).json()
    assert whole["choices"][0]["message"]["content"] == streamed
    assert (whole["object"], whole["choices"][0]["message"]["role"]) == ("chat.completion", "assistant")
    assert whole["id"].startswith("chatcmpl-")


def test_chat_completions_without_v1_answers_sdk_clients_in_one_reply(client: httpx.Client) -> None:
    reply = client.post("/chat/completions", json={"messages": QUESTION, "stream": False, "max_tokens": 4})
    assert reply.json()["choices"][0]["finish_reason"] == "length"


def test_newer_name_of_the_limit_wins(client: httpx.Client) -> None:
    body = {"messages": QUESTION, "stream": False, "max_tokens": 50, "max_completion_tokens": 3}
    assert client.post("/chat/completions", json=body).json()["usage"]["completion_tokens"] == 3


def test_short_chat(client: httpx.Client) -> None:
    body = {"messages": QUESTION, "max_new_tokens": 8, "temperature": 0.8, "top_k": 8}
    reply = client.post("/chat", json=body).raise_for_status().json()
    assert reply["reply"]
    assert reply["usage"] == {"prompt_messages": 1}


def test_health_is_one_superset(client: httpx.Client) -> None:
    told = client.get("/health").raise_for_status().json()
    assert (told["status"], told["ready"], told["source"], told["num_workers"]) == ("healthy", True, "sft", 1)
    assert (told["model_id"], told["device"], told["device_type"]) == ("gpt2", "cpu", "cpu")
    assert set(told["default_generation"]) == {"temperature", "top_k", "top_p", "min_p", "max_tokens", "seed"}
    assert told["models_loaded"] == told["tokenizers_loaded"] == ["gpt2"]
    assert set(told["attention"]) == {"available_implementations", "default_implementation"}
    assert told["queue"]["mode"] == "continuous"
    assert {"step", "model_tag", "timestamp", "uptime"} <= set(told)


def test_stats_have_the_keys_of_both_services(client: httpx.Client) -> None:
    told = client.get("/stats").raise_for_status().json()
    assert {"model_id", "total_workers", "available_workers", "busy_workers", "workers"} <= set(told)
    assert told["workers"] == [{"gpu_id": 0, "device": "cpu"}]
    assert set(QUEUE_KEYS) <= set(told)


def test_models_of_old_clients(client: httpx.Client) -> None:
    assert {"gpt2", "quire-pico"} & {model["id"] for model in client.get("/v1/models").json()["data"]}


@pytest.mark.parametrize(
    ("path", "keys"), [("/metadata", {"config", "metadata", "history"}), ("/checkpoints", {"items"})]
)
def test_facts_of_the_model(client: httpx.Client, path: str, keys: set[str]) -> None:
    assert set(client.get(path).raise_for_status().json()) == keys


def test_logo(client: httpx.Client) -> None:
    assert client.get("/logo.svg").headers["content-type"].startswith("image/svg+xml")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"messages": []}, 422),
        ({"temperature": 3}, 422),
        ({"top_k": "many"}, 422),
        ({"max_tokens": 10**7}, 400),
        ({"model": "nobody"}, 404),
        ({"nonsense": 1}, 422),
    ],
)
def test_refusals_of_streamed_chat(client: httpx.Client, change: dict[str, Any], status: int) -> None:
    reply = client.post("/chat/completions", json={"messages": QUESTION} | change)
    assert_refused(reply, status)


def assert_refused(reply: httpx.Response, status: int) -> None:
    body = reply.json()
    assert (reply.status_code, body["status_code"]) == (status, status)
    assert set(body) == {"error", "detail", "status_code"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["detail"] == body["error"]["message"]


# ---- RuvonInference

QUEUE_KEYS = (
    "waiting_requests",
    "active_requests",
    "total_requests",
    "total_completed",
    "total_failed",
    "current_batch_size",
    "current_generation_step",
    "total_generation_steps",
    "max_batch_size",
    "average_wait_time",
    "average_generation_time",
    "mode",
)


def test_root_describes_the_service_to_programs(client: httpx.Client) -> None:
    told = client.get("/").raise_for_status().json()
    assert {"message", "version", "description", "status", "docs"} <= set(told)
    assert {"/completions", "/health", "/queue", "/requests/{id}"} <= set(told["endpoints"])
    assert (told["status"], told["inference_queue_size"], told["active_connections"]) == ("healthy", 0, 0)


def test_root_is_a_page_for_browsers(client: httpx.Client) -> None:
    assert "<html" in client.get("/", headers={"accept": "text/html"}).text


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
def test_documents(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 200


def test_documented_lines_of_completions(quire: QuireProcess) -> None:
    url = "http://localhost:8000/completions"
    told = json.loads(curl(quire, "http://localhost:8000/health"))
    assert told["status"] == "healthy"
    whole = json.loads(curl(quire, "-X", "POST", url, *JSON, "-d", '{"prompt": "Once upon a time", "max_tokens": 10}'))
    assert (whole["object"], whole["usage"]["completion_tokens"]) == ("text_completion", 10)
    assert whole["id"].startswith("cmpl-")
    streamed = curl(
        quire, "-X", "POST", url, *JSON, "-d", '{"prompt": "The future of AI is", "max_tokens": 15, "stream": true}'
    )
    events = events_of(streamed)
    assert events[-1] == "data: [DONE]"
    assert data_of(events[-2])["choices"][0]["text"] == ""


def test_documented_line_without_a_content_type_is_json_all_the_same(quire: QuireProcess) -> None:
    body = '{"prompt": "The future is", "temperature": 1.2, "top_k": 30}'
    told = json.loads(curl(quire, "-X", "POST", "http://localhost:8000/completions", "-d", body))
    assert told["usage"]["completion_tokens"] <= 20


def test_page_of_another_site_cannot_use_that(client: httpx.Client) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded", "origin": "http://evil.example"}
    assert client.post("/completions", content=b'{"prompt": "a"}', headers=headers).status_code == 403


def test_completion_has_twenty_tokens_by_default(client: httpx.Client) -> None:
    reply = client.post("/completions", json={"prompt": "Once", "ignore_eos": True}).raise_for_status().json()
    assert reply["usage"]["completion_tokens"] == 20


def test_postman_body_is_taken_and_says_what_the_server_decides(client: httpx.Client) -> None:
    body = {
        "model": "gpt2",
        "prompt": "Once upon a time",
        "max_tokens": 20,
        "temperature": 0.8,
        "top_k": 50,
        "top_p": 0.9,
        "stream": False,
        "use_cache": True,
        "attention_implementation": "flash_attention_2",
    }
    reply = client.post("/completions", json=body).raise_for_status()
    assert reply.headers["x-quire-ignored-fields"] == "use_cache, attention_implementation"


@pytest.mark.parametrize(
    "body",
    [
        {"model": "gpt2", "max_tokens": "not_a_number"},
        {"prompt": "a", "max_tokens": 0},
        {"prompt": "a", "attention_implementation": "magic"},
        {"prompt": "a", "temperature": 3.0},
        {},
    ],
)
def test_schema_errors_of_completions_are_422(client: httpx.Client, body: dict[str, Any]) -> None:
    assert_refused(client.post("/completions", json=body), 422)


def test_same_on_v1_is_400(client: httpx.Client) -> None:
    assert_refused(client.post("/v1/completions", json={"prompt": "a", "temperature": 3.0}), 400)


def test_queue_is_stats(client: httpx.Client) -> None:
    assert set(client.get("/queue").json()) == set(client.get("/stats").json()) >= set(QUEUE_KEYS)


def test_requests_are_told_by_id_and_among_the_recent(client: httpx.Client) -> None:
    reply_id = client.post("/completions", json={"prompt": "Once", "max_tokens": 5}).json()["id"]
    told = client.get(f"/requests/{reply_id}").raise_for_status().json()
    assert (told["id"], told["status"], told["error"]) == (reply_id, "completed", None)
    assert told["created_at"] <= told["started_at"] <= told["completed_at"]
    assert told["total_time"] == pytest.approx(told["wait_time"] + told["processing_time"])
    recent = client.get("/queue/recent?limit=5").raise_for_status().json()
    assert (recent[0]["id"], recent[0]["completed_at"]) == (reply_id, pytest.approx(told["completed_at"]))
    assert len(recent) <= 5


def test_unknown_request_is_404(client: httpx.Client) -> None:
    assert_refused(client.get("/requests/non-existent-request-id"), 404)


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "what=1"])
def test_nonsense_about_the_recent_is_422(client: httpx.Client, query: str) -> None:
    assert_refused(client.get(f"/queue/recent?{query}"), 422)


# ---- the form service


@pytest.mark.parametrize("name", ["prompt", "prompt_form", "message"])
@pytest.mark.parametrize("kind", ["data", "files"])
def test_form_becomes_events_of_text(client: httpx.Client, name: str, kind: str) -> None:
    form: dict[str, Any] = {name: "Once upon a time"} if kind == "data" else {name: (None, "Once upon a time")}
    reply = client.post("/completion", **{kind: form})  # type: ignore[arg-type]
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = events_of(reply.text)
    assert events
    assert all(line.startswith("data: ") for event in events for line in event.split("\n"))


def test_form_by_curl(quire: QuireProcess) -> None:
    assert curl(quire, "-N", "http://localhost:8000/completion", "-F", "prompt_form=Hello").startswith("data: ")


@pytest.mark.parametrize("form", [{}, {"prompt": " "}, {"prompt": "a", "message": "b"}, {"what": "a"}])
def test_nonsense_forms_are_422(client: httpx.Client, form: dict[str, str]) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert_refused(client.post("/completion", data=form, headers=headers), 422)


def test_json_at_the_form_route_is_told_where_to_go(client: httpx.Client) -> None:
    assert_refused(client.post("/completion", json={"prompt": "a"}), 415)


def test_echo(client: httpx.Client) -> None:
    assert client.post("/prompt_data", json={"prompt": "Tell me"}).json() == {"prompt": "Tell me"}
    assert_refused(client.post("/prompt_data", json={"prompt": 1}), 422)


def test_stream_example_comes_one_by_one(client: httpx.Client) -> None:
    with client.stream("GET", "/stream-example") as reply:
        chunks = list(reply.iter_text())
    said = [event.removeprefix("data: ") for event in events_of("".join(chunks))]
    assert said == ["hello", ", ", "this ", "is ", "a ", "streamed ", "response."]
    assert len(chunks) >= 7


# ---- the LLM Serving API


def test_info_of_the_api(client: httpx.Client) -> None:
    told = client.get("/api/v1/").raise_for_status().json()
    assert {"message", "version", "current_model", "chat_models", "endpoints", "docs"} <= set(told)
    assert told["endpoints"]["chat"]["chat"] == "/api/v1/chat"


def test_documented_lines_of_chat(quire: QuireProcess) -> None:
    api = "http://localhost:8000/api/v1"
    assert json.loads(curl(quire, f"{api}/health"))["status"] == "healthy"
    assert json.loads(curl(quire, f"{api}/chat/models"))["current_model"] == "gpt2"
    new = json.loads(curl(quire, "-X", "POST", f"{api}/chat/new", "-H", "Content-Type: application/json"))
    assert (new["conversation_id"], new["message"]) == (new["id"], "New conversation started")
    assert new["id"].startswith("conv_")
    body = {
        "message": "What is the capital of France?",
        "conversation_id": new["id"],
        "max_length": 100,
        "temperature": 0.7,
    }
    told = json.loads(curl(quire, "-X", "POST", f"{api}/chat", *JSON, "-d", json.dumps(body)))
    assert told["response"]
    assert (told["conversation_id"], told["message_count"], told["model_name"]) == (new["id"], 2, "gpt2")
    assert told["parameters"]["max_tokens"] == 100
    assert told["generation_time"] >= 0
    alone = json.loads(curl(quire, "-X", "POST", f"{api}/chat", *JSON, "-d", '{"message": "Hello!"}'))
    assert alone["conversation_id"] not in ("", new["id"])
    switched = json.loads(curl(quire, "-X", "POST", f"{api}/chat/switch-model", *JSON, "-d", '{"model_name": "gpt2"}'))
    assert "gpt2" in switched["message"]


def test_conversation_goes_on_and_is_told(client: httpx.Client) -> None:
    new = client.post("/api/v1/chat/new", json={"system_prompt": "Be brief.", "max_length": 7}).json()
    first = client.post("/api/v1/chat", json={"message": "My name is Alice", "conversation_id": new["id"]}).json()
    second = client.post("/api/v1/chat", json={"message": "What is my name?", "conversation_id": new["id"]}).json()
    assert (first["message_count"], second["message_count"]) == (3, 5)
    told = client.get(f"/api/v1/chat/conversation/{new['id']}").raise_for_status().json()
    assert [message["role"] for message in told["messages"]] == ["system", *["user", "assistant"] * 2]
    assert (told["title"], told["max_length"]) == ("My name is Alice", 7)
    assert told["message_count"] == {"system": 1, "user": 2, "assistant": 2}
    assert {"created_at", "updated_at"} <= set(told)


def test_streamed_chat_has_tokens_then_the_whole(client: httpx.Client) -> None:
    events = events_of(client.post("/api/v1/chat", json={"message": "Hello", "stream": True}).text)
    assert events[-1].startswith("event: end\n")
    whole = data_of(events[-1])
    assert whole["response"] == "".join(data_of(event)["token"] for event in events[:-1])
    assert client.get(f"/api/v1/chat/conversation/{whole['conversation_id']}").status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/v1/chat", {"message": "Hello", "conversation_id": "invalid-id-123"}, 404),
        ("/api/v1/chat", {"message": ""}, 422),
        ("/api/v1/chat", {"message": " \n"}, 422),
        ("/api/v1/chat", {"message": "a", "temperature": 3}, 422),
        ("/api/v1/chat", {"message": "a", "max_tokens": 3, "max_length": 4}, 400),
        ("/api/v1/chat", {"message": "a", "model_name": "nobody"}, 404),
        ("/api/v1/chat/new", {"max_length": 0}, 422),
        ("/api/v1/chat/switch-model", {"model_name": "invalid-model-xyz"}, 400),
        ("/api/v1/chat/switch-model", {"model_name": ""}, 422),
        ("/api/v1/generate", {"prompt": "", "max_length": 20}, 422),
        ("/api/v1/generate", {"prompt": "Test prompt", "max_length": -1, "temperature": 3.0}, 422),
        ("/api/v1/generate", {"prompt": "a", "num_return_sequences": 0}, 422),
    ],
)
def test_refusals_of_the_api(client: httpx.Client, path: str, body: dict[str, Any], status: int) -> None:
    assert_refused(client.post(path, json=body), status)


def test_unknown_conversation_is_404(client: httpx.Client) -> None:
    assert_refused(client.get("/api/v1/chat/conversation/conv_abc123"), 404)


def test_generate(client: httpx.Client) -> None:
    body = {"prompt": "Hello world", "max_length": 20, "temperature": 0.7, "num_return_sequences": 2}
    told = client.post("/api/v1/generate", json=body).raise_for_status().json()
    assert (len(told["generated_text"]), told["prompt"], told["model_name"]) == (2, "Hello world", "gpt2")
    assert told["parameters"]["max_tokens"] == 20


def test_generate_without_sampling_is_greedy(client: httpx.Client) -> None:
    body = {"prompt": "Hello world", "max_length": 10, "do_sample": False}
    texts = [client.post("/api/v1/generate", json=body).json()["generated_text"] for _ in range(2)]
    assert texts[0] == texts[1]


def test_model_info_and_load(client: httpx.Client) -> None:
    loaded = client.post("/api/v1/load-model").raise_for_status().json()
    assert (loaded["message"], loaded["model_name"]) == ("Model already loaded", "gpt2")
    info = client.get("/api/v1/model-info").raise_for_status().json()
    assert (info["model_name"], info["device"], info["loaded"]) == ("gpt2", "cpu", True)
    assert {"model_type", "model_size", "max_length"} <= set(info)


def test_list_of_models(client: httpx.Client) -> None:
    told = client.get("/api/v1/chat/models").raise_for_status().json()
    assert set(told) == {"models", "chat_models", "current_model"}
    assert set(told["models"][0]) == {
        "name",
        "display_name",
        "model_id",
        "supports_chat",
        "description",
        "memory_requirement",
        "max_length",
    }


# ---- all of them


def test_presets(client: httpx.Client) -> None:
    listed = client.get("/v1/presets").json()["data"]
    assert [preset["id"] for preset in listed] == ["balanced", "creative", "deterministic", "short-answer"]
    body = {"messages": QUESTION, "preset": "deterministic", "max_tokens": 8}
    texts = [client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"] for _ in range(2)]
    assert texts[0] == texts[1]
    assert_refused(client.post("/v1/completions", json={"prompt": "a", "preset": "wild"}), 400)
