"""The short way to the handlers that are asked all the time: past the framework's table of routes and its solving of
dependencies, which cost more than all else that the desk does for a question.

The routes stay declared where they are, for the API's document; what is here takes their requests first, with the same key, scope
and handler.
"""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tunesmith.api.deps import Desk, Needs, require_key
from tunesmith.db.keys import Key

Handler = Callable[[Request, Desk, Key], Awaitable[Response]]


class Direct:
    """An ASGI endpoint. What it raises is answered by the application, as for any other route."""

    def __init__(self, handler: Handler, needs: Needs):
        self._handler = handler
        self.needs = needs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        desk = scope["app"].state.desk
        key = await require_key(request, desk)
        await self.needs(request, key)
        response = await self._handler(request, desk, key)
        await response(scope, receive, send)


def shortcut(router: APIRouter, path: str) -> Route:
    """The short way to the POST of `path` in `router`, whose handler takes (request, desk, key) and whose scope is declared."""
    posts = [each for each in router.routes if isinstance(each, APIRoute) and "POST" in (each.methods or ())]
    (route,) = (each for each in posts if each.path == path)
    (needs,) = (each.dependency for each in route.dependencies if isinstance(each.dependency, Needs))
    return Route(path, Direct(route.endpoint, needs), methods=["POST"])
