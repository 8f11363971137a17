"""How the scripted upstream's endpoints for chat, in whichever format, send a reply, keep to its
faults and note aborts."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.format_wires import WIRES, framed
from tests.replies import Fault, Reply, Wire

if TYPE_CHECKING:
    from tests.fakes import Call, ScriptedUpstream


class ChatEndpoint:
    """It must see a disconnect and be able to cause one."""

    def __init__(self, upstream: ScriptedUpstream) -> None:
        self._upstream = upstream

    async def __call__(self, call: Call, scope: Any, receive: Any, send: Any) -> None:
        answer = asyncio.create_task(self._answer(call, scope, send))
        gone = asyncio.create_task(_disconnect(receive))
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                call.finished = time.monotonic()
                answer.result()
            else:
                call.aborted = time.monotonic()
        finally:
            answer.cancel()
            gone.cancel()

    async def _answer(self, call: Call, scope: Any, send: Any) -> None:
        upstream, body = self._upstream, call.asked
        if upstream.lax:
            reply = upstream.default
        else:
            reply = upstream.refusal(call) or upstream.reply_to(body)
        await asyncio.sleep(reply.delay)
        while reply.held():
            await asyncio.sleep(0.005)
        streamed = bool(body.get("stream")) and reply.status == 200 and reply.body is None
        if reply.fault is Fault.REFUSE or (reply.fault is Fault.CUT and not streamed):
            upstream.drop(scope)
            return
        if reply.fault is Fault.HANG and not streamed:
            await asyncio.Event().wait()
        sender = _Sender(send, reply, "text/event-stream" if streamed else "application/json")
        if reply.body is not None or reply.status != 200:
            await sender.all(_encoded(reply.body))
            return
        try:
            made = WIRES.get(call.path, Wire)
            wire = made(reply, body, len(upstream.history), upstream.null_usage)
        except (TypeError, ValueError, AttributeError):
            # A field of another type than this server reads, which the gateway leaves to it.
            sender = _Sender(send, replace(reply, status=400), "application/json")
            await sender.all(_encoded({"error": {"message": "a field is of the wrong type"}}))
            return
        if reply.fault is Fault.GARBAGE:
            await sender.all(b"\xff\xfe\x00<html>\x80")
        elif reply.fault is Fault.WRONG_JSON:
            wrong = b'{"unexpected": true}'
            await sender.all(b"data: " + wrong + b"\n\n" if streamed else wrong)
        elif reply.fault is Fault.ENDLESS:
            await self._endless(wire, sender, streamed)
        elif streamed:
            await self._stream(wire, reply, sender, scope)
        else:
            await sender.all(_encoded(wire.whole()))

    async def _endless(self, wire: Wire, sender: _Sender, streamed: bool) -> None:
        _, frame = itertools.islice(wire.frames(), 2)
        piece = framed(frame) if streamed else b" " * 65536
        while True:
            await sender.write(piece)
            await asyncio.sleep(0)  # a server that only fills a buffer would never wait

    async def _stream(
        self,
        wire: Wire,
        reply: Reply,
        sender: _Sender,
        scope: Any,
    ) -> None:
        for number, frame in enumerate(wire.frames()):
            if number:
                await asyncio.sleep(reply.chunk_delay)
            if reply.fault and number == reply.after:
                if reply.fault is Fault.HANG:
                    # The headers must be out, else the client still waits for a status.
                    await sender.write(b"")
                    await asyncio.Event().wait()
                if reply.fault is Fault.CUT:
                    await asyncio.sleep(0.02)  # let what was written leave the socket
                    self._upstream.drop(scope)
                    return
                if reply.fault is Fault.ERROR_FRAME:
                    await sender.write(framed(wire.error()))
                    break
            await sender.write(framed(frame))
        await sender.write(wire.ends)
        await sender.end()


class _Sender:
    """One HTTP response, its body optionally cut into small TCP writes."""

    def __init__(self, send: Any, reply: Reply, kind: str) -> None:
        self._send = send
        self._reply = reply
        self._kind = kind
        self._started = False

    async def write(self, data: bytes) -> None:
        if not self._started:
            self._started = True
            headers = {"content-type": self._kind, **self._reply.headers}
            pairs = [(k.lower().encode(), v.encode()) for k, v in headers.items()]
            start = {"type": "http.response.start", "status": self._reply.status, "headers": pairs}
            await self._send(start)
        step = self._reply.wire_split or len(data) or 1
        for at in range(0, max(len(data), 1), step):
            piece = data[at : at + step]
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            if self._reply.wire_split:
                await asyncio.sleep(0)

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def all(self, data: bytes) -> None:
        await self.write(data)
        await self.end()


def _encoded(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()


async def _disconnect(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
