"""Opens a folder of LandscapeFiles in Celldega's own front-end, in a headless Chromium.

The module ``celldega.js`` is loaded unmodified and entered where anywidget enters it, ``render({model, el})``.  What it
has loaded is read from its state object, what it has asked for from the log of the server behind it.

Run as a program to look at a folder: ``python viewer.py FOLDER celldega.js X Y ZOOM [PNG]``.
"""

import contextlib
import json
import mimetypes
import os
import re
import shutil
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SIZE = 1200, 900
"""Pixels of the browser's window; the canvas has 998 x 600 of them."""
CHROMIUM = os.environ.get("ATLASWRITER_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome") or ""
DRIVER = os.environ.get("ATLASWRITER_CHROMEDRIVER") or shutil.which("chromedriver") or ""
SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-device-scale-factor=1",
    "--hide-scrollbars",
)
TRAITS: dict[str, Any] = {
    "component": "Landscape",
    "technology": "Xenium",
    "token": "",
    "creds": {},
    "base_urls": [],
    "dataset_name": "",
    "max_tiles_to_view": 50,
    "region": {},
    "nbhd_geojson": {},
    "nbhd_edit": False,
    "meta_cluster": {},
    "cell_clusters": {},
    "selected_cells": [],
    "landscape_state": "spatial",
    "cell_attr": ["leiden"],
    "cluster_attr": "leiden",
    "segmentation": "default",
    "alignment": "",
    "width": 0,
    "height": 600,
    "ini_z": 0,
    "rotate": 0,
    "rotation_orbit": 0,
    "rotation_x": 0,
    "cell_name_prefix": False,
    "use_adata_3d_centroids": True,
    "centroids_url": "",
    "focused_gene": "",
    "update_trigger": {},
}
"""What the Python widget would send; the traits of `celldega.viz.Landscape` with their defaults."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request of the page: path below the folder as it was sent (still quoted), status, and the range asked for."""

    path: str
    status: int
    method: str = "GET"
    range: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the front-end loaded and drew.

    Attributes
    ----------
    errors
        Uncaught errors of the page; an empty list in a good run.
    console
        Its warnings and errors.  A missing tile (404) is told here, which is normal.
    requests
        All requests for the folder's files, in order.
    cells, genes, transcripts, polygons, vertices
        What is loaded: all cells and genes, and the points and outlines of all tiles that touch the view.
    cells_in_view, transcripts_in_view
        Those of them inside `bounds`.
    transcripts_by_gene
        Number of loaded points by gene name; ``#17`` where the id 17 is in no ``meta_gene``.
    polygon_cells, clusters, expression
        Cell name of each outline; cluster of each cell; 0..255 of each cell when a gene is chosen.
    gene_bar, cluster_bar
        Counts in the two bar charts.
    images
        Layer and number of its tiles that are drawn.
    bounds, close_up
        The view in pixels of the image, and whether it is near enough for tiles.
    seconds
        Time from start of the browser to its end.
    """

    errors: list[str]
    console: list[str]
    close_up: bool
    bounds: dict[str, float] | None
    cells: int
    genes: int
    cells_in_view: int
    transcripts: int
    transcripts_in_view: int
    transcripts_by_gene: dict[str, int]
    polygons: int
    vertices: int
    polygon_cells: list[str]
    clusters: list[str | None]
    expression: list[int]
    gene_bar: dict[str, int]
    cluster_bar: dict[str, int]
    images: list[dict[str, Any]]
    requests: list[Request] = field(default_factory=list)
    seconds: float = 0.0

    def statuses(self, start: str) -> set[int]:
        """Statuses of the requests whose path starts with `start`."""
        return {r.status for r in self.requests if r.path.startswith(start)}


def missing() -> str:
    """What keeps a browser from being run here; nothing when all is there."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "the package selenium is not installed"
    if not CHROMIUM:
        return "no chromium on the PATH, nor in ATLASWRITER_CHROMIUM"
    return "" if DRIVER else "no chromedriver on the PATH, nor in ATLASWRITER_CHROMEDRIVER"


