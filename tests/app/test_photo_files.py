from pathlib import Path

from app.photo_files import is_photo


def test_photos_by_suffix() -> None:
    for name in ("a.jpg", "a.JPEG", "a.heic", "a.b.Png", "a.CR2"):
        assert is_photo(Path(name))
    for name in ("jpg", "a.txt", "a.jpg.xml", ".jpg"):
        assert not is_photo(Path(name))
