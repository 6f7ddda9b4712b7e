"""Process images and write them to the `images` folder of OUTPUT_DIR."""

import os
import re
import struct
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from libraries.files import (
    call_digest,
    check_names,
    open_upload,
    permanent_upload_errors,
    uploads,
    write_output,
)
from libraries.limits import limit
from qdjobs.checks import checked_by
from qdjobs.errors import PermanentJobError

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST_FILE = 100_000_000  # bytes
LARGEST_SIDE = 10_000  # pixels of a requested side
SUFFIXES = {'PNG': 'png', 'JPEG': 'jpg', 'WEBP': 'webp', 'GIF': 'gif'}
# Bytes for each pixel while it is decoded; a progressive JPEG and a WebP are kept several times.
WEIGHTS = {'PNG': 4, 'JPEG': 10, 'WEBP': 16, 'GIF': 4}
KNOWN = 'resize:200x200, thumbnail:128x128, grayscale, optimize'
# What decoders raise for damaged files. Not Exception: time-outs and MemoryError may be retried.
BROKEN = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError,
    AttributeError, NotImplementedError, struct.error, zlib.error, Warning,
)  # fmt: skip

_FORM = r'^(?:(?:resize|thumbnail):[1-9][0-9]{0,4}x[1-9][0-9]{0,4}|grayscale|optimize)\Z'
# In a JPEG, but for those that have no length: restarts and what only looks like a marker.
_MARKER = re.compile(rb'\xff[^\x00\x01\xff\xd0-\xd7]')
_START_OF_SCAN, _END = b'\xff\xda', b'\xff\xd9'
Operations = Annotated[
    list[Annotated[str, msgspec.Meta(pattern=_FORM, description=f'one of {KNOWN}')]],
    msgspec.Meta(min_length=1, max_length=10),
]


def _check_image(image_path: str, operations: Operations) -> None:
    check_names('UPLOAD_DIR', [image_path])


@checked_by(_check_image)
def process_image(image_path: str, operations: Operations) -> str:
    """Apply operations in order to an uploaded image; return the new file's path.

    `resize:WxH` scales to exactly that size in pixels, `thumbnail:WxH` scales down to fit within
    it, `grayscale` removes colour, `optimize` makes the file as small as its format allows. The
    format (PNG, JPEG, WebP or GIF) stays the same. The image is rotated as its EXIF data says and
    keeps its transparency and colour profile, but no other metadata. The same call writes the
    same file. Raises PermanentJobError for a size that is too large and for unusable images.
    """
    steps = [_parse(operation) for operation in operations]
    name, content = _read(image_path)
    try:
        image, kind, options = _decode(name, content)
        for step, size in steps:
            image = _apply(image, step, size)
        packed = _encode(image, kind, options, tightly='optimize' in operations)
    except BROKEN as error:
        raise PermanentJobError(f'{name!r} is damaged or incomplete: {error}') from error
    output = f'{PurePosixPath(name).stem[:40]}-{call_digest(name, list(operations))}'
    return str(write_output(f'images/{output}.{SUFFIXES[kind]}', packed))


def _parse(operation: str) -> tuple[str, tuple[int, int]]:
    """The name of an operation and its size in pixels, (0, 0) if it has none."""
    step, _, size = operation.partition(':')
    width, height = map(int, size.split('x')) if size else (0, 0)
    if max(width, height) > LARGEST_SIDE:
        raise PermanentJobError(f'{operation} is too large: a side may have {LARGEST_SIDE} pixels.')
    _bound(operation, width * height, 'pixels', 'IMAGE_MAX_PIXELS')
    return step, (width, height)


def _bound(what: str, figure: int, unit: str, setting: str) -> None:
    if figure > limit(setting):
        raise PermanentJobError(
            f'{what} has {figure} {unit}: more than {limit(setting)} are refused ({setting}).'
        )


def _read(image_path: str) -> tuple[str, bytes]:
    """The name of the file in UPLOAD_DIR, and its content."""
    with permanent_upload_errors(image_path):
        name = uploads().name_of(image_path)
        with open_upload(name) as file:
            if file.seek(0, os.SEEK_END) > LARGEST_FILE:
                raise PermanentJobError(f'{image_path!r} has more than {LARGEST_FILE} bytes')
            file.seek(0)
            return name, file.read()


