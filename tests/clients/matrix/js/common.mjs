// What each script is told, and what it says of its client.

export const { BASE_URL, API_KEY, MODEL } = process.env;
export const OPENAI_URL = `${BASE_URL}/v1`;
export const QUESTION = "What is 12 times 7?";
export const PARAMETERS = {
  type: "object",
  properties: { a: { type: "integer" }, b: { type: "integer" } },
  required: ["a", "b"],
};

export const multiply = ({ a, b }) => String(a * b);

export function report(seen) {
  console.log(JSON.stringify(seen));
  process.exit(0);
}
