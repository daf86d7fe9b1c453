"""The explorer's page, in the browser. The only module that imports Gradio, an optional extra."""

from __future__ import annotations

import contextlib
import html
import ipaddress
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from . import panels
from .exploring import LARGEST_IMAGE, Explorer, Problem, Stopped, Tab, View
from .panels import Panel

LARGEST_FILE = "64mb"
MOST_LEVELS = 5  # layers that the slider lets one follow
OBJECT, PIXEL = "the object there", "the pixel itself"

CSS = """
.gradio-container { max-width: 1500px !important; padding: 0 !important; }
.gradio-container .main.fillable, .gradio-container .html-container { padding: 0 !important; }
.gradio-container main { padding: 10px 16px !important; }
.gradio-container .column, .gradio-container .row { gap: 8px; }
#controls .block { padding: 5px 10px; }
#controls button { min-height: 32px; }
#title h1 { font-size: 17px; font-weight: 600; margin: 0; }
.panel { margin: 0; min-height: 120px; }
.panel h2 { font-size: 13px; font-weight: 600; margin: 0 0 3px; }
.panel img { display: block; max-width: 100%; max-height: 37vh; }
.panel .missing { border: 1px dashed currentColor; opacity: .55; border-radius: 4px;
    padding: 12px; font-size: 12px; min-height: 30vh; }
.panel figcaption { font-size: 11px; line-height: 1.3; margin-top: 3px; overflow-wrap: anywhere; }
.panel .bar { display: flex; align-items: center; gap: 5px; font-size: 11px; margin-top: 4px; }
.panel .bar i { flex: 1; height: 9px; border-radius: 2px; }
.panel .unit { font-size: 11px; text-align: center; }
.panel .legend span { display: inline-block; width: 10px; height: 10px; margin: 0 4px 0 8px; }
#region .translucent { inset: 20px 0 0 0 !important; height: auto !important; display: flex;
    flex-direction: column; justify-content: center; font-size: 12px; }
#region .translucent .progress-text { position: static !important; transform: none !important; }
#region .translucent .progress-level { height: auto !important; }
#prediction img { cursor: crosshair; }
.numbers { font-size: 12px; border: none !important; border-collapse: collapse; width: 100%; }
.numbers td { border: none !important; padding: 2px 4px; }
.numbers tr { border: 0 solid var(--border-color-primary) !important;
    border-bottom-width: 1px !important; }
.numbers td:last-child { text-align: right; font-variant-numeric: tabular-nums; }
.status { font-size: 12px; line-height: 1.35; overflow-wrap: anywhere; }
.status.problem { color: #b3261e; font-weight: 600; }
.dark .status.problem { color: #ff9d94; }
"""

# Where in the picture a click was, from 0 to 1, as no component of Gradio's says it of pictures
# that are not files.
CLICK = """
element.addEventListener('click', event => {
    const picture = event.target.closest('img');
    if (!picture) return;
    const box = picture.getBoundingClientRect();
    trigger('click', {
        x: (event.clientX - box.left) / box.width,
        y: (event.clientY - box.top) / box.height,
    });
});
"""


def render(panel: Panel) -> str:
    """A panel as HTML."""
    parts = [f"<h2>{html.escape(panel.title)}</h2>"]
    if panel.picture is None:
        parts.append(f'<div class="missing">{html.escape(panel.note or "nothing yet")}</div>')
        return f'<figure class="panel">{"".join(parts)}</figure>'
    parts.append(f'<img alt="{html.escape(panel.title)}" src="{panel.source}" draggable="false">')
    if bar := panel.bar:
        gradient = f"linear-gradient(to right, {', '.join(bar.colours)})"
        parts.append(
            f'<div class="bar">{bar.low}<i style="background: {gradient}"></i>{bar.high}</div>'
            f'<div class="unit">{html.escape(bar.unit)}</div>'
        )
    if panel.legend:
        chips = (
            f'<span style="background: {colour}"></span>{html.escape(str(name))}'
            for colour, name in panel.legend
        )
        parts.append(f'<figcaption class="legend">{"".join(chips)}</figcaption>')
    if panel.note:
        parts.append(f"<figcaption>{html.escape(panel.note)}</figcaption>")
    return f'<figure class="panel">{"".join(parts)}</figure>'


def render_numbers(tab: Tab) -> str:
    """The node of a tab, and the shares that lie inside its object, as HTML."""
    subject, finding = tab.about
    if finding is None:
        return ""
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{value}</td></tr>"
        for name, value in panels.numbers(subject, finding)
    )
    return (
        f'<figure class="panel"><h2>{html.escape(finding.node.title)}</h2>'
        f'<table class="numbers">{rows}</table></figure>'
    )


def status(text: str, problem: bool = False) -> str:
    """A line for people, which screen readers read out, as HTML."""
    kind = "status problem" if problem else "status"
    return f'<div class="{kind}" role="status">{html.escape(text)}</div>'


