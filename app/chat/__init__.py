"""One chat request end to end: steer, ask the model, answer, hand over to learning."""

from app.chat.call import Answer, ChatCall, Stream
from app.chat.recorder import LearnPolicy, Recorder
from app.chat.request import ChatRequest, parse_chat
from app.chat.service import ChatService

__all__ = [
    "Answer",
    "ChatCall",
    "ChatRequest",
    "ChatService",
    "LearnPolicy",
    "Recorder",
    "Stream",
    "parse_chat",
]
