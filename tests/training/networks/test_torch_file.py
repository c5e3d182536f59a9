"""PyTorch files: tensors by hand, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.training.torch_files import MAGIC, SYSTEM, View, pickled, torch_file
from training.errors import WeightsError
from training.networks.torch_file import read

ROW = np.arange(12, dtype=np.float32)
WHOLE = View("0", 12, (3, 4), (4, 1))


@pytest.fixture
def written(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        path = tmp_path / "weights.pth"
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (WHOLE, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]),
        # the same numbers, last axis first: element (i, j) is i + 3 j
        (View("0", 12, (3, 4), (1, 3)), [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]),
        # every other one of the last six
        (View("0", 12, (3,), (2,), offset=6), [6, 8, 10]),
        (View("0", 12, (2, 3), (1, 2), offset=4), [[4, 6, 8], [5, 7, 9]]),
        (View("0", 12, (), (), offset=11), 11),
        (View("0", 12, (0, 4), (4, 1)), np.zeros((0, 4))),
    ],
)
def test_tensor_is_a_view_of_its_storage(
    view: View, expected: npt.ArrayLike, written: Callable[[bytes], Path]
) -> None:
    tensors = read(written(torch_file({"w": view}, {"0": ROW})))

    np.testing.assert_array_equal(tensors["w"], np.asarray(expected, np.float32))
    assert tensors["w"].dtype == np.float32
    assert tensors["w"].flags.c_contiguous


def test_tensors_share_a_storage_and_keep_their_types(written: Callable[[bytes], Path]) -> None:
    halves = np.array([0.5, -2], np.float16)
    tensors: dict[str, View | bytes] = {
        "first": View("a", 12, (2,), (1,)),
        "last": View("a", 12, (2,), (1,), offset=10),
        "half": View("b", 2, (2,), (1,), kind="HalfStorage"),
        "count": View("c", 1, (), (), kind="LongStorage"),
    }
    storages: dict[str, npt.NDArray[Any]] = {"b": halves, "a": ROW, "c": np.array([2**40])}

    actual = read(written(torch_file(tensors, storages)))

    assert list(actual) == list(tensors)
    np.testing.assert_array_equal(actual["first"], [0, 1])
    np.testing.assert_array_equal(actual["last"], [10, 11])
    np.testing.assert_array_equal(actual["half"], halves)
    assert actual["half"].dtype == np.float16
    assert actual["count"] == 2**40


def _calls(marker: Path) -> bytes:
    """A tensor's place taken by a call of `os.system`, which would create a file."""
    command = f"touch {marker}".encode()
    return b"cos\nsystem\n(X" + len(command).to_bytes(4, "little") + command + b"tR"


