"""The server: for this machine and whoever has the token, for reading, and for nothing that is not in the runs."""

from __future__ import annotations

import gzip
import json
import re
import secrets
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from functools import cached_property
from hmac import compare_digest
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs

from py2rely_core.problems import ProblemError
from py2rely_core.report import report_page
from py2rely_core.results.schema import read_results
from py2rely_core.watching.feed import Feed
from py2rely_core.watching.masks import LARGEST_EDGE, LARGEST_EXTENSION
from py2rely_core.watching.pages import REPORTED, Pages
from py2rely_core.watching.places import Place, within
from py2rely_core.watching.sources import Key, Source

ADDRESS = "127.0.0.1"
#: A browser that was led here by a name of its own choice names that one (DNS rebinding).
HOSTS = {"127.0.0.1", "localhost"}
#: Seconds between two looks for a page that is open, and without a word to it.
LOOK_SECONDS, SILENT_SECONDS = 2.0, 15.0
CHANGED = "Files changed while they were read: try again."
UNFORESEEN = "This cannot be shown; where py2rely ui was started, it is said why."
#: Below so many bytes nothing is won by compression.
SMALL = 2000
#: The page's own scripts and styles, and no other: whatever a file of a run says, it cannot be run.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; style-src-attr 'unsafe-inline'; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: The report and the page of classes hold their scripts and styles; they ask for nothing.
REPORT_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
#: Files of the package that a page asks for: name to package and type.
STATIC = {
    "style.css": ("py2rely_core.report", "text/css"),
    "page.js": ("py2rely_core.report", "text/javascript"),
    "watch.css": ("py2rely_core.watching", "text/css"),
    "watch.js": ("py2rely_core.watching", "text/javascript"),
}


class Refused(Exception):
    """A request that is not answered."""

    def __init__(self, status: HTTPStatus, text: str):
        self.status, self.text = status, text
        super().__init__(text)


