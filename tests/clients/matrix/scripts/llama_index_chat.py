"""LlamaIndex's OpenAILike."""

from common import API_KEY, MODEL, OPENAI_URL, QUESTION, multiply, report
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

model = OpenAILike(
    model=MODEL,
    api_base=OPENAI_URL,
    api_key=API_KEY,
    is_chat_model=True,
    is_function_calling_model=True,
)
asked = [ChatMessage(role="user", content=QUESTION)]
stream = "".join(part.delta or "" for part in model.stream_chat(asked))
tool = FunctionTool.from_defaults(multiply)
after = model.predict_and_call([tool], user_msg=QUESTION)
report(ask=model.chat(asked).message.content, stream=stream, tools=str(after))