@contextlib.contextmanager
def serve(folder: Path, celldega_js: Path) -> Iterator[tuple[str, list[Request]]]:
    """Serve a folder below ``/data/``, and the page beside it; yields the address and the growing log."""
    log: list[Request] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def find(self, path: str) -> Path | None:
            own = {"/": HERE / "viewer.html", "/celldega.js": celldega_js}
            if path in own:
                return own[path]
            file = folder / urllib.parse.unquote(path.removeprefix("/data/"))
            return file if path.startswith("/data/") and file.is_file() else None

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            file = self.find(path)
            body, status, told = b"", 404, ""
            if file:
                body, status, told = part(file.read_bytes(), self.headers.get("Range", ""))
            if path.startswith("/data/"):
                asked = self.headers.get("Range", "")
                log.append(Request(self.path.removeprefix("/data/"), status, self.command, asked))
            self.send_response(status)
            self.send_header("Content-Type", mimetypes.guess_type(file or "")[0] or "application/octet-stream")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Access-Control-Allow-Origin", "*")
            self.send_header("Access-Control-Expose-Headers", "Content-Range, Content-Length, Accept-Ranges")
            if told:
                self.send_header("Content-Range", told)
            self.end_headers()
            if self.command != "HEAD":
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Say nothing: the log is kept for the caller."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", log
        finally:
            server.shutdown()
            thread.join()


def part(body: bytes, asked: str) -> tuple[bytes, int, str]:
    """Bytes, status and Content-Range that answer a Range header, ``bytes=5-9``, ``bytes=5-`` or ``bytes=-8``."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", asked)
    if not found or not any(found.groups()):
        return body, 200, ""
    first, last = found.groups()
    begin = int(first) if first else max(0, len(body) - int(last))
    end = min(int(last) + 1, len(body)) if first and last else len(body)
    if begin >= end:
        return b"", 416, f"bytes */{len(body)}"
    return body[begin:end], 206, f"bytes {begin}-{end - 1}/{len(body)}"


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A Chromium with an empty profile and software WebGL, ended and cleaned up behind us."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for switch in (*SWITCHES, f"--user-data-dir={profile}", f"--window-size={SIZE[0]},{SIZE[1]}"):
            options.add_argument(switch)
        driver = webdriver.Chrome(options=options, service=Service(executable_path=DRIVER))
        try:
            driver.set_script_timeout(60)
            yield driver
        finally:
            driver.quit()


def open_in_viewer(
    folder: Path,
    celldega_js: Path,
    *,
    x: float,
    y: float,
    zoom: float,
    screenshot: Path | None = None,
    gene: str = "",
    traits: Mapping[str, Any] | None = None,
    timeout: float = 90,
) -> Seen:
    """Open LandscapeFiles in Celldega's front-end and say what it loaded.

    Parameters
    ----------
    folder
        Directory with ``landscape_parameters.json``.
    celldega_js
        The front-end's module, ``celldega/static/celldega.js`` of the package.
    x, y, zoom
        Middle of the view in pixels of the image, and the logarithm (base 2) of screen pixels per image pixel; all
        three 0 for the view that the front-end chooses.
    screenshot
        Where to write a PNG of the page.
    gene
        Gene to colour the cells by, chosen after the view is drawn.
    traits
        Traits of the widget that differ from `TRAITS`, such as ``segmentation`` or ``technology``.
    timeout
        Seconds after which a page that is still loading is an error.

    Returns
    -------
    Seen
        Facts of the page when nothing was left to load.

    Raises
    ------
    TimeoutError
        When the page is not idle in time; the message has its errors.
    """
    began = time.monotonic()
    with serve(folder, celldega_js) as (address, log), browser() as driver:
        given = {**TRAITS, "base_url": f"{address}/data", "ini_x": x, "ini_y": y, "ini_zoom": zoom, **(traits or {})}

        def wait(quiet: float) -> None:
            end = time.monotonic() + timeout
            while driver.execute_script("return idle()") < quiet * 1000:
                if time.monotonic() > end:
                    told = driver.execute_script("return [seen.errors, seen.console]")
                    raise TimeoutError(f"the page is not idle after {timeout} s: {json.dumps(told)}")
                time.sleep(0.05)

        driver.get(f"{address}/")
        driver.execute_script("start(arguments[0])", given)
        wait(0.5)
        if driver.execute_script("return Boolean(deck())"):
            driver.execute_script("settle()")
            wait(0.8)
        if gene:
            driver.execute_script("seen.model.set('focused_gene', arguments[0])", gene)
            wait(0.8)
        facts = driver.execute_script("return facts()")
        if screenshot:
            screenshot.write_bytes(driver.get_screenshot_as_png())
    return replace(Seen(**facts), requests=list(log), seconds=time.monotonic() - began)


def main(folder: str, celldega_js: str, x: str, y: str, zoom: str, png: str = "") -> None:
    """Print what the front-end asks for and loads."""
    shot = Path(png) if png else None
    seen = open_in_viewer(Path(folder), Path(celldega_js), x=float(x), y=float(y), zoom=float(zoom), screenshot=shot)
    for request in seen.requests:
        print(request.status, request.method, request.range, request.path)  # noqa: T201
    print(seen)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
