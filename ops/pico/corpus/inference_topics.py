# ruff: noqa: E501 (word lists and sentences read best unwrapped)
"""How LLM inference works, in short questions and answers."""

INFERENCE_TOPICS: list[tuple[list[str], list[str]]] = [
    (
        ["what is continuous batching?", "explain continuous batching", "how does continuous batching work?",
         "what are continuous batches?", "why continuous batching?", "what is batching?"],
        ["Continuous batching merges requests at every step. A new request joins the running batch as soon as there is room, "
         "and a finished one leaves at once, so nobody waits for the slowest.",
         "With continuous batching the server forms a new batch at each step: new requests join, finished requests leave, "
         "and the processor stays busy."],
    ),
    (
        ["what is [a|the] kv cache?", "explain the kv cache", "kv cache?", "why is there a kv cache?", "what does the kv cache store?"],
        ["The KV cache stores the keys and values of the tokens that the model has read, so that each new token needs only a little work.",
         "A KV cache keeps the attention keys and values of past tokens. Without it, the model would read the whole text again for each new token."],
    ),
    (
        ["what is paged attention?", "explain paged attention", "what is a paged kv cache?", "how does paged attention work?",
         "what is a block table?"],
        ["Paged attention stores the KV cache in small blocks, like pages of memory. A block table says where the blocks of each sequence are, "
         "so little memory is wasted."],
    ),
    (
        ["what is [a|the] prefix cache?", "explain prefix caching", "what is prefix caching?", "how does the prefix cache work?"],
        ["The prefix cache keeps the blocks of earlier prompts. When a new prompt starts with the same text, that part need not be computed again."],
    ),
    (
        ["what is a token?", "what are tokens?", "explain tokens", "what does token mean?", "how long is a token?"],
        ["A token is a small piece of text, such as a word or a part of a word. A model reads and writes tokens.",
         "A token is a piece of text: a short word, or part of a longer one. I know 4,096 different tokens."],
    ),
    (
        ["what is prefill?", "what is the difference between prefill and decode?", "prefill vs decode", "what is decode?",
         "explain prefill and decode", "what is decoding?"],
        ["Prefill reads the whole prompt at once. Decode then writes the answer, one token per step."],
    ),
    (
        ["what is [the |]time to first token?", "what is ttft?", "explain ttft", "what does ttft mean?"],
        ["Time to first token is how long you wait from sending a request until its first token arrives. It is also called TTFT."],
    ),
    (
        ["what [is|are] sse?", "what are server-sent events?", "explain server-sent events", "what does sse mean?"],
        ["Server-sent events, or SSE, are a simple way to stream text over HTTP. Each event is a line that starts with data: and the last one here is data: {done}."],
    ),
    (
        ["what is [a|an] [llm|large language model]?", "what is a language model?", "explain language models", "how does a language model work?"],
        ["A language model is a program that predicts the next token of a text. By doing so again and again, it writes whole answers.",],
    ),
    (
        ["what is inference?", "what is an inference server?", "what does inference mean?", "explain inference"],
        ["Inference is the use of a trained model to get answers. An inference server does it for many users at once."],
    ),
    (
        ["what is [a|the] tokenizer?", "what does a tokenizer do?", "explain tokenizers"],
        ["A tokenizer cuts text into tokens and turns each token into a number. It also turns the numbers back into text."],
    ),
    (
        ["what is [a|the] context [length|window]?", "how long is your context?", "what is your context length?", "how much can you read?"],
        ["The context is all the text that a model can look at, counted in tokens. Mine is 2,048 tokens."],
    ),
    (
        ["what is a [transformer|neural network]?", "explain transformers", "what is attention?", "explain attention"],
        ["A transformer is a neural network that reads tokens and lets each one look at the tokens before it. That looking back is called attention."],
    ),
    (
        ["what is [a|the] gpu?", "why are gpus fast?", "what is a gpu good for?"],
        ["A GPU is a processor that does very many small sums at the same time. That makes it good for language models."],
    ),
    (
        ["what is [an|the] api?", "what does api mean?", "explain apis", "what does openai-compatible mean?"],
        ["An API is a way for programs to talk to each other. OpenAI-compatible means that programs written for the OpenAI API work with Quire too."],
    ),
    (
        ["what is [a|the] scheduler?", "what does the scheduler do?", "what is preemption?", "how are requests scheduled?"],
        ["The scheduler decides at each step which requests run. When memory is short, it pauses the youngest request and computes it again later."],
    ),
    (
        ["what is [a|the] system [prompt|message]?", "how do i set a system prompt?", "what are roles?", "which roles are there?"],
        ["A system message is the first message of a chat, with the role system. It tells the model how to behave. The other roles are user and assistant."],
    ),
    (
        ["what is machine learning?", "what is ai?", "what is artificial intelligence?", "explain ai"],
        ["Artificial intelligence is software that does things that seem to need thought. Machine learning is the kind that learns from examples."],
    ),
    (
        ["what is throughput?", "what is latency?", "throughput vs latency", "what is the difference between latency and throughput?"],
        ["Latency is how long one request takes. Throughput is how much work the server does in a second for everyone."],
    ),
    (
        ["what is sampling?", "what is greedy decoding?", "how is the next token chosen?", "greedy vs sampling"],
        ["Greedy decoding always takes the most likely token. Sampling draws a token at random, with likely tokens drawn more often."],
    ),
    (
        ["what does the word quire mean?", "why is it called quire?", "where does the name quire come from?", "why the name quire?"],
        ["A quire is a gathering of pages. Quire gathers many requests into one batch, over a cache made of pages."],
    ),
]  # fmt: skip
