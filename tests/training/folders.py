"""Folders of made photos, laid out as a user lays them out."""

from pathlib import Path

from tests.training.pictures import photo

CLASSES = ("n00000001-red_dog", "blue dog")


def write_photos(directory: Path, count: int, *, offset: int = 0, width: int = 60) -> list[Path]:
    """Write `count` photos of each of `CLASSES` into class folders of `directory`."""
    paths = []
    for label, name in enumerate(CLASSES):
        (directory / name).mkdir(parents=True, exist_ok=True)
        for index in range(offset, offset + count):
            path = directory / name / f"{label}-{index}.png"
            path.write_bytes(photo(label, index, width=width).read())
            paths.append(path)
    return paths


def pixel_box(label: int, index: int) -> tuple[float, float, float, float]:
    """The box of a photo of `write_photos`, in pixels."""
    xmin, ymin, xmax, ymax = photo(label, index).boxes[0]
    return round(xmin * 60), round(ymin * 48), round(xmax * 60), round(ymax * 48)


def voc(*boxes: tuple[float, float, float, float], size: tuple[int, int] = (60, 48)) -> str:
    """PASCAL VOC XML of boxes (xmin, ymin, xmax, ymax) in an image of `size` (width, height)."""
    objects = "".join(
        f"<object><name>dog</name><bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin>"
        f"<xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox></object>"
        for xmin, ymin, xmax, ymax in boxes
    )
    return (
        "<annotation><filename>%s</filename>"
        f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
        f"{objects}</annotation>"
    )
