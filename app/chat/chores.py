"""Chores: what chat clients ask by themselves about a conversation, and no user asked for.

A title for a new chat, tags, follow-up questions, the search query of a retrieval step, what to
remember of the user. A chore is known by what all these prompts have in common, not by one
client's wording: it orders one of them for *the conversation*, and it carries the conversation:
as earlier turns, as a transcript, between marks, or as the message that a chat begins with. Read
for it were the default prompts of Open WebUI, LibreChat, LobeChat, Hugging Face's chat-ui,
NextChat, Cherry Studio, Continue, Zed, opencode, Claude Code, GitHub Copilot, Vercel's chatbot,
Dify, Flowise, Perplexica, LangChain, LlamaIndex and mem0.

What a person writes ("a concise title for my blog post") lacks one of the two. Not found are
chores in languages whose words are not here, unless they are in Open WebUI's marks; a header and
a namespace's setting are for those.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from app.domain.trajectory import Message
from app.loop.steer.injector import SYSTEM_ROLES, is_single_turn, last_user, text_of

DECLARED = "declared"
"""Of a chore that the request itself, or its namespace, says to be one."""

_HEAD = 500
"""Characters in which a prompt says what it is about."""
_FIRST = 150
"""Characters of its first sentence."""
_END = 500
"""Characters after a transcript in which some repeat it."""
_SCANNED = 4_000
"""Characters at either end of a text in which a conversation is looked for."""
_OWN_MESSAGE = 700
"""Longest last message of a conversation that can be a client's order about it."""

_ABOUT = r"(?:(?!\babout\b)[^\n]){0,100}?"
_PRODUCT = r"(?!s?[ -](?:app|room|gpt|client|support|service|feature|window|software|platform|api))"
_CONVERSATION = (
    r"(?:\b(?:conversation|chat(?:bot)?|dialog(?:ue)?|discussion|thread|session)s?\b" + _PRODUCT
    + r"|\b(?:first|initial|opening|user(?:'s)?|following|this) (?:user )?"
    r"(?:message|query|request)\b"
    r"|对话|對話|会话|會話|聊天|这句话|会話|チャット|대화|채팅"
    r"|\b(?:conversaci[oó]n|conversazione|conversa|charla|gespräch|unterhaltung|chatverlauf)"
    r"|\b(?:разговор|бесед|диалог|чат|sohbet|konuşma|rozmow)|محادثة)"
)  # fmt: skip
_NAMED = (
    r"\b(?:conversation|chat|thread|session) an? (?:\w+ )?name\b"
    r"|\b(?:name|description) (?:for|of) (?:this|the|our) (?:conversation|chat|thread|session)\b"
)
_FOREIGN_TITLE = (
    r"(?:标题|標題|主题|主題|タイトル|제목|عنوان"
    r"|\b(?:t[ií]tulo|titre|titel|titolo|заголов|назван|başl\u0131|tytuł))"
)
_TITLE = rf"(?:\b(?:title|titling|titled|headline)s?\b|{_FOREIGN_TITLE})"
_ORDER = (
    r"\b(?:generat|creat|writ|provid|giv|suggest|produc|mak|com(?:e|ing) up|reply|replies|respond"
    r"|return|output|extract|propos|craft|compos|summari|analy[sz]|predict|rephras|rewrit"
    r"|reformulat|formulat|categori|assign|determin|convert|condens|label|maintain|stor|updat"
    r"|compar|g[eé]n[eè]r|cr[eé]|erstell|erzeug|schreib|escrib|scriv|propon|созда|придум|состав"
    r"|oluştur|utwórz)\w*\b"
)
_THIS = (
    r"(?:(?:this|our|the|that|above|entire|whole|current|following|given|a)\s+){1,3}"
    r"(?:\w+\s+)?(?:conversation|chat|dialog(?:ue)?|discussion|thread|session|message|query)\b"
    + _PRODUCT
)
_FLAGS = re.IGNORECASE

