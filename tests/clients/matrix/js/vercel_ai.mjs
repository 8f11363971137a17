// Vercel's AI SDK with its provider for OpenAI-compatible servers.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";
import { API_KEY, MODEL, OPENAI_URL, PARAMETERS, QUESTION, multiply, report } from "./common.mjs";

const provider = createOpenAICompatible({ name: "here", baseURL: OPENAI_URL, apiKey: API_KEY });
const model = provider(MODEL);
const answer = await generateText({ model, prompt: QUESTION });
let stream = "";
for await (const text of streamText({ model, prompt: QUESTION }).textStream) stream += text;
const after = await generateText({
  model,
  prompt: QUESTION,
  stopWhen: stepCountIs(3),
  tools: {
    multiply: tool({
      description: "Multiply.",
      inputSchema: jsonSchema(PARAMETERS),
      execute: multiply,
    }),
  },
});
report({ ask: answer.text, stream, tools: after.text });
