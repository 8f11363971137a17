"""instructor: an answer as a pydantic model, by a tool."""

import instructor
from common import API_KEY, MODEL, OPENAI_URL, QUESTION, report
from openai import OpenAI
from pydantic import BaseModel


class Product(BaseModel):
    product: int


client = instructor.from_openai(OpenAI(base_url=OPENAI_URL, api_key=API_KEY))
messages = [{"role": "user", "content": QUESTION}]
asked = {"model": MODEL, "messages": messages, "response_model": Product}
whole = client.chat.completions.create(**asked)
*_, last = client.chat.completions.create_partial(**asked)
report(ask=str(whole.product), stream=str(last.product), tools=str(whole.product))
