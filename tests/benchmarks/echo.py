"""A worker for the tests of the protocol."""

import os
import sys
from typing import Any

from benchmarks.protocol import serve


def make() -> dict[str, Any]:
    print("what a library prints")
    if "broken" in sys.argv:
        raise ImportError("no such\nlibrary")

    def echo(**arguments: Any) -> dict[str, Any]:
        print("more of it")
        return arguments

    def crash() -> None:
        print("the last words", file=sys.stderr, flush=True)
        os._exit(3)

    return {"echo": echo, "crash": crash, "variable": os.environ.get}


if __name__ == "__main__":
    serve(make)