def build(explorer: Explorer, images: Sequence[str] = (), threshold: float = 0.3) -> gr.Blocks:
    """The page.

    Args:
        explorer: the tabs, and the models that they share.
        images: files to choose from; the first one is shown at the start.
        threshold: lowest score of the objects that are shown at the start.
    """
    page = gr.Blocks(
        title="mmdcn explorer", analytics_enabled=False, fill_width=True, delete_cache=(60, 300)
    )
    names = [Path(image).name for image in images]
    choices = [(name, index) for index, name in enumerate(names)]
    with page:
        gr.HTML("<h1>What a deformable network looks at</h1>", elem_id="title")
        with gr.Row(equal_height=False):
            with gr.Column(scale=0, min_width=290, elem_id="controls"):
                model = gr.Radio(
                    [(item.name, index) for index, item in enumerate(explorer.models)],
                    value=0, label="Model", visible=len(explorer.models) > 1, elem_id="model",
                )  # fmt: skip
                image = gr.Dropdown(
                    choices, value=0 if choices else None, label="Image",
                    visible=bool(choices), elem_id="image",
                )  # fmt: skip
                upload = gr.UploadButton("Upload an image", size="sm", elem_id="upload")
                line = gr.HTML(
                    status(f"Images of up to {LARGEST_IMAGE / 1e6:g} million pixels."),
                    elem_id="status",
                )
                target = gr.Radio(
                    [OBJECT, PIXEL], value=OBJECT, label="A click asks about", elem_id="target",
                    visible=any(hasattr(m.model, "roi_head") for m in explorer.models),
                )  # fmt: skip
                detects = any(item.scope == "mmdet" for item in explorer.models)
                objects = gr.Dropdown(
                    [], value=None, label="Or choose an object", elem_id="object", visible=detects
                )
                score = gr.Slider(
                    0.05, 1, threshold, step=0.05, label="Lowest score", elem_id="score",
                    visible=detects,
                )  # fmt: skip
                layer = gr.Slider(
                    1, 2, 1, step=1, label="Layer", interactive=False, elem_id="layer"
                )
                levels = gr.Slider(
                    1, MOST_LEVELS, 3, step=1, label="Layers followed", elem_id="levels"
                )
                search = gr.Button(
                    "Look for the region", size="sm", interactive=False, elem_id="search"
                )
            with gr.Column(scale=1, min_width=600):
                shown = []
                first = panels.empty_panels()
                ids = ("prediction", "samples", "layer-samples", "field", "region", "numbers")
                for row in (ids[:3], ids[3:]):
                    with gr.Row(equal_height=False):
                        for name in row:
                            with gr.Column(min_width=200):
                                if name == "numbers":
                                    numbers = gr.HTML("", elem_id=name)
                                    continue
                                shown.append(
                                    gr.HTML(
                                        render(first[len(shown)]),
                                        elem_id=name,
                                        js_on_load=CLICK if name == "prediction" else None,
                                    )
                                )

        controls = [score, layer, levels]
        everything = [line, *shown, numbers, objects, layer, search]

        def view_of(score: float, layer: int, levels: int) -> View:
            return View(float(score), int(layer) - 1, int(levels))

        def all_of(tab: Tab, view: View, text: str | None = None) -> list[Any]:
            """Values of `everything`."""
            subject, finding = tab.about
            found = subject.detections(view.threshold) if subject is not None else []
            labels = [
                (f"{k} {subject.classes[int(found.labels[k])]} {float(found.scores[k]):.2f}", k)
                for k in range(len(found))
            ]
            count = len(finding.layers) if finding is not None else 0
            return [
                status(tab.note if text is None else text),
                *map(render, explorer.show(tab, view)),
                render_numbers(tab),
                gr.update(choices=labels, value=None),
                gr.update(
                    maximum=max(count, 2), value=view.layer + 1, interactive=count > 1,
                ),
                gr.update(interactive=finding is not None),
            ]  # fmt: skip

        def problem(error: Problem, outputs: int) -> list[Any]:
            return [status(str(error), True), *[gr.skip()] * (outputs - 1)]

        def step(act: Callable[[Tab, View], None], request: gr.Request, view: View) -> list[Any]:
            """Do something in a tab, and show all of it; or say why not."""
            tab = explorer.tab(request.session_hash)
            try:
                act(tab, view)
            except Problem as error:
                return problem(error, len(everything))
            except Stopped:
                return [gr.skip()] * len(everything)
            view.layer = explorer.layer_of(tab)
            return all_of(tab, view)

        def on_start(image, score, layer, levels, request: gr.Request):
            if image is None:
                return [gr.skip()] * len(everything)
            return on_image(image, score, layer, levels, request)

        def on_image(image, score, layer, levels, request: gr.Request):
            if image is None or not 0 <= int(image) < len(images):
                return problem(Problem("choose an image of the list"), len(everything))
            path = images[int(image)]
            return step(
                lambda tab, _: explorer.open(tab, path), request, view_of(score, layer, levels)
            )

        def on_upload(file, score, layer, levels, request: gr.Request):
            view = view_of(score, layer, levels)
            try:
                return step(lambda tab, _: explorer.open(tab, file), request, view)
            finally:
                forget(file)

        def on_model(model, score, layer, levels, request: gr.Request):
            view = view_of(score, layer, levels)
            return step(lambda tab, _: explorer.choose_model(tab, int(model)), request, view)

        def on_click(target, score, layer, levels, request: gr.Request, event: gr.EventData):
            def act(tab: Tab, view: View) -> None:
                explorer.click(tab, float(event.x), float(event.y), view, target == OBJECT)

            return step(act, request, view_of(score, layer, levels))

        def on_object(index, score, layer, levels, request: gr.Request):
            def act(tab: Tab, view: View) -> None:
                explorer.choose(tab, int(index), view)

            values = step(act, request, view_of(score, layer, levels))
            values[everything.index(objects)] = gr.skip()
            return values

        def on_score(score, layer, levels, request: gr.Request):
            tab = explorer.tab(request.session_hash)
            if tab.subject is None:
                return gr.skip(), gr.skip()
            values = all_of(tab, view_of(score, layer, levels))
            return values[everything.index(shown[0])], values[everything.index(objects)]

        def on_layer(score, layer, levels, request: gr.Request):
            tab = explorer.tab(request.session_hash)
            view = view_of(score, layer, levels)
            explorer.choose_layer(tab, view.layer)
            return list(map(render, explorer.show_layer(tab, view)))

        def on_search(
            request: gr.Request,
            progress=gr.Progress(),  # noqa: B008 (Gradio finds it here)
        ):
            tab = explorer.tab(request.session_hash)
            finding = tab.finding
            try:
                explorer.search(
                    tab,
                    lambda done, most: progress((done, most), desc="Looking", unit="steps"),
                )
            except Problem as error:
                return problem(error, 3)
            except Stopped:
                return [gr.skip()] * 3
            subject, now = tab.about
            if now is not finding:
                return [gr.skip()] * 3
            return [
                status(tab.note), render(panels.region(subject, finding)), render_numbers(tab)
            ]  # fmt: skip

        # Nothing here is for other programs. Turns of the models are taken by the explorer, so that
        # a search, which passes them on, does not keep other tabs waiting.
        free = dict(
            api_visibility="private", concurrency_limit=None,
            show_progress="minimal", trigger_mode="always_last",
        )  # fmt: skip
        watched = dict(show_progress_on=shown[0])
        page.load(on_start, [image, *controls], everything, **free, **watched)
        image.input(on_image, [image, *controls], everything, **free, **watched)
        upload.upload(on_upload, [upload, *controls], everything, **free, **watched)
        model.input(on_model, [model, *controls], everything, **free, **watched)
        shown[0].click(on_click, [target, *controls], everything, **free, **watched)
        objects.input(on_object, [objects, *controls], everything, **free, **watched)
        quiet = {**free, "show_progress": "hidden"}
        score.input(on_score, controls, [shown[0], objects], **quiet)
        for slider in (layer, levels):
            slider.input(on_layer, controls, shown[1:3], **quiet)
        search.click(
            on_search, None, [line, shown[4], numbers],
            **{**free, "show_progress": "full", "trigger_mode": "once"}, show_progress_on=shown[4],
        )  # fmt: skip

        def on_leave(request: gr.Request):
            explorer.close(request.session_hash)

        page.unload(on_leave)
    return page