_KINDS: dict[str, re.Pattern[str]] = {
    "title": re.compile(
        f"{_TITLE}{_ABOUT}{_CONVERSATION}|{_CONVERSATION}{_ABOUT}{_TITLE}|{_NAMED}", _FLAGS
    ),
    "tags": re.compile(rf"\btags\b{_ABOUT}{_CONVERSATION}|{_CONVERSATION}{_ABOUT}\btags\b", _FLAGS),
    "search_query": re.compile(
        r"\b(?:generat|re(?:writ|phras|formulat)|formulat|convert|condens|writ|creat|produc|turn)\w*\b"
        r"[^\n]{0,80}\b(?:stand-?alone (?:\w+ )?(?:question|query|search)"
        r"|(?:search|retrieval|web)[ -](?:\w+ )?quer(?:y|ies)\b)"
        r"|\b(?:question|query) re(?:phras|writ|formulat)"
        r"|搜索关键词|检索词|独立的?问题",
        _FLAGS,
    ),
    "follow_ups": re.compile(
        r"\b(?:suggest|generat|writ|propos|predict|creat|produc|anticipat)\w*\b[^\n]{0,60}"
        r"\b(?:follow[- ]?ups?\b[^\n]{0,30}\b(?:questions|prompts|suggestions)|next questions?"
        r"|questions?\b[^\n]{0,40}\b(?:user|human|person)s?\b[^\n]{0,20}\b(?:ask|say|want|next))\b"
        r"|追问|后续问题",
        _FLAGS,
    ),
    "memory": re.compile(
        r"\bpersonal information organi[sz]er\b|\bmemory manager\b"
        r"|\b(?:extract|stor|sav|maintain|updat|manag|retain|identif)\w*\b[^\n]{0,80}"
        r"\b(?:user )?(?:memor(?:y|ies)|facts? about the user|user preferences|personal facts)\b",
        _FLAGS,
    ),
    "summary": re.compile(
        r"\bsummar\w+\b[^\n]{0,80}\b(?:future context|prompt for|continu\w+ the conversation)",
        _FLAGS,
    ),
}
"""What a prompt's head says that orders such a chore; the first that fits is named."""

_TITLED = re.compile(_TITLE, _FLAGS)
_TITLE_OF = re.compile(
    rf"{_TITLE}[^.,\n]{{0,40}}\b(?:for|of|summari\w+|captur\w+|based on)\b[^.,\n]{{0,40}}"
    rf"{_CONVERSATION}|{_CONVERSATION}[ -](?:\w+ )?{_TITLE}",
    _FLAGS,
)
"""A title whose conversation stands beside it."""
_WANTED = (
    "titl", "headline", "name", "descri", "tag", "question", "quer", "search", "follow", "memor",
    "facts", "preferences", "personal information", "summar", "titre", "título", "titulo", "titel",
    "titolo", "заголов", "назван", "başl", "tytuł", "标题", "標題", "主题", "主題", "追问", "问题",
    "检索", "搜索", "タイトル", "제목", "عنوان",
)  # fmt: skip
"""Without one of these no pattern of a chore fits, which most requests are so spared."""
_SEEN_IN = re.compile(_CONVERSATION + r"|\b(?:history|follow[- ]?up|messages)\b", _FLAGS)
"""Words that speak of a conversation."""
_ORDERED = re.compile(_ORDER + "|" + r"[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]", _FLAGS)
_BESIDE = re.compile(
    r"\b(?:after (?:each|every|you|your|answering|the answer)|at the end|(?:and|,) then\b"
    r"|in addition|as well as answer|when(?:ever)? (?:the user )?ask(?:s|ed)"
    r"|(?<!not )answer(?:s|ing)? (?:the|their|all|any)?\s*(?:user's )?(?:question|customer|user)"
    r"|and answer|helps? (?:\w+ )?(?:users|people|customers|writers)"
    r"|with (?:\w+ )?long-term memory|with your tools|chat with the user)",
    _FLAGS,
)
"""A job that has the chore beside it."""
_OF_THIS = re.compile(
    rf"(?:{_TITLE}|\btags?\b)[^.\n]{{0,60}}?\b{_THIS}|{_NAMED}"
    r"|\bquestions?\b[^\n]{0,40}\b(?:the )?(?:user|human)s?\b[^\n]{0,20}\b(?:ask|say|next)\b"
    r"|\bsummar\w+\b[^\n]{0,80}\bfuture context"
    r"|(?:generat|总结|概括|使用|返回)[^\n]{0,80}(?:标题|標題|主题|主題|タイトル|제목)"
    rf"|{_CONVERSATION}{_ABOUT}{_FOREIGN_TITLE}|{_FOREIGN_TITLE}{_ABOUT}{_CONVERSATION}",
    _FLAGS,
)  # fmt: skip
"""An order about this very conversation, in the words of a third person."""
_BARE = re.compile(
    r"\b(?:only|without|omit\w*|no (?:quot|punct|addit|other|extra|explan)\w*|do not|don't"
    r"|straight to|your (?:only )?(?:task|job) is|or (?:less|fewer)"
    r"|(?:\d|three|four|five|six|ten)[- ](?:\d+ )?words?|json"
    r"|ohne|sans|senza|sin|sem|без|nur|solo|seulement)\b|不要|不需要|直接|のみ|なし|없이",
    _FLAGS,
)
"""How an answer is ordered that a program reads."""

