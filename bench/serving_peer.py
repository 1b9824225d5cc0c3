"""What `bench.serving` compares with: transformers' `generate` behind FastAPI, one request at a time under a lock, OpenAI's shape.

    python -m bench.serving_peer FOLDER

The server that is written in an afternoon. It gets the same weights, the same pixels and the same ids as ours: both do the same work.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response, StreamingResponse


class Model:
    def __init__(self, folder: Path):
        import torch
        from transformers import PaliGemmaForConditionalGeneration

        from paligemma.tokenizer import Tokenizer

        kind: Any = PaliGemmaForConditionalGeneration
        self.model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()
        self.tokenizer = Tokenizer.load(folder)
        self.size = self.model.config.vision_config.image_size
        self.image = [self.model.config.image_token_index] * (self.size // self.model.config.vision_config.patch_size) ** 2

    def answer(self, picture: bytes, text: str, max_tokens: int, on_token: Callable[[int], None]) -> list[int]:
        """Greedy. `on_token` is called with each id as it comes."""
        import torch

        from paligemma.image import open_image, to_pixels
        from paligemma.sequence import prompt_ids

        pixels = torch.from_numpy(to_pixels(open_image(picture), self.size))[None]
        ids = torch.tensor([[*self.image, *prompt_ids(self.tokenizer, text)]])
        with torch.inference_mode():
            made = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                token_type_ids=torch.zeros_like(ids),
                pixel_values=pixels,
                max_new_tokens=max_tokens,
                do_sample=False,
                eos_token_id=self.tokenizer.eos_id,
                pad_token_id=self.tokenizer.pad_id,
                streamer=_Streamer(on_token),
            )
        return [int(id) for id in made[0, ids.shape[1] :]]


class _Streamer:
    """What `generate` calls: first with the prompt, then with each token."""

    def __init__(self, on_token: Callable[[int], None]):
        self._on_token, self._prompt = on_token, True

    def put(self, value: Any) -> None:
        if self._prompt:
            self._prompt = False
        else:
            self._on_token(int(value.reshape(-1)[-1]))

    def end(self) -> None:
        pass


def build(model: Model) -> Any:
    app, lock = FastAPI(), asyncio.Lock()

    async def chat(request: Request) -> Response:
        body = await request.json()
        parts = {part["type"]: part for part in body["messages"][-1]["content"]}
        picture = base64.b64decode(parts["image_url"]["image_url"]["url"].partition(",")[2])
        text, most = parts["text"]["text"], body.get("max_tokens") or 256
        loop, tokens = asyncio.get_running_loop(), asyncio.Queue[int | None]()

        def on_token(id: int) -> None:
            loop.call_soon_threadsafe(tokens.put_nowait, id)

        async def work() -> list[int]:
            async with lock:
                try:
                    return await asyncio.to_thread(model.answer, picture, text, most, on_token)
                finally:
                    tokens.put_nowait(None)

        if not body.get("stream"):
            ids = await work()
            message = {"role": "assistant", "content": model.tokenizer.decode(ids)}
            return JSONResponse({"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

        async def events() -> AsyncIterator[str]:
            task = asyncio.ensure_future(work())
            while (id := await tokens.get()) is not None:
                choice = {"index": 0, "delta": {"content": model.tokenizer.decode([id])}, "finish_reason": None}
                yield f"data: {json.dumps({'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"
            await task
            yield "data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    app.add_api_route("/v1/chat/completions", chat, methods=["POST"], response_model=None)
    return app


def main(folder: str) -> None:
    import uvicorn

    app = build(Model(Path(folder)))
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    print(f"listening on http://127.0.0.1:{listening.getsockname()[1]}/", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False)).run(sockets=[listening])


if __name__ == "__main__":
    main(*sys.argv[1:])
