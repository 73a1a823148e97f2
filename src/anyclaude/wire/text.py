"""JSON bodies whose text is not valid Unicode.

JavaScript strings may hold half a surrogate pair (a cut emoji, say), which JSON carries as an escape
that no UTF-8 decoder accepts. Refusing it would end the session for good, because the client sends
its history again every turn; so each half becomes U+FFFD, as JavaScript's own encoder does.
"""

import re

_ESCAPED_SURROGATE = re.compile(
    rb"(?P<kept>\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)


def mend_text(body: bytes) -> bytes:
    """The same JSON with every unpaired surrogate and invalid byte as U+FFFD; valid text is untouched."""
    try:
        body.decode()
    except UnicodeDecodeError:
        body = body.decode("utf-8", "replace").encode()
    if b"\\ud" not in body and b"\\uD" not in body:
        return body
    return _ESCAPED_SURROGATE.sub(lambda match: match["kept"] or b"\\ufffd", body)
