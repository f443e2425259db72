"""The token service over HTTP (Docker's token specification): ``/auth/token``, and the keys to check tokens with."""

from __future__ import annotations

from datetime import UTC, datetime

from regd.auth.issuing import ISSUER, Issuer, parse_scopes
from regd.errors import NotFound
from regd.web.arguments import argument, arguments
from regd.web.guard import Guard
from regd.web.request import StreamingRequest
from regd.web.response import Response, json_response

__all__ = ["TokenHandlers"]

#: Tokens are for who has asked (RFC 6749, section 5.1).
_SECRET = {"Cache-Control": "no-store"}

#: The name of a service has no more characters.
_LONGEST_SERVICE = 255


class TokenHandlers:
    """
    :param issuer: who makes tokens; where there is nobody, there is no such service.
    """

    def __init__(self, guard: Guard | None, issuer: Issuer | None) -> None:
        self._guard = guard
        self._issuer = issuer

    async def issue(self, request: StreamingRequest) -> Response:
        """
        A token, also for who has no password: it is good for what everybody may do.

        :raises Unauthorized: for a wrong password.
        """
        if self._issuer is None or self._guard is None:
            raise NotFound("no such endpoint: /auth/token")
        user = await self._guard.identify_by_password(request)
        service = (argument(request, "service") or ISSUER)[:_LONGEST_SERVICE]
        token, made = self._issuer.issue(user, parse_scopes(arguments(request, "scope")), service)
        issued = datetime.fromtimestamp(made, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        answer = {"token": token, "access_token": token, "expires_in": int(self._issuer.lifetime), "issued_at": issued}
        return json_response(200, answer, _SECRET)

    async def keys(self, request: StreamingRequest) -> Response:
        """The public key (RFC 7517), for ``auth.token.jwks`` of others."""
        if self._issuer is None or self._issuer.signer.public is None:
            raise NotFound("no such endpoint: /auth/jwks")
        return json_response(200, self._issuer.signer.jwks(), {})
