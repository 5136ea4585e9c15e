"""Header fields that every answer has, so that a browser makes nothing of it but what it is.

Boundary: fields by name. The playground sets its own where it needs others. That browsers come by TLS alone (HSTS) is
for the proxy to say that speaks it.
"""

from __future__ import annotations

Headers = list[tuple[bytes, bytes]]

_ALWAYS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
}
_NO_PAGE = b"default-src 'none'; frame-ancestors 'none'"
_PAGE = b"frame-ancestors 'none'"
"""Of pages without a policy of their own: the documentation, which is a library's."""
_NO_STORE = b"no-store"


def secured(headers: Headers) -> Headers:
    """The fields of an answer, and those that it lacks. What has no entity tag is no file, and is kept by no cache."""
    named = dict(headers)
    more = [(name, value) for name, value in _ALWAYS.items() if name not in named]
    if b"content-security-policy" not in named:
        is_page = named.get(b"content-type", b"").startswith(b"text/html")
        more.append((b"content-security-policy", _PAGE if is_page else _NO_PAGE))
    if b"etag" not in named:
        headers = [field for field in headers if field[0] != b"cache-control"]
        more.append((b"cache-control", _NO_STORE))
    return headers + more
