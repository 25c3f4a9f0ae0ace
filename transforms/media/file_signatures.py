"""The formats of media: by their first bytes, and the kind by a file's ending."""

from collections.abc import Mapping

# format -> kind; "container" may hold video, audio or both; None: no media at all.
FORMATS: Mapping[str, str | None] = {
    **dict.fromkeys(("jpeg", "png", "gif", "webp", "bmp", "tiff", "avif", "heic", "jxl", "jp2", "psd", "ico"), "image"),
    **dict.fromkeys(("pnm", "pfm", "bpg", "svg", "exr", "hdr"), "image"),
    **dict.fromkeys(("avi", "flv", "mpegts", "mpegps", "mxf"), "video"),
    **dict.fromkeys(("mp4", "matroska", "ogg", "asf"), "container"),
    **dict.fromkeys(("wav", "mp3", "flac", "aac", "ac3", "aiff", "wavpack", "musepack", "amr", "qcp", "midi"), "audio"),
    **dict.fromkeys(("html", "pdf", "zip", "gzip", "unknown"), None),
}

_PREFIXES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF8", "gif"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"8BPS", "psd"),
    (b"\xff\x0a", "jxl"),
    (b"\0\0\0\x0cJXL ", "jxl"),
    (b"\0\0\0\x0cjP  ", "jp2"),
    (b"\xff\x4f\xff\x51", "jp2"),
    (b"BPG\xfb", "bpg"),
    (b"v/1\x01", "exr"),
    (b"#?RADIANCE", "hdr"),
    (b"\0\0\1\0", "ico"),
    (b"\x1aE\xdf\xa3", "matroska"),
    (b"OggS", "ogg"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (b"FLV\x01", "flv"),
    (b"\0\0\x01\xba", "mpegps"),
    (b"\x06\x0e\x2b\x34", "mxf"),
    (b"fLaC", "flac"),
    (b"wvpk", "wavpack"),
    (b"MPCK", "musepack"),
    (b"MP+", "musepack"),
    (b"MThd", "midi"),
    (b"#!AMR", "amr"),
    (b"\x0bw", "ac3"),
    (b"ID3", "mp3"),
    (b"%PDF-", "pdf"),
    (b"PK\x03\x04", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"BM", "bmp"),
)
_RIFF = {b"WEBP": "webp", b"AVI ": "avi", b"WAVE": "wav", b"QLCM": "qcp"}
_FTYP = {b"avif": "avif", b"avis": "avif", b"mif1": "heic", b"msf1": "heic"}
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")

_ENDINGS_OF_KIND = {
    "image": """jpg jpeg jpe jfif mpo png apng gif webp bmp dib tif tiff avif heic heif jxl jp2 psd ico pnm ppm pgm
        pbm pfm tga bpg svg""",
    "video": """mp4 m4v mov qt mkv webm avi flv wmv asf mpg mpeg mpe vob ts m2ts mts ogv ogm 3gp 3g2 mxf f4v""",
    "audio": """mp3 mp2 mp1 m4a m4b aac ac3 wav wave flac ogg oga opus spx weba mka wma aif aiff aifc amr wv mpc qcp
        caf mid midi au ape tta""",
}
ENDINGS: Mapping[str, str] = {ending: kind for kind, endings in _ENDINGS_OF_KIND.items() for ending in endings.split()}


def sniff(data: bytes) -> str:
    """The format by its first bytes, a key of FORMATS (`unknown` where none does). The file name is ignored."""
    head = data[:4096]
    if head[:4] in (b"RIFF", b"RIFX", b"RF64"):
        return _RIFF.get(head[8:12], "wav" if head[:4] == b"RF64" else "unknown")
    if head[4:8] == b"ftyp":
        return _sniff_ftyp(head)
    for prefix, name in _PREFIXES:
        if head.startswith(prefix):
            return name
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    if head[4:8] in (b"moov", b"mdat", b"free", b"wide", b"skip", b"pnot"):
        return "mp4"
    if len(head) > 2 and head[:1] == b"P" and head[1:2] in b"1234567" and head[2:3].isspace():
        return "pnm"
    if head[:3] in (b"PF\n", b"Pf\n"):
        return "pfm"
    if len(head) > 376 and head[0] == head[188] == head[376] == 0x47:
        return "mpegts"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        return "aac" if head[1] & 0xF6 == 0xF0 else "mp3"
    return _sniff_text(head)


def _sniff_ftyp(head: bytes) -> str:
    """AVIF, HEIC or MP4 by the brands of the `ftyp` box: a picture's main brand may be the general `mif1`."""
    size = int.from_bytes(head[:4], "big")
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, min(size, len(head), 256), 4))]
    if brands[0] in _HEIC_BRANDS:
        return "heic"
    if brands[0] in _FTYP:
        return "avif" if any(brand in (b"avif", b"avis") for brand in brands) else "heic"
    return "mp4"


def _sniff_text(head: bytes) -> str:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "html"
    if text.startswith(b"<") and b"<svg" in text:
        return "svg"
    return "unknown"
