"""Explore in a browser what a detector or segmentor looks at: click on an object or a pixel, and
see where each deformable layer samples, the receptive field, and the region that is enough."""

import argparse
import os
import tempfile
import threading
from pathlib import Path

from mmdcn.analysis.exploring import Explorer, Model, Problem, read_image
from mmdcn.engine import launch, processes

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MOST_IMAGES = 200  # of a folder


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file of MMDetection or MMSegmentation")
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument(
        "images", nargs="*", metavar="IMG", help="images to choose from, or folders of them"
    )
    parser.add_argument(
        "--compare",
        nargs=2,
        metavar=("CONFIG", "CHECKPOINT"),
        help="a second model, to switch to and back",
    )
    parser.add_argument("--score-thr", type=float, default=0.3, help="lowest score of detections")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: for this machine alone)"
    )
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    launch.add_device(parser)
    launch.add_config_options(parser)
    return parser.parse_args()


def find_images(paths: list[str]) -> list[str]:
    """The images among files and in folders, which are not searched further.

    Raises:
        UsageError: a file is missing or no image, or a folder has none.
    """
    found = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
            if not inside:
                raise launch.UsageError(f"image {path}: there is no image in this folder")
            found += map(str, inside[:MOST_IMAGES])
            continue
        launch.require_file("image", str(path))
        try:
            read_image(str(path))
        except Problem as error:
            raise launch.UsageError(f"image {error}") from error
        found.append(str(path))
    return found


def import_page():
    """The module of the page, which needs Gradio.

    Raises:
        UsageError: there is none.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        from mmdcn.analysis import explorer
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise launch.UsageError(
            "the explorer needs Gradio, which is not installed: "
            'pip install --no-build-isolation "mmdcn[explore]", or in a clone: make explore'
        ) from error
    return explorer


def main() -> None:
    args = parse_args()
    images = find_images(args.images)
    # Gradio keeps uploads here until they are read. It looks for the name while it is imported.
    with tempfile.TemporaryDirectory(prefix="mmdcn-explore-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = import_page()
        models = []
        for config, checkpoint in filter(None, [(args.config, args.checkpoint), args.compare]):
            model, scope = launch.load_model(config, checkpoint, args.device, args.cfg_options)
            models.append(Model(Path(config).stem, model, scope))
        explorer = Explorer(models)
        blocks = page.build(explorer, images, args.score_thr)
        url = page.serve(blocks, args.host, args.port)
        processes.stop_message = "the explorer is closed".format
        if not page.is_loopback(args.host):
            print(f"Anybody who reaches {args.host} can use the page and choose from the images.")
        print(f"Open {url} in a browser. Ctrl-C closes the explorer.", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            pass  # the way to end it
        finally:
            explorer.close_all()
            blocks.close(verbose=False)


if __name__ == "__main__":
    launch.run_tool(main)
