// openai for JavaScript, Responses.

import OpenAI from "openai";
import { API_KEY, MODEL, OPENAI_URL, PARAMETERS, QUESTION, multiply, report } from "./common.mjs";

const client = new OpenAI({ baseURL: OPENAI_URL, apiKey: API_KEY });
const answer = await client.responses.create({ model: MODEL, input: QUESTION });
let stream = "";
for await (const event of await client.responses.create({ model: MODEL, input: QUESTION, stream: true })) {
  if (event.type === "response.output_text.delta") stream += event.delta;
}
const tools = [{ type: "function", name: "multiply", parameters: PARAMETERS, strict: false }];
const input = [{ role: "user", content: QUESTION }];
const called = await client.responses.create({ model: MODEL, input, tools });
const call = called.output.find((item) => item.type === "function_call");
const output = multiply(JSON.parse(call.arguments));
const told = { type: "function_call_output", call_id: call.call_id, output };
const after = await client.responses.create({
  model: MODEL,
  input: [...input, ...called.output, told],
  tools,
});
report({ ask: answer.output_text, stream, tools: after.output_text });