_MARKED = re.compile(
    r"<(?:chat|conversation|message|dialogue?|session|transcript|history)s?(?:[ _-]history)?>"
    r"|^[#*_ ]{0,6}(?:chat|conversation|message|dialogue?)s?[ _-]?(?:history|log|transcript)?"
    r"[*_ ]{0,3}[:\uff1a]"
    r"|\"role\"\s{0,3}:\s{0,3}\"assistant\"",
    re.IGNORECASE | re.MULTILINE,
)  # fmt: skip
_ASKS = re.compile(
    r"^[^\w\n]{0,6}(?:user|human|customer|用户|ユーザー|사용자)(?: (?:message|query|input|said))?"
    r"[\"'*_\]]{0,3}\s{0,3}[:\uff1a]",
    re.IGNORECASE | re.MULTILINE,
)
_ANSWERS = re.compile(
    r"^[^\w\n]{0,6}(?:assistant|ai|bot|model|agent|gpt|助手|アシスタント)(?: (?:message|response))?"
    r"[\"'*_\]]{0,3}\s{0,3}[:\uff1a]",
    re.IGNORECASE | re.MULTILINE,
)
_OPEN_WEBUI = re.compile(r"\s{0,20}###\s{0,3}Task:", re.IGNORECASE)
_OPEN_WEBUI_TEXT = re.compile(
    r"</chat_history>|<type>[^<]{0,40}</type>\s{0,4}<text>", re.IGNORECASE
)
_KEYS = {
    "title": '"title"',
    "tags": '"tags"',
    "follow_ups": '"follow_ups"',
    "search_query": '"queries"',
}
"""By which Open WebUI's templates name what they want, in whatever language they are written."""
_TASKS = {
    "title_generation": "title",
    "tags_generation": "tags",
    "follow_up_generation": "follow_ups",
    "query_generation": "search_query",
    "emoji_generation": "emoji",
    "image_prompt_generation": "image_prompt",
    "autocomplete_generation": "autocomplete",
}
"""`metadata.task` of Open WebUI's requests."""


def chore_of(messages: Sequence[Message], body: Mapping[str, Any]) -> str | None:
    """Which chore a chat request is; None for one that somebody asked."""
    metadata = body.get("metadata")
    task = metadata.get("task") if isinstance(metadata, dict) else None
    if isinstance(task, str) and task in _TASKS:
        return _TASKS[task]
    at = last_user(messages)
    if at is None:
        return None
    asked = text_of(messages[at].get("content"))
    told = _told(messages)
    for text in (told, asked):
        if (found := _of_open_webui(text)) is not None:
            return found
    if told and (found := _of_instructions(told)) is not None:
        return found
    if is_single_turn(messages):
        return _of_transcript(asked)
    return _of_turns(asked)


def _told(messages: Sequence[Message]) -> str:
    """The beginning of what the system messages say."""
    told = [each for each in messages if each.get("role") in SYSTEM_ROLES]
    return "\n".join(_ends(text_of(each.get("content"))) for each in told[:4])


def _ends(text: str) -> str:
    if len(text) <= 2 * _SCANNED:
        return text
    return f"{text[:_SCANNED]}\n{text[-_SCANNED:]}"


def _of_open_webui(text: str) -> str | None:
    if not _OPEN_WEBUI.match(text):
        return None
    ends = _ends(text)
    if not _OPEN_WEBUI_TEXT.search(ends):
        return None
    return next((kind for kind, key in _KEYS.items() if key in ends), "other")


def _of_instructions(told: str) -> str | None:
    """Of a system message whose whole job is the chore."""
    head = told[:_HEAD]
    if not _orders(head) or _BESIDE.search(head):
        return None
    kind = _kind(head)
    if kind == "title":
        whole = _TITLE_OF.search(head) is not None
    else:
        whole = kind is not None and _kind(head[:_FIRST]) == kind
    return kind if whole or _BARE.search(head) else None


def _of_transcript(asked: str) -> str | None:
    """Of one message with order and conversation in it."""
    parts = [part for part in (asked[:_HEAD], asked[-_END:]) if _orders(part)]
    ends = _ends(asked) if parts else ""
    if not (_ASKS.search(ends) or _MARKED.search(ends)):
        return None
    told = _ANSWERS.search(ends) is not None
    for part in parts:
        if _BESIDE.search(part):
            continue
        kind = _kind(part)
        if kind is None and told and _TITLED.search(part) and _BARE.search(part):
            kind = "title"
        if kind == "title" and not (_OF_THIS.search(part) or _BARE.search(part)):
            continue
        if kind is not None:
            return kind
    return None


def _of_turns(asked: str) -> str | None:
    """Of a last message about the turns before it."""
    if len(asked) > _OWN_MESSAGE or not (_wants(asked) and _ORDERED.search(asked)):
        return None
    if not (_BARE.search(asked) and _OF_THIS.search(asked)):
        return None
    return _kind(asked) or "title"


def _orders(text: str) -> bool:
    """Whether a text orders something, and speaks of a conversation."""
    seen = _wants(text) and _SEEN_IN.search(text) is not None
    return seen and _ORDERED.search(text) is not None


def _wants(text: str) -> bool:
    lowered = text.lower()
    return any(word in lowered for word in _WANTED)


def _kind(text: str) -> str | None:
    return next((kind for kind, pattern in _KINDS.items() if pattern.search(text)), None)
