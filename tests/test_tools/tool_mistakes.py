"""Runs the tools with mistakes, in copies of this process, and tells how they end.

Arguments: folder of the tools; a JSON file with a list of cases: ``tool``, ``args``, and if wanted
``env`` and ``largest_file`` (bytes). Prints JSON: exit status and log of each case.
"""

import importlib.util
import json
import os
import resource
import sys
from pathlib import Path

from forked import ForkedRun
from mmseg.utils import register_all_modules


def tool_main(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def main():
    tools, cases = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
    register_all_modules(init_default_scope=False)
    results = []
    for case in cases:
        sys.argv = [case["tool"], *case["args"]]
        function = tool_main(tools / f"{case['tool']}.py")

        def run(case=case, function=function):
            os.environ.update(case.get("env", {}))
            if "largest_file" in case:
                size = case["largest_file"]
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            function()

        run = ForkedRun(run, "case.log")
        results.append((run.wait(120), run.log.read_text()))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
