// Anthropic's SDK for JavaScript, Messages.

import Anthropic from "@anthropic-ai/sdk";
import { API_KEY, BASE_URL, MODEL, PARAMETERS, QUESTION, multiply, report } from "./common.mjs";

const client = new Anthropic({ baseURL: BASE_URL, apiKey: API_KEY });
const fixed = { model: MODEL, max_tokens: 256 };
const messages = [{ role: "user", content: QUESTION }];
const answer = await client.messages.create({ ...fixed, messages });
let stream = "";
await client.messages
  .stream({ ...fixed, messages })
  .on("text", (text) => (stream += text))
  .finalMessage();
const tools = [{ name: "multiply", description: "Multiply.", input_schema: PARAMETERS }];
const called = await client.messages.create({ ...fixed, messages, tools });
const call = called.content.find((block) => block.type === "tool_use");
const result = { type: "tool_result", tool_use_id: call.id, content: multiply(call.input) };
const after = await client.messages.create({
  ...fixed,
  tools,
  messages: [
    ...messages,
    { role: "assistant", content: called.content },
    { role: "user", content: [result] },
  ],
});
report({ ask: answer.content[0].text, stream, tools: after.content[0].text });
