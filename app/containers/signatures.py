"""Formats that are not taken, by their first bytes, so that a refusal can name them."""

import re

__all__ = ["is_text", "name_of"]

TEXT, JSON = "text", "JSON text"

_AT_START = (
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"8BPS", "a Photoshop document (PSD)"),
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript document"),
    (b"II*\0\x10\0\0\0CR", "a Canon raw photo (CR2)"),
    (b"FUJIFILMCCD-RAW", "a Fujifilm raw photo (RAF)"),
    (b"IIU\0", "a Panasonic raw photo (RW2)"),
    (b"IIRO", "an Olympus raw photo (ORF)"),
    (b"II\xbc\x01", "a JPEG XR image"),
    (b"II+\0", "a BigTIFF image"),
    (b"MM\0+", "a BigTIFF image"),
    # A cursor or icon has a number of pictures there; uncompressed Targa files have zeros.
    *((b"\0\0" + bytes([kind]) + bytes(5), "a Targa image (TGA)") for kind in (2, 3, 10, 11)),
    (b"\0\0\x01\0", "a Windows icon (ICO)"),
    (b"\0\0\x02\0", "a Windows cursor (CUR)"),
    (b"icns", "an Apple icon (ICNS)"),
    (b"qoif", "a QOI image"),
    (b"v/1\x01", "an OpenEXR image"),
    (b"#?RADIANCE", "a Radiance HDR image"),
    (b"DDS ", "a DDS texture"),
    (b"SIMPLE  =", "a FITS image"),
    (b"gimp xcf", "a GIMP document (XCF)"),
    (b"\x8aMNG\r\n", "an MNG animation"),
    (b"\x8bJNG\r\n", "a JNG image"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
    (b"FLV\x01", "a Flash video"),
    (b"\0\0\x01\xba", "an MPEG video"),
    (b"ID3", "an MP3 audio file"),
    (b"fLaC", "a FLAC audio file"),
    (b"OggS", "an Ogg file"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"data:image/", "a data URL, not the image itself"),
    (b"iVBORw0KGgo", "a PNG in Base64, not the image itself"),
    (b"/9j/", "a JPEG in Base64, not the image itself"),
)

_RIFF = {b"AVI ": "an AVI video", b"WAVE": "a WAV audio file"}

# Brands of ISO's container that are no pictures of ours.
_BRANDS = {
    **dict.fromkeys((b"isom", b"iso2", b"iso4", b"iso5", b"iso6"), "an MP4 video"),
    **dict.fromkeys((b"mp41", b"mp42", b"avc1", b"dash", b"M4V ", b"MSNV"), "an MP4 video"),
    **{b"qt  ": "a QuickTime video", b"M4A ": "an M4A audio file", b"crx ": "a Canon raw photo"},
    **dict.fromkeys((b"jp2 ", b"jpx "), "a JPEG 2000 image"),
}

_PORTABLE = re.compile(rb"P[1-7F][ \t\r\n#]")
_MARKUP = (
    (re.compile(rb"<svg[\s>]", re.IGNORECASE), "an SVG drawing"),
    (re.compile(rb"<(?:!doctype\s+html|html|head|body)[\s>]", re.IGNORECASE), "an HTML page"),
    (re.compile(rb"<\?xml\s", re.IGNORECASE), "an XML document"),
)


def name_of(data: bytes) -> str | None:
    """The format of a file with its article, by its first 1,024 bytes; None if it is unknown."""
    start = data[:1024]
    for signature, name in _AT_START:
        if start.startswith(signature):
            return name
    if start[:4] == b"RIFF":
        return _RIFF.get(start[8:12], "a RIFF file")
    if start[4:8] == b"ftyp":
        brand = start[8:12].decode("ascii", "replace")
        return _BRANDS.get(start[8:12], f"an ISO media file of brand {brand!r}")
    if start[257:262] == b"ustar":
        return "a tar archive"
    if _PORTABLE.match(start):
        return "a Netpbm image (PPM, PGM, PBM, PAM)"
    return _text(start)


def is_text(data: bytes) -> bool:
    """Whether a file is text, but for the kinds that `name_of` knows better."""
    return not data.startswith(b"\xff\xd8\xff") and name_of(data) in (TEXT, JSON)


def _text(start: bytes) -> str | None:
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] == b"<":
        for pattern, name in _MARKUP:
            if pattern.search(text):
                return name
    if text[:1] in (b"{", b"["):
        return JSON
    if text and not any(byte < 9 or 13 < byte < 32 or byte == 127 for byte in text):
        return TEXT
    return None
