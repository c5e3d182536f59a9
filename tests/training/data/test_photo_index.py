import random
import re
import unicodedata
from collections.abc import Callable
from urllib.parse import quote

import pytest

from training.data.photo_index import PhotoIndex

PHOTOS = {
    "train/beagle/a.jpg": "beagle",
    "train/beagle/IMG_1.JPG": "beagle",
    "train/beagle/scan.tiff": "beagle",
    "train/beagle/c.d.png": "beagle",
    "train/beagle/50%25.jpg": "beagle",
    "test/beagle/two words.jpg": "beagle",
    "test/E\u0301pagneul/e\u0301te\u0301.jpg": "E\u0301pagneul",
}


@pytest.mark.parametrize(
    ("name", "photo"),
    [
        ("IMG_1.jpg", "train/beagle/IMG_1.JPG"),
        ("img_1.jpeg", "train/beagle/IMG_1.JPG"),
        ("Beagle/A.JFIF", "train/beagle/a.jpg"),
        ("scan.tif", "train/beagle/scan.tiff"),
        (r"C:\Users\me\beagle\a.jpg", "train/beagle/a.jpg"),
        (r"train\a.jpg", "train/beagle/a.jpg"),
        (r"\\server\photos\Beagle\A.JPG", "train/beagle/a.jpg"),
        ("./beagle/a.jpg", "train/beagle/a.jpg"),
        ("beagle/two%20words.jpg", "test/beagle/two words.jpg"),
        ("test%2Fbeagle%2Ftwo%20words.jpg", "test/beagle/two words.jpg"),
        ("50%25.jpg", "train/beagle/50%25.jpg"),
        ("\u00c9pagneul/\u00e9t\u00e9.jpg", "test/E\u0301pagneul/e\u0301te\u0301.jpg"),
        ("/data/\u00e9pagneul/\u00c9T\u00c9.jpg", "test/E\u0301pagneul/e\u0301te\u0301.jpg"),
        ("IMG_1", "train/beagle/IMG_1.JPG"),  # Kaggle's image_id
        ("c.d", "train/beagle/c.d.png"),
    ],
)
def test_spellings_of_a_file_name(name: str, photo: str) -> None:
    assert PhotoIndex(PHOTOS).find(name, is_stem=False) == photo


@pytest.mark.parametrize(
    ("name", "photo"),
    [
        ("beagle/img_1", "train/beagle/IMG_1.JPG"),
        ("IMG_1.jpg", "train/beagle/IMG_1.JPG"),  # IMG_1.jpg.xml
        ("c.d", "train/beagle/c.d.png"),
        (unicodedata.normalize("NFC", "e\u0301te\u0301"), [*PHOTOS][-1]),
    ],
)
def test_spellings_of_a_stem(name: str, photo: str) -> None:
    assert PhotoIndex(PHOTOS).find(name, is_stem=True) == photo


@pytest.mark.parametrize(
    "name",
    ["", "/", "a.png", "dingo/a.jpg", r"C:\dingo\a.jpg", "dingo%2Fa.jpg", "a.jpg.bak", "c"],
)
def test_names_of_other_photos(name: str) -> None:
    for is_stem in (False, True):
        with pytest.raises(LookupError, match=f"there is no photo {re.escape(name)}"):
            PhotoIndex(PHOTOS).find(name, is_stem=is_stem)


@pytest.mark.parametrize(
    ("name", "photo"),
    [
        ("train/beagle/a.jpg", None),
        ("validation/a.jpg", None),
        ("val/beagle/b.jpg", "validation/beagle/b.jpg"),
        ("Valid/b.jpg", "validation/beagle/b.jpg"),
        ("/train/2019/test/beagle/a.jpg", "test/beagle/a.jpg"),
        ("/test/2019/train/beagle/a.jpg", None),
        ("train/images/a.jpg", None),
        ("images/train/a.jpg", None),
        ("images/test/a.jpg", "test/beagle/a.jpg"),
        ("testing/images/a.jpg", "test/beagle/a.jpg"),
    ],
)
def test_split_of_a_name_is_that_of_the_photo(name: str, photo: str | None) -> None:
    index = PhotoIndex({"test/beagle/a.jpg": "beagle", "validation/beagle/b.jpg": "beagle"})

    if photo is None:
        with pytest.raises(LookupError, match="there is no photo"):
            index.find(name, is_stem=False)
    else:
        assert index.find(name, is_stem=False) == photo


