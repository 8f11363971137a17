"""Simon Willison's `llm`, with a model of `extra-openai-models.yaml`."""

import os
import tempfile
from pathlib import Path

from common import API_KEY, MODEL, OPENAI_URL, QUESTION, multiply, report

folder = tempfile.mkdtemp()
os.environ["LLM_USER_PATH"] = folder
Path(folder, "extra-openai-models.yaml").write_text(
    f"- model_id: here\n  model_name: {MODEL}\n  api_base: {OPENAI_URL}\n"
    "  api_key_name: here\n  supports_tools: true\n"
)
import llm  # noqa: E402  (reads where its files are)

model = llm.get_model("here")
model.key = API_KEY
ask = model.prompt(QUESTION, stream=False).text()
stream = "".join(model.prompt(QUESTION, stream=True))
after = model.chain(QUESTION, tools=[multiply]).text()
report(ask=ask, stream=stream, tools=after)