class Server(ThreadingHTTPServer):
    """Serves pages about some sources on this machine only.

    Parameters
    ----------
    sources : list of Source
        Runs and projects.
    port : int
        0 for any that is free.

    Attributes
    ----------
    token : str
        The first part of every path; new for each server.
    """

    daemon_threads = True

    def __init__(self, sources: list[Source], port: int = 0):
        self.pages = Pages(sources)
        self.token = secrets.token_urlsafe(24)
        self.closing = threading.Event()
        super().__init__((ADDRESS, port), Handler)

    @property
    def url(self) -> str:
        """The address, with the token."""
        return f"http://{ADDRESS}:{self.server_port}/{self.token}/"

    def shutdown(self) -> None:
        self.closing.set()
        super().shutdown()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of an answer is no error."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Answers one browser: runs, steps, maps and outputs are looked up by their names among those that are known."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "py2rely", ""
    #: Of a connection that says nothing.
    timeout = 60

    def do_GET(self) -> None:
        """Answer, or refuse."""
        try:
            self._allow()
            answer = self._routes.get(self._route)
            if answer is None:
                raise Refused(HTTPStatus.NOT_FOUND, "There is no such page.")
            answer()
        except Refused as refused:
            self._send(refused.text.encode(), "text/plain", refused.status)
        except ProblemError as error:
            self._send(str(error).encode(), "text/plain", HTTPStatus.UNPROCESSABLE_ENTITY)
        except ConnectionError:
            raise  # The browser went away.
        except (OSError, KeyError):
            self._send(CHANGED.encode(), "text/plain", HTTPStatus.CONFLICT)
        except Exception:
            traceback.print_exc()
            self._send(UNFORESEEN.encode(), "text/plain", HTTPStatus.INTERNAL_SERVER_ERROR)

    def _allow(self) -> None:
        host = re.fullmatch(r"([^:/@]+)(:\d+)?", self.headers.get("Host", ""))
        if host is None or host[1].lower() not in HOSTS:
            raise Refused(HTTPStatus.FORBIDDEN, "Ask for 127.0.0.1 or localhost.")
        given = self._path[0].encode(errors="replace")
        if not compare_digest(given, self.server.token.encode()):
            raise Refused(HTTPStatus.FORBIDDEN, "The address must have the token that py2rely ui printed.")

    @property
    def _path(self) -> tuple[str, str]:
        token, _, route = self.path.partition("?")[0].removeprefix("/").partition("/")
        return token, route

    @property
    def _route(self) -> str:
        return self._path[1]

    @property
    def _query(self) -> dict[str, str]:
        try:
            found = parse_qs(self.path.partition("?")[2], keep_blank_values=True, max_num_fields=20)
        except ValueError as error:
            raise Refused(HTTPStatus.BAD_REQUEST, "The address is too long.") from error
        return {name: values[-1] for name, values in found.items()}

    @cached_property
    def _routes(self) -> dict[str, Callable[[], None]]:
        pages = self.server.pages
        return {
            "": lambda: self._text(pages.shell()),
            "events": self._events,
            "run": lambda: self._text(pages.run(self._run())),
            "summary": lambda: self._text(pages.summary(self._run())),
            "job": lambda: self._text(pages.job(self._run(), self._key())),
            "picture": lambda: self._text(pages.picture(self._run(), self._key(), self._query.get("map", ""))),
            "mask": lambda: self._text(pages.mask(self._run(), self._key())),
            "masked": lambda: self._json(pages.masked(self._run(), self._key(), *self._setting())),
            "report": self._report,
            "classes": lambda: self._page(pages.classes(self._run(), self._key())),
        } | {name: lambda name=name: self._static(name) for name in STATIC}

    def _source(self) -> Source:
        return self.server.pages.sources[self._run()]

    def _run(self) -> int:
        """The run that is asked for, which must be one of those that are watched."""
        text = self._query.get("run", "")
        if not (text.isascii() and text.isdigit() and int(text) < len(self.server.pages.sources)):
            raise Refused(HTTPStatus.NOT_FOUND, "There is no such run.")
        return int(text)

    def _key(self) -> Key:
        """The step that is asked for, which must be one of the run's."""
        key = (self._query.get("dataset", ""), self._query.get("job", ""))
        if key not in self._source().look().steps:
            raise Refused(HTTPStatus.NOT_FOUND, "There is no such step.")
        return key

    def _setting(self) -> tuple[float, int, int]:
        try:
            threshold = float(self._query["threshold"])
            extend, edge = int(self._query["extend"]), int(self._query["edge"])
        except (KeyError, ValueError) as error:
            raise Refused(HTTPStatus.BAD_REQUEST, "A mask needs numbers.") from error
        if not (abs(threshold) < 1e30 and 0 <= extend <= LARGEST_EXTENSION and 0 <= edge <= LARGEST_EDGE):
            raise Refused(HTTPStatus.BAD_REQUEST, "A number is out of range.")
        return threshold, extend, edge

    def _static(self, name: str) -> None:
        package, kind = STATIC[name]
        self._send(files(package).joinpath(name).read_bytes(), kind)

    def _report(self) -> None:
        """The report of a run that is over, made anew from its numbers."""
        outdir = self._source().directory
        place = Place(outdir, within(outdir))
        path = place.file(REPORTED)
        if path is None:
            raise Refused(HTTPStatus.NOT_FOUND, "The run has no results yet.")
        page = report_page(read_results(path), lambda name: place.file(name) if name else None)
        self._page(page)

    def _page(self, text: str) -> None:
        """A page that holds all that belongs to it."""
        self._send(text.encode(), "text/html", policy=REPORT_POLICY)

    def _events(self) -> None:
        """Tell a page what changes, until it goes away (server-sent events)."""
        run = self._run() if "run" in self._query else None
        key = self._key() if "job" in self._query else None
        feed = Feed(self.server.pages, run, key, self._query.get("log", ""))
        self._head(HTTPStatus.OK, "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        silent = 0.0
        while not self.server.closing.is_set():
            try:
                found = feed.changes()
            except ProblemError as error:
                found = {"problem": str(error)}
            except (OSError, KeyError):
                found = {"problem": CHANGED}
            silent += LOOK_SECONDS
            if found or silent >= SILENT_SECONDS:
                self.wfile.write(f"data: {json.dumps(found)}\n\n".encode() if found else b":\n\n")
                self.wfile.flush()
                silent = 0.0
            self.server.closing.wait(LOOK_SECONDS)

    def _text(self, text: str) -> None:
        self._send(text.encode(), "text/html")

    def _json(self, document: dict[str, Any]) -> None:
        self._send(json.dumps(document).encode(), "application/json")

    def _send(self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK, policy: str = POLICY) -> None:
        self._head(status, f"{kind}; charset=utf-8", policy)
        if len(body) > SMALL and "gzip" in self.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body, 1, mtime=0)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _head(self, status: HTTPStatus, kind: str, policy: str = POLICY) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Security-Policy", policy)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: addresses hold the token."""


def remote_lines(port: int, environment: dict[str, str], user: str) -> list[str]:
    """How the page is reached from a person's own computer, when this one is not that; empty when it is."""
    if not {"SSH_CONNECTION", "SSH_CLIENT", "SLURM_JOB_ID"} & set(environment):
        return []
    host, login = socket.getfqdn(), environment.get("SLURM_SUBMIT_HOST", "")
    through = f" -J {user}@{login}" if "SLURM_JOB_ID" in environment and login not in ("", socket.gethostname()) else ""
    return [
        "From your own computer, first:",
        f"  ssh -N -L {port}:{ADDRESS}:{port}{through} {user}@{host}",
        "then open the same address there.",
    ]