def test_pickle_that_calls_something_is_refused_and_does_not(
    written: Callable[[bytes], Path], tmp_path: Path
) -> None:
    marker = tmp_path / "called"
    path = written(torch_file({"w": _calls(marker)}, {}))

    with pytest.raises(WeightsError, match=r"more than hold tensors \(os\.system\)"):
        read(path)

    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a pickle in it is damaged"),
        (b"not a file of tensors", "a pickle in it is damaged"),
        (b"PK\x03\x04", "a zip file, as later versions write"),
        (torch_file({}, {}, head=(MAGIC + 1, 1001, SYSTEM)), "does not start like one"),
        (torch_file({}, {}, head=(MAGIC, 1002, SYSTEM)), "does not start like one"),
        (torch_file({}, {}, head=(MAGIC, 1001, {"little_endian": False})), "not little-endian"),
        (torch_file({"w": b"N"}, {}), "something else than tensors"),
        (torch_file({"w": b"cos\nsystem\n"}, {}), "something else than tensors"),
        # what builds an object of a class: protocol 2's opcode, and that of protocol 0
        (torch_file({"w": b"cos\nsystem\n)\x81"}, {}), r"\(opcode NEWOBJ\)"),
        (torch_file({"w": b"(ios\nsystem\n"}, {}), r"\(opcode INST\)"),
        (
            torch_file({"w": b"ccollections\nOrderedDict\n(NtR"}, {}),
            r"\(collections\.OrderedDict\)",
        ),
        # a dictionary's state set on something else
        (torch_file({"w": b"ctorch\nTensor\n}b"}, {}), "a pickle in it is damaged"),
        (torch_file({"w": b"t"}, {}), "a pickle in it is damaged"),
        (torch_file({"w": b"h\x09"}, {}), "a pickle in it is damaged"),
        (torch_file({"w": View("0", 12, (3,), (1,), kind="QInt8Storage")}, {"0": ROW}), "unknown"),
        (torch_file({"w": View("0", 12, (3,), (1, 1))}, {"0": ROW}), "damaged"),
        (torch_file({"w": View("0", 12, (3,), (-1,), offset=5)}, {"0": ROW}), "damaged"),
        (torch_file({"w": View("0", 12, (3,), (1,), offset=10)}, {"0": ROW}), "w reaches beyond"),
        (torch_file({"w": View("0", 12, (3, 4), (5, 1))}, {"0": ROW}), "w reaches beyond"),
        (torch_file({"w": View("0", 12, (10**6, 12), (0, 1))}, {"0": ROW}), "larger than"),
        (
            torch_file(
                {"w": View("1", 1, (2,), (0,)), "v": View("0", 12, (3,), (1,))},
                {"1": ROW[:1], "0": ROW},
            ),
            "w reaches beyond",
        ),
        (torch_file({"w": WHOLE, "v": WHOLE}, {"0": ROW}), "larger than its storages"),
        (torch_file({"w": View("0", 12, (0, 2**100), (1, 1))}, {"0": ROW}), "damaged"),
        (torch_file({"w": View("0", 12, (1,), (2**100,))}, {"0": ROW}), "damaged"),
        (torch_file({"w": View("0", 12, (1,) * 65, (1,) * 65)}, {"0": ROW}), "damaged"),
        # texts and numbers of more bytes than there can be
        (torch_file({"w": b"\x8d" + b"\xff" * 7 + b"\x7f"}, {}), "damaged"),
        (torch_file({"w": b"\x8b" + b"\xff" * 3 + b"\x7f"}, {}), "damaged"),
        (
            torch_file({"\x1b[2J\nw": View("0", 12, (3,), (1,), offset=10)}, {"0": ROW}),
            r"\\x1b\[2J\\nw reaches",
        ),
        (torch_file({"w": WHOLE}, {"1": ROW}), "list of storages does not fit"),
        (torch_file({"w": WHOLE}, {"0": ROW, "1": ROW}), "list of storages does not fit"),
        (
            torch_file({"w": WHOLE, "v": View("0", 6, (6,), (1,))}, {"0": ROW}),
            "list of storages does not fit",
        ),
        (torch_file({"w": WHOLE}, {"0": ROW[:11]}), "storage 0 has 11 values instead of 12"),
        (
            torch_file({"w": View("0", 10**15, (3,), (1,))}, {"0": ROW}),
            "12 values instead of 10",
        ),
        (pickled(MAGIC), "a pickle in it is damaged"),
    ],
)
def test_other_files_are_refused(
    content: bytes, message: str, written: Callable[[bytes], Path]
) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        read(written(content))

    assert "weights.pth" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_file_that_ends_early_is_refused_wherever_it_ends(
    written: Callable[[bytes], Path],
) -> None:
    content = torch_file({"w": WHOLE}, {"0": ROW})

    for size in range(len(content)):
        with pytest.raises(WeightsError, match="holds no tensors"):
            read(written(content[:size]))
    read(written(content))


def test_storage_of_more_values_than_the_file_has_takes_no_memory(
    written: Callable[[bytes], Path],
) -> None:
    count = 2**60
    content = torch_file({"w": View("0", count, (3,), (1,))}, {})
    content = content.removesuffix(pickled([])) + pickled(["0"]) + count.to_bytes(8, "little")

    with pytest.raises(WeightsError, match="ends early"):
        read(written(content))


def test_pickle_that_repeats_itself_is_refused_at_once(written: Callable[[bytes], Path]) -> None:
    # Pairs of pairs, 60 deep: 2^60 values to hash, compare or print, and no more than 60 in memory.
    nested = b"N" + b"".join(b"q%ch%c\x86" % (level, level) for level in range(60))
    cases: list[dict[str, Any]] = [{"w": nested}, {"w": b"}" + nested + b"Ns"}]

    for tensors in cases:
        with pytest.raises(WeightsError, match="holds no tensors"):
            read(written(torch_file(tensors, {})))


def test_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.pth cannot be read: No such file"):
        read(tmp_path / "none.pth")
