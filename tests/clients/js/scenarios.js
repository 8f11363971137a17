// One scenario with the official client for JavaScript; what it saw is printed as a line of JSON.
//
//     node scenarios.js NAME '{"client": {"baseURL": "...", "apiKey": "..."}, "body": {...}}'
//
// An error of the client is a result as well: {"error": {"name": "NotFoundError", ...}}.

import OpenAI from "openai";

const scenarios = {
  /** A whole answer with the response's headers. */
  async answer({ client, body }) {
    const { data, response } = await client.chat.completions.create(body).withResponse();
    return { answer: data, requestId: data._request_id, headers: Object.fromEntries(response.headers) };
  },

  /** The chunks as the client hands them out; those before an error are kept. */
  async stream({ client, body }) {
    const { data, response } = await client.chat.completions
      .create({ ...body, stream: true })
      .withResponse();
    const seen = { chunks: [], headers: Object.fromEntries(response.headers) };
    try {
      for await (const chunk of data) seen.chunks.push(chunk);
    } catch (error) {
      seen.error = described(error);
    }
    return seen;
  },

  /** The helper that puts a stream together again. */
  async helper({ client, body }) {
    const deltas = [];
    const stream = client.chat.completions.stream(body).on("content", (delta) => deltas.push(delta));
    return { deltas, answer: await stream.finalChatCompletion() };
  },

  /** An answer whose JSON the client parses. */
  async parse({ client, body }) {
    const answer = await client.chat.completions.parse(body);
    return { parsed: answer.choices[0].message.parsed };
  },

  /** The helper that calls functions of ours until the model has answered. */
  async tools({ client, body }) {
    const calls = [];
    const subtract = ({ from, amount }) => {
      calls.push([from, amount]);
      return String(from - amount);
    };
    const parameters = {
      type: "object",
      properties: { from: { type: "integer" }, amount: { type: "integer" } },
    };
    const tool = { name: "subtract", function: subtract, parse: JSON.parse, parameters };
    const runner = client.chat.completions.runTools({
      ...body,
      tools: [{ type: "function", function: tool }],
    });
    return { text: await runner.finalContent(), calls };
  },

  async models({ client, model }) {
    const listed = [];
    for await (const each of client.models.list()) listed.push(each.id);
    return { listed, one: await client.models.retrieve(model) };
  },

  async feedback({ client, body }) {
    return await client.post("/feedback", { body });
  },

  /** Leaves a stream after some chunks, and lives on until its input ends. */
  async leave({ client, body, after, by }) {
    const stream = await client.chat.completions.create({ ...body, stream: true });
    let seen = 0;
    for await (const _ of stream) {
      seen += 1;
      if (seen < after) continue;
      if (by === "break") break;
      stream.controller.abort();
    }
    print({ seen });
    for await (const _ of process.stdin);
  },

  /** The first answer is lost on its way, so that the client asks again by itself. */
  async retry({ options, body }) {
    const attempts = [];
    const losesTheFirst = async (url, init) => {
      const response = await fetch(url, init);
      attempts.push({
        retry: new Headers(init.headers).get("x-stainless-retry-count"),
        episode: response.headers.get("x-ttcl-episode"),
      });
      if (attempts.length > 1) return response;
      await response.text();
      throw new TypeError("terminated");
    };
    const client = new OpenAI({ ...options, maxRetries: 1, fetch: losesTheFirst });
    const answer = await client.chat.completions.create(body);
    return { attempts, answer };
  },
};

function described(error) {
  const { status, code, type, param, requestID, message } = error;
  return { name: error.constructor.name, status, code, type, param, requestID, message };
}

function print(value) {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

const [name, given] = process.argv.slice(2);
const { client: options, ...rest } = JSON.parse(given);
try {
  const client = new OpenAI({ maxRetries: 0, ...options });
  const seen = await scenarios[name]({ client, options, ...rest });
  if (seen !== undefined) print(seen);
} catch (error) {
  if (!(error instanceof OpenAI.OpenAIError)) throw error;
  print({ error: described(error) });
}