@pytest.mark.parametrize(
    "name",
    [
        "images/a.jpg",
        "JPEGImages/a.jpg",
        r"C:\imgs\a.jpg",
        "/a.jpg",
        "/home/me/photos/a.jpg",
        "../a",
    ],
)
def test_folders_for_photos_of_all_classes_do_no_harm(name: str) -> None:
    index = PhotoIndex({"beagle/a.jpg": "beagle", "beagle/b.jpg": "beagle", "dingo/b.jpg": "dingo"})

    assert index.find(name, is_stem=False) == "beagle/a.jpg"
    with pytest.raises(LookupError, match="ambiguous"):
        index.find(name.replace("a.jpg", "b.jpg").replace("../a", "b"), is_stem=False)
    with pytest.raises(LookupError, match="there is no photo"):
        index.find("dingo/images/a.jpg", is_stem=False)


def test_exact_spelling_comes_first_and_two_others_are_ambiguous() -> None:
    index = PhotoIndex(dict.fromkeys(("beagle/a.jpg", "beagle/A.JPG", "beagle/a.jpeg"), "beagle"))

    assert index.find("a.jpg", is_stem=False) == "beagle/a.jpg"
    assert index.find("beagle/A.JPG", is_stem=False) == "beagle/A.JPG"
    with pytest.raises(LookupError, match=r"ambiguous: beagle/a\.jpg or beagle/A\.JPG"):
        index.find("A.jpg", is_stem=False)
    with pytest.raises(LookupError, match="ambiguous"):
        index.find("a", is_stem=True)


def test_longest_tail_comes_before_the_exact_spelling() -> None:
    photos = {"train/beagle/a.jpg": "beagle", "test/beagle/a.JPG": "beagle"}

    assert PhotoIndex(photos).find("train/beagle/a.JPG", is_stem=False) == "train/beagle/a.jpg"


def test_composed_and_decomposed_photo_of_the_same_name() -> None:
    photos = {"beagle/\u00e9.jpg": "beagle", "beagle/e\u0301.jpg": "beagle"}

    for photo in photos:
        assert PhotoIndex(photos).find(photo, is_stem=False) == photo
    with pytest.raises(LookupError, match="ambiguous"):
        PhotoIndex(photos).find("beagle/\u00c9.jpg", is_stem=False)


@pytest.mark.parametrize("seed", range(50))
def test_names_as_other_systems_write_them(seed: int) -> None:
    """Whatever is done to a photo's path on its way, the photo is the one it came from."""
    rng = random.Random(seed)
    letters = "abcxyz \u00e9\u00fc\u00f1\u30ac\ud55c+&#%"

    def word() -> str:
        return "".join(rng.choices(letters, k=12)).strip() or "x"

    suffixes = {".jpg": (".JPG", ".jpeg", ".jfif"), ".tif": (".tiff",), ".png": (".Png",)}
    for _ in range(20):
        breed, stem, suffix = word(), word(), rng.choice([*suffixes])
        photos = {f"{breed}/{stem}{suffix}": breed, f"{breed}/{word()}.jpg": breed}
        photos["other/" + word() + ".jpg"] = "other"
        stored = {
            unicodedata.normalize(rng.choice(("NFC", "NFD")), photo): breed
            for photo, breed in photos.items()
        }
        name = f"{breed}/{stem}{rng.choice((suffix, *suffixes[suffix]))}"
        changes: list[Callable[[str], str]] = [
            lambda text: unicodedata.normalize("NFD", text),
            lambda text: unicodedata.normalize("NFC", text),
            str.upper,
            lambda text: rng.choice(("/data/my photos/", "C:/Users/me/", "./", "train/")) + text,
        ]
        for change in rng.sample(changes, rng.randint(0, len(changes))):
            name = change(name)
        name = rng.choice((str, quote, lambda text: text.replace("/", "\\")))(name)

        assert PhotoIndex(stored).find(name, is_stem=False) == next(iter(stored))