def forget(file: str) -> None:
    """Delete an upload, and the folder that Gradio made for it, if it is empty then."""
    folder = Path(os.environ.get("GRADIO_TEMP_DIR", "")).resolve()
    path = Path(file).resolve()
    if os.environ.get("GRADIO_TEMP_DIR") and folder in path.parents:
        path.unlink(missing_ok=True)
        if path.parent != folder:
            with contextlib.suppress(OSError):
                path.parent.rmdir()


class _NoOtherHosts:
    """Tells the browser to load nothing from elsewhere: the page works without a network."""

    POLICY = (
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        b"style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        b"worker-src 'self' blob:; frame-ancestors 'self'"
    )

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        async def answer(message) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", self.POLICY)
                message = {**message, "headers": [*message["headers"], policy]}
            await send(message)

        await self.app(scope, receive, answer)


def serve(page: gr.Blocks, host: str = "127.0.0.1", port: int | None = None) -> str:
    """Start the page's server in a thread.

    Args:
        page: of :func:`build`.
        host: address to listen at. At a loopback address only requests for this machine are
            answered, whatever name a page elsewhere gives to it.
        port: None means the first free one from 7860 on.

    Returns:
        The address of the page.

    Raises:
        OSError: the port is not free.
    """
    middleware = [Middleware(_NoOtherHosts)]
    if is_loopback(host):
        names = ["localhost", "127.0.0.1", "[::1]", host]
        middleware.append(Middleware(TrustedHostMiddleware, allowed_hosts=names))
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    _, url, _ = page.launch(
        server_name=host, server_port=port, prevent_thread_lock=True, share=False, quiet=True,
        inbrowser=False, footer_links=[], run_history=False, enable_monitoring=False,
        ssr_mode=False, pwa=False, mcp_server=False, max_file_size=LARGEST_FILE,
        app_kwargs=dict(middleware=middleware), theme=theme, css=CSS,
    )  # fmt: skip
    return url


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
