"""The console is brief, and the log file has everything."""

import logging

from mmengine.logging import MMLogger

from mmdcn.engine import console

BRIEF = ["Epoch(train) [1]", "Config of the model", "line\nline", "error", "paramwise"]
LENGTHY = [
    "Config:\na = 1",
    "Hooks will be executed in the following order:\nbefore_run:",
    "paramwise_options -- backbone.conv1.weight:lr=0.1",
    "\n" + "-" * 60 + "\nSystem environment:\n    sys.platform: linux",
]


def test_what_the_console_gets(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(MMLogger, "__init__", MMLogger.__init__)  # is put back afterwards
    console.install()
    console.install()
    file = tmp_path / "run.log"
    logger = MMLogger(name="test_console", logger_name="test_console", log_file=str(file))
    for message in BRIEF + LENGTHY:
        logger.info(message)
    shown = capsys.readouterr()
    shown = shown.out + shown.err
    written = file.read_text()
    for message in BRIEF:
        assert shown.count(f"INFO - {message}\n") == 1
    for message in LENGTHY:
        assert message not in shown
    for message in BRIEF + LENGTHY:
        assert message in written
    assert console.log_file(logger) == str(file)
    for handler in list(logger.handlers):
        handler.close()


def test_a_logger_without_a_file():
    assert console.log_file(logging.Logger("empty")) is None
