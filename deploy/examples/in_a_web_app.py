"""Bridge and handlers inside a web application. Seed: WebApplication … app.Run(), 健康检查.

The logs are the program's: here lines of the service go where `logging` sends all others.
"""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from flybridge.bridge.builder import Builder
from flybridge.handlers.builtin import ReceiveMessage

service = Builder().add_handler(ReceiveMessage).build()


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with service:
        yield


async def health(request: Request) -> JSONResponse:
    connected = service.manager.is_connected
    return JSONResponse({"connected": connected}, status_code=200 if connected else 503)


app = Starlette(routes=[Route("/health", health)], lifespan=lifespan)

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