def _decode(name: str, content: bytes) -> tuple['Image', str, dict[str, Any]]:
    """The image, upright, its format, and Pillow's options to write it as well as it was."""
    from PIL import Image, ImageOps, JpegImagePlugin, UnidentifiedImageError

    try:
        # No other formats: Pillow runs external programs for some of them.
        opened: Any = Image.open(BytesIO(content), formats=list(SUFFIXES))
    except UnidentifiedImageError as error:
        raise PermanentJobError(f'{name!r} is none of {", ".join(SUFFIXES)}') from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PermanentJobError(f'{name!r} is too large (IMAGE_MAX_PIXELS): {error}') from error
    # MPO is JPEG with more images behind the first, as phones write it.
    kind = 'JPEG' if opened.format == 'MPO' else opened.format
    pixels = opened.width * opened.height
    _bound(repr(name), pixels, 'pixels', 'IMAGE_MAX_PIXELS')
    _bound(f'{name!r}, decoded,', pixels * WEIGHTS[kind] // 10**6, 'megabytes', 'IMAGE_MAX_MEMORY')
    if kind != 'JPEG' and getattr(opened, 'is_animated', False):
        raise PermanentJobError(f'{name!r} is animated: pass a single picture')
    options = {'quality': 90} if kind == 'WEBP' else {}
    if kind == 'JPEG':
        _bound(repr(name), _count_scans(content), 'scans', 'IMAGE_MAX_SCANS')
        sampling = JpegImagePlugin.get_sampling(opened)
        options = {'qtables': opened.quantization, 'subsampling': sampling}
    opened.load()
    image = ImageOps.exif_transpose(opened)
    kept = ('transparency', 'icc_profile')
    image.info = {key: opened.info[key] for key in kept if key in opened.info}
    return image, kind, options


def _count_scans(content: bytes) -> int:
    """How often a JPEG goes over its pixels: once, or about ten times if it is progressive."""
    scans, at = 0, 2
    while (marker := _MARKER.search(content, at)) and marker[0] != _END:
        scans += marker[0] == _START_OF_SCAN
        length = int.from_bytes(content[marker.end() : marker.end() + 2])
        at = marker.end() + length
    return scans


def _apply(image: 'Image', step: str, size: tuple[int, int]) -> 'Image':
    from PIL.Image import Resampling

    if step == 'optimize':
        return image
    # Neither a palette nor a transparent colour can be interpolated.
    if image.mode == 'I;16' and 'transparency' in image.info:
        image = _with_alpha(image)
    if image.mode not in ('LA', 'RGBA') and image.has_transparency_data:
        image = image.convert('RGBA')
    image = image.convert({'1': 'L', 'P': 'RGB'}.get(image.mode, image.mode))
    if step == 'resize':
        return image.resize(size, Resampling.LANCZOS)
    if step == 'thumbnail':
        # Pillow's `reduce` knows no grey of 16 bits.
        gap = None if image.mode == 'I;16' else 2.0
        image.thumbnail(size, Resampling.LANCZOS, reducing_gap=gap)
    elif image.mode != 'I;16':
        image = image.convert('LA' if image.mode in ('LA', 'RGBA') else 'L')
        image.info.pop('icc_profile', None)  # a colour profile does not apply to grey
    return image


def _with_alpha(image: 'Image') -> 'Image':
    """Grey of 16 bits with a transparent grey, as 8 bits and alpha: Pillow has nothing deeper."""
    from PIL import Image

    wide = image.convert('I')
    clear = image.info['transparency']
    grey = wide.point([round(value / 257) for value in range(1 << 16)], 'L')
    alpha = wide.point([0 if value == clear else 255 for value in range(1 << 16)], 'L')
    merged = Image.merge('LA', (grey, alpha))
    merged.info = {key: value for key, value in image.info.items() if key != 'transparency'}
    return merged


def _encode(image: 'Image', kind: str, options: dict[str, Any], tightly: bool) -> bytes:
    """Encode the image; with `tightly`, as the smaller of the plain and the optimised file."""
    if kind == 'GIF' and image.mode == 'LA':
        image = image.convert('RGBA')  # from LA Pillow loses the transparency
    if 'icc_profile' in image.info:
        options = options | {'icc_profile': image.info['icc_profile']}
    plain, packed = BytesIO(), BytesIO()
    image.save(plain, kind, **options)
    if tightly:
        tight = {'method': 6} if kind == 'WEBP' else {'optimize': True}
        more = {'progressive': True} if kind == 'JPEG' else {}
        # libjpeg fails if the file needs more room than Pillow's buffer has.
        with suppress(OSError):
            image.save(packed, kind, **options, **tight, **more)
            return min(plain.getvalue(), packed.getvalue(), key=len)
    return plain.getvalue()
