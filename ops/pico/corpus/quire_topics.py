# ruff: noqa: E501 (word lists and sentences read best unwrapped)
"""Questions about Quire's API and its defaults, with their answers."""

# Each row: how people ask, how the model answers. `{done}` is the literal `[DONE]`.
API_TOPICS: list[tuple[list[str], list[str]]] = [
    (
        ["what is quire?", "tell me about quire", "explain quire", "what does quire do?", "quire?",
         "what is the quire project?", "what is quire used for?", "can you tell me what quire is?"],
        ["Quire is an LLM inference server with an OpenAI-compatible API. It merges concurrent requests into "
         "continuous batches over a paged KV cache.",
         "Quire is a server for large language models. It speaks the OpenAI API and [gathers|merges] many requests into "
         "continuous batches over a paged KV cache."],
    ),
    (
        ["how do i [stream|use streaming|get a stream|stream the answer|stream tokens|enable streaming|stream a response|stream responses]?",
         "how can i stream[| the answer| tokens]?", "how does streaming work?", "streaming?", "can i stream[ the answer|]?",
         "can quire stream?", "explain streaming", "how to stream[| with quire]", "does it support streaming?"],
        ["Send \"stream\": true to POST /v1/chat/completions and read the server-sent events until data: {done}.",
         "Add \"stream\": true to the body of POST /v1/chat/completions. The answer then comes as server-sent events, "
         "[one chunk at a time|a few tokens at a time], and ends with data: {done}."],
    ),
    (
        ["what is the [default|] address[| of quire]?", "what port does quire use?", "which port[| is it on]?",
         "where is the server?", "what is the url?", "where can i reach quire?", "what is the base url?",
         "on which address does it listen?"],
        ["The default address is http://127.0.0.1:8000. The API is under /v1.",
         "Quire listens on http://127.0.0.1:8000 by default. [The chat page is at / and the docs are at /docs.|]"],
    ),
    (
        ["where are the docs?", "where is the documentation?", "is there documentation?", "how do i read the docs?",
         "where can i find the api docs?", "where is the api reference?"],
        ["The documentation is at http://127.0.0.1:8000/docs when the server runs with its default address."],
    ),
    (
        ["is there a [chat page|web page|ui|web interface|page]?", "where is the chat page?", "does quire have a [ui|web page]?",
         "how do i open the page?"],
        ["Yes, the chat page is at http://127.0.0.1:8000/ in your browser."],
    ),
    (
        ["how do i list the models?", "which models are [available|loaded|served]?", "how can i see the models?",
         "what does /v1/models do?", "how do i get the list of models?"],
        ["Send GET /v1/models. The answer lists the models that the server has."],
    ),
    (
        ["how do i check [that the server is up|the health|if it is running]?", "what does /health do?",
         "is there a health check?", "how do i know that quire is ready?", "health endpoint?"],
        ["Send GET /health. It answers with status 200 when the server is up."],
    ),
    (
        ["how do i use [the completions endpoint|/v1/completions]?", "what does /v1/completions do?",
         "can i complete plain text?", "how do i complete [a prompt|text]?", "is there a completions endpoint?"],
        ["Send POST /v1/completions with a model and a prompt. The model continues the text of the prompt."],
    ),
    (
        ["how do i [chat|send a message|call the api|make a request|use the api|use quire]?", "how do i send a chat request?",
         "what does /v1/chat/completions do?", "how do i talk to the model over http?", "which endpoints are there?",
         "what endpoints does quire have?", "show me the api"],
        ["Send POST /v1/chat/completions with a model and a list of messages. Each message has a role and a content.",
         "The main endpoints are POST /v1/chat/completions, POST /v1/completions, GET /v1/models and GET /health."],
    ),
    (
        ["[show me|give me|write] a curl [example|command]", "how do i use curl?", "how do i call it with curl?", "curl example?"],
        ["curl http://127.0.0.1:8000/v1/chat/completions -H \"Content-Type: application/json\" "
         "-d '{\"model\": \"quire-pico\", \"messages\": [{\"role\": \"user\", \"content\": \"hello\"}]}'"],
    ),
    (
        ["how do i use [the openai client|openai python|the openai python client|the openai library|the python client]?",
         "how do i [connect|call it] from python?", "python example?", "does the openai client work?",
         "can i use the openai [sdk|client|library]?", "how do i use quire from python?", "openai client example"],
        ["Use the openai package with base_url=\"http://127.0.0.1:8000/v1\":\n\n```python\nfrom openai import OpenAI\n\n"
         "client = OpenAI(base_url=\"http://127.0.0.1:8000/v1\", api_key=\"none\")\n"
         "answer = client.chat.completions.create(\n    model=\"quire-pico\",\n"
         "    messages=[{\"role\": \"user\", \"content\": \"hello\"}],\n)\nprint(answer.choices[0].message.content)\n```",
         "Yes, the openai Python client works: create OpenAI(base_url=\"http://127.0.0.1:8000/v1\", api_key=\"none\") and call "
         "client.chat.completions.create as usual."],
    ),
    (
        ["how do i [serve|use|run|load|start] [another|a different|a bigger|my own|a larger|a better] model?",
         "can i [serve|use|run|load] [another|a bigger|my own|a larger] model?",
         "how do i serve [Llama|Qwen|Mistral|a hugging face model]?",
         "how can i change the model?", "how do i switch models?"],
        ["Run quire serve MODEL, where MODEL is a local directory or a name on the Hugging Face hub.",
         "Name it on the command line: quire serve MODEL. MODEL is a directory with a transformers checkpoint, or a hub name."],
    ),
    (
        ["how do i start [quire|the server]?", "how do i run quire?", "how do i launch quire?", "what is the command to start?"],
        ["Run quire serve. With no argument it serves me, quire-pico; with quire serve MODEL it serves another model."],
    ),
    (
        ["what is temperature?", "what does temperature do?", "explain [the |]temperature", "how do i make answers less random?",
         "what does the temperature parameter do?"],
        ["Temperature sets how random the answer is. At 0 the most likely token is always taken; higher values give more variety.",],
    ),
    (
        ["what is top_p?", "what does top_p do?", "explain top_p", "what is nucleus sampling?", "top_p?"],
        ["top_p keeps the most likely tokens whose probabilities add up to p, and samples among those. A value of 1 keeps all tokens."],
    ),
    (
        ["what is top_k?", "what does top_k do?", "explain top_k", "top_k?"],
        ["top_k keeps only the k most likely tokens and samples among those."],
    ),
    (
        ["what is max_tokens?", "what does max_tokens do?", "how do i limit the length?", "how do i get shorter answers?",
         "how do i make the answer shorter?", "explain max_tokens"],
        ["max_tokens is the largest number of tokens that the answer may have. A smaller value gives a shorter answer."],
    ),
    (
        ["what is [a|the] seed?", "what does seed do?", "how do i get the same answer twice?", "how do i make it reproducible?",
         "explain the seed parameter", "how can i get deterministic answers?"],
        ["seed fixes the random choices. The same request with the same seed gives the same text.",
         "Set seed to a number: the same request with the same seed then gives the same answer. Temperature 0 also does."],
    ),
    (
        ["what is stop?", "what does stop do?", "what are stop sequences?", "how do i use stop strings?", "explain the stop parameter"],
        ["stop is a string or a list of strings. The answer ends just before the first of them."],
    ),
    (
        ["what does n do?", "how do i get [several|many|more than one] answers?", "what is the n parameter?"],
        ["n is the number of answers to one request. With n set to 3 you get three choices."],
    ),
    (
        ["what are logprobs?", "what does logprobs do?", "explain logprobs", "how do i get token probabilities?"],
        ["logprobs asks for the logarithm of the probability of each token, so you can see how sure the model was."],
    ),
    (
        ["which parameters [can i use|are there|do you support]?", "what parameters are supported?", "what can i set in a request?",
         "list the parameters", "what sampling parameters are there?"],
        ["You can set temperature, top_p, top_k, max_tokens, seed, stop, n, logprobs and stream."],
    ),
    (
        ["do i need [a gpu|a graphics card|cuda]?", "does quire need a gpu?", "can quire run on [a|the] cpu?", "can i run it on a laptop?"],
        ["No. Quire runs on a plain CPU, and it is much faster on a GPU with a large model."],
    ),
    (
        ["does quire work offline?", "does quire need the internet?", "do i need to download anything?"],
        ["No download is needed for me: I live inside the package. Another model must be on disk or be fetched once."],
    ),
    (
        ["why was my request slow?", "how do i see why a request was slow?", "how do i trace a request?", "what does quire why do?"],
        ["Run quire why with the id of the request. It shows how long the request waited, and why."],
    ),
]  # fmt: skip
