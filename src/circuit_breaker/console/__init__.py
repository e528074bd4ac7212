"""See every circuit that processes share, and steer it: in a browser, in a terminal, or in an application of yours.

`python -m circuit_breaker console` serves the page, `python -m circuit_breaker watch` shows the same in a terminal, and
`application` is the page as a WSGI application, to mount where people have logged in.
"""

from .application import application

__all__ = ["application"]
