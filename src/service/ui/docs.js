// The API page: every operation of /openapi.json, with a form that sends a real request.
const template = document.getElementById("operation-template");
const spec = await (await fetch("/openapi.json")).json();

document.getElementById("version").textContent = spec.info.version;
document.getElementById("base").textContent = `${location.origin}/v1`;
const model = await fetch("/v1/models").then((reply) => reply.json()).then((list) => list.data[0].id).catch(() => null);

function resolve(schema) {
  return schema?.$ref ? spec.components.schemas[schema.$ref.split("/").pop()] : schema;
}

function typeOf(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" | ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.type === "array") return `list of ${typeOf(schema.items ?? {})}`;
  const range = [schema.minimum ?? schema.exclusiveMinimum, schema.maximum ?? schema.exclusiveMaximum];
  const limits = range.some((value) => value !== undefined) ? ` ${range[0] ?? ""}…${range[1] ?? ""}` : "";
  return (schema.type ?? "any") + limits;
}

function fillFields(table, schema) {
  const rows = Object.entries(resolve(schema)?.properties ?? {});
  for (const [name, field] of rows) {
    const row = table.insertRow();
    row.insertCell().textContent = resolve(schema).required?.includes(name) ? `${name} *` : name;
    row.insertCell().textContent = typeOf(field);
    row.insertCell().textContent = field.description ?? "";
  }
}

async function send(view, method, path, body) {
  const controller = new AbortController();
  const stop = view(".stop"), reply = view(".reply"), outcome = view(".outcome");
  stop.onclick = () => controller.abort();
  stop.hidden = false;
  reply.hidden = false;
  reply.textContent = "";
  const startedMs = performance.now();
  try {
    const options = { method, signal: controller.signal };
    if (body !== null) Object.assign(options, { body, headers: { "content-type": "application/json" } });
    const response = await fetch(path, options);
    outcome.textContent = `${response.status} ${response.statusText} · request ${response.headers.get("x-request-id")}`;
    const isJson = response.headers.get("content-type")?.startsWith("application/json");
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let part; !(part = await reader.read()).done;) reply.append(part.value);
    if (isJson) reply.textContent = JSON.stringify(JSON.parse(reply.textContent), null, 2);
    outcome.textContent += ` · ${Math.round(performance.now() - startedMs)} ms`;
  } catch (error) {
    outcome.textContent = error.name === "AbortError" ? "stopped" : `no reply: ${error.message}`;
  }
  stop.hidden = true;
}

function show(path, method, operation) {
  const node = template.content.firstElementChild.cloneNode(true);
  const view = (selector) => node.querySelector(selector);
  const content = operation.requestBody?.content["application/json"];
  view(".title").textContent = `${method.toUpperCase()} ${path}`;
  view(".about").textContent = operation.summary;
  view(".path").value = path.replace("{model_id}", model ?? "model").replace("{name}", "icon.svg");
  view(".path-label").hidden = !path.includes("{");
  view(".body-label").hidden = !content;
  if (content) {
    view(".body").value = JSON.stringify(model ? { model, ...content.example } : content.example, null, 2);
    fillFields(view(".fields"), content.schema);
  }
  const showCurl = () => {
    const data = content ? ` \\\n  -H 'content-type: application/json' \\\n  -d '${view(".body").value.replaceAll("'", "'\\''")}'` : "";
    view(".curl").textContent = `curl ${location.origin}${view(".path").value}${data}`;
  };
  node.addEventListener("input", showCurl);
  showCurl();
  view("form").addEventListener("submit", (event) => {
    event.preventDefault();
    send(view, method.toUpperCase(), view(".path").value, content ? view(".body").value : null);
  });
  document.getElementById("operations").append(node);
}

for (const [path, methods] of Object.entries(spec.paths))
  for (const [method, operation] of Object.entries(methods)) show(path, method, operation);
document.querySelector("details").open = true;
