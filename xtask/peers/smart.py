"""What Requestko does, on the stack that Requestko uses, without its fixed wait: two more requests when the first one is late."""

import asyncio
import os

import aiohttp
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

UPSTREAM = os.environ["UPSTREAM"]
HEDGE_AFTER_S = 0.3
session = None


async def ask(left_s):
    async with session.get(UPSTREAM, timeout=aiohttp.ClientTimeout(total=left_s)) as answer:
        if answer.status != 200:
            raise aiohttp.ClientError(f"status {answer.status}")
        return await answer.json()


async def smart(request):
    global session
    if session is None:
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=256))
    left_s = int(request.query_params["timeout"]) / 1000
    waiting = {asyncio.create_task(ask(left_s))}
    done, waiting = await asyncio.wait(waiting, timeout=HEDGE_AFTER_S)
    if not any(task.exception() is None for task in done):
        waiting |= {asyncio.create_task(ask(left_s)) for _ in range(2)}
        done = set()
    while waiting and not any(task.exception() is None for task in done):
        done, waiting = await asyncio.wait(waiting, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            break
    for task in waiting:
        task.cancel()
    for task in done:
        if task.exception() is None:
            return JSONResponse(task.result())
    return JSONResponse({}, status_code=504)


app = Starlette(routes=[Route("/api/smart", smart)])
