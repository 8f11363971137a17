// openai for JavaScript, chat completions.

import OpenAI from "openai";
import { API_KEY, MODEL, OPENAI_URL, PARAMETERS, QUESTION, multiply, report } from "./common.mjs";

const client = new OpenAI({ baseURL: OPENAI_URL, apiKey: API_KEY });
const asked = { model: MODEL, messages: [{ role: "user", content: QUESTION }] };
const answer = await client.chat.completions.create(asked);
let stream = "";
for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) {
  stream += chunk.choices[0]?.delta.content ?? "";
}
const tool = { name: "multiply", function: multiply, parse: JSON.parse, parameters: PARAMETERS };
const runner = client.chat.completions.runTools({
  ...asked,
  tools: [{ type: "function", function: tool }],
});
report({ ask: answer.choices[0].message.content, stream, tools: await runner.finalContent() });
