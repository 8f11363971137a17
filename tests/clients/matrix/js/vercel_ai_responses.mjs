// Vercel's AI SDK with its OpenAI provider, which speaks Responses.

import { createOpenAI } from "@ai-sdk/openai";
import { generateText, streamText } from "ai";
import { API_KEY, MODEL, OPENAI_URL, QUESTION, report } from "./common.mjs";

const model = createOpenAI({ baseURL: OPENAI_URL, apiKey: API_KEY })(MODEL);
const answer = await generateText({ model, prompt: QUESTION });
let stream = "";
for await (const text of streamText({ model, prompt: QUESTION }).textStream) stream += text;
report({ ask: answer.text, stream, tools: null });
