// What the server's public API says and takes, as far as the page uses it. contracts/openapi.json is the whole of it.

export interface ModelCard {
  id: string;
  state: "unloaded" | "loading" | "ready" | "draining" | "failed";
  is_default: boolean;
  display_name: string;
  description: string;
  family: string;
  kind: "chat" | "base" | null;
  progress: { stage: string; fraction: number | null } | null;
  error: string | null;
  memory_bytes: number | null;
  max_model_len: number | null;
  architecture: string | null;
  dtype: string | null;
  num_parameters: number | null;
  sampling_defaults: Record<string, number> | null;
}

export interface Sampling {
  temperature?: number;
  top_p?: number;
  top_k?: number;
  min_p?: number;
  repetition_penalty?: number;
  max_tokens?: number;
  seed?: number;
}

export interface Preset extends Sampling {
  id: string;
}

export interface Conversation {
  id: string;
  title: string | null;
  created_at: number;
  updated_at: number;
  model: string | null;
  system_prompt: string | null;
  num_messages: number;
}

export interface KeptMessage {
  id: string;
  role: "user" | "assistant";
  content: string;
  model?: string | null;
  finish_reason?: string | null;
  error?: string | null;
}

export interface ConversationDetail extends Conversation {
  messages: KeptMessage[];
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  prompt_tokens_details: { cached_tokens: number };
}

export interface ChatChunk {
  id: string;
  model: string;
  choices: { delta: { content?: string }; finish_reason: string | null }[];
  usage?: Usage | null;
  trace_id?: string;
  error?: ErrorObject;
}

export interface ErrorObject {
  message: string;
  code: string | null;
  param: string | null;
}

export interface Phase {
  name: string;
  sample: number;
  start_ms: number;
  end_ms: number | null;
  details: Record<string, string | number>;
}

export interface Explanation {
  id: string;
  request_id: string;
  trace_id: string | null;
  trace_url: string | null;
  model: string;
  key: string;
  submitted: number;
  status: "queued" | "running" | "completed" | "failed" | "cancelled";
  finish_reason: string | null;
  queue_position: number | null;
  total_ms: number;
  queue_ms: number;
  ttft_ms: number | null;
  decode_ms: number | null;
  prompt_tokens: number;
  cached_tokens: number;
  completion_tokens: number;
  preemptions: number;
  main_cause: string;
  sentences: string[];
  phases: Phase[];
}

/** One look at the engine, as GET /v1/live sends it a few times a second. */
export interface LiveView {
  model: string;
  at: number;
  period_s: number;
  block_size: number;
  num_blocks: number;
  num_free_blocks: number;
  num_cached_blocks: number;
  runs: number[];
  shared: number[];
  running: LiveRow[];
  waiting: LiveWaiting[];
  num_waiting: number;
  max_num_seqs: number;
  counters: LiveCounters;
}

export interface LiveRow {
  seq: number;
  request: string | null;
  sample: number;
  key: string | null;
  phase: "prefill" | "decode";
  prompt_tokens: number;
  cached_tokens: number;
  computed_tokens: number;
  output_tokens: number;
  max_tokens: number;
  num_blocks: number;
  num_preemptions: number;
  age_s: number;
}

export interface LiveWaiting {
  seq: number;
  request: string | null;
  sample: number;
  key: string | null;
  prompt_tokens: number;
  age_s: number;
  is_preempted: boolean;
}

export interface LiveCounters {
  num_steps: number;
  num_requests: number;
  num_ended: number;
  num_preemptions: number;
  num_prompt_tokens: number;
  num_cached_tokens: number;
  num_generated_tokens: number;
  num_scheduled_seqs: number;
  step_time_s: number;
  first_token_s: number;
  num_first_tokens: number;
  inter_token_s: number;
  num_inter_tokens: number;
}
