"""Folders of pictures as a user lays them out."""

from pathlib import Path

from tests.training.pictures import photo

CLASSES = ("n00000001-red_dog", "blue dog")


def write_photos(place: Path, count: int, *, offset: int = 0, width: int = 60) -> list[Path]:
    """`count` photos of each of `CLASSES`, below `place`."""
    written = []
    for label, name in enumerate(CLASSES):
        (place / name).mkdir(parents=True, exist_ok=True)
        for index in range(offset, offset + count):
            path = place / name / f"{label}-{index}.png"
            path.write_bytes(photo(label, index, width=width).read())
            written.append(path)
    return written


def pixel_box(label: int, index: int) -> tuple[float, float, float, float]:
    """The box of a photo that `write_photos` made, in its pixels."""
    xmin, ymin, xmax, ymax = photo(label, index).boxes[0]
    return round(xmin * 60), round(ymin * 48), round(xmax * 60), round(ymax * 48)


def voc(*boxes: tuple[float, float, float, float], size: tuple[int, int] = (60, 48)) -> str:
    """PASCAL VOC XML."""
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
