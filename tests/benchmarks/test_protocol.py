import pytest

from benchmarks.protocol import Worker, WorkerFailed

ECHO = "tests.benchmarks.echo"


def test_worker_answers_in_turn_whatever_its_libraries_print() -> None:
    with Worker(ECHO) as worker:
        assert worker.ask("echo", a=1, b=["é"]) == {"a": 1, "b": ["é"]}
        assert worker.ask("echo") == {}


def test_worker_that_cannot_import_says_why_in_one_line() -> None:
    with pytest.raises(WorkerFailed, match=r"^ImportError: no such library$"):
        Worker(ECHO, "broken")


def test_worker_that_is_no_module_says_why() -> None:
    with pytest.raises(WorkerFailed, match="No module named"):
        Worker("tests.benchmarks.nowhere")


def test_worker_that_ends_leaves_its_last_words() -> None:
    with Worker(ECHO) as worker:
        with pytest.raises(WorkerFailed, match="the last words"):
            worker.ask("crash")
        with pytest.raises(WorkerFailed, match="the last words"):
            worker.ask("echo")
