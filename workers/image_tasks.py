"""Process images and write them to the `images` folder of OUTPUT_DIR."""

import os
import struct
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import PurePath, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec

from libraries.files import call_digest, open_upload, uploads, write_output
from qdjobs.errors import PermanentJobError

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST_FILE = 100_000_000  # bytes
LARGEST_SIDE = 10_000  # pixels of a requested side
MOST_PIXELS = 89_478_485  # of an input or requested image: Pillow's decompression bomb limit
SUFFIXES = {'PNG': 'png', 'JPEG': 'jpg', 'WEBP': 'webp', 'GIF': 'gif'}
KNOWN = 'resize:200x200, thumbnail:128x128, grayscale, optimize'
# What decoders raise for damaged files. Not Exception: time-outs and MemoryError may be retried.
BROKEN = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError,
    AttributeError, NotImplementedError, struct.error, zlib.error, Warning,
)  # fmt: skip

_FORM = r'^(?:(?:resize|thumbnail):[1-9][0-9]{0,4}x[1-9][0-9]{0,4}|grayscale|optimize)\Z'
Operations = Annotated[
    list[Annotated[str, msgspec.Meta(pattern=_FORM, description=f'one of {KNOWN}')]],
    msgspec.Meta(min_length=1, max_length=10),
]


class Step(NamedTuple):
    """One operation and its size in pixels, (0, 0) if it has none."""

    name: str
    size: tuple[int, int] = (0, 0)


class Picture(NamedTuple):
    """A decoded, upright image, its file format, and Pillow's options to write it as well."""

    image: 'Image'
    kind: str
    options: dict[str, Any]


def process_image(image_path: str, operations: Operations) -> str:
    """Apply operations in order to an uploaded image; return the new file's path.

    `resize:WxH` scales to exactly that size in pixels, `thumbnail:WxH` scales down to fit within
    it, `grayscale` removes colour, `optimize` makes the file as small as its format allows. The
    format (PNG, JPEG, WebP or GIF) stays the same. The image is rotated as its EXIF data says and
    keeps its transparency and colour profile, but no other metadata. The same call writes the
    same file. Raises PermanentJobError for a size that is too large and for unusable images.
    """
    steps = _parse(operations)
    source, content = _read(image_path)
    try:
        picture = _decode(content)
        image = picture.image
        for step in steps:
            image = _apply(image, step)
        packed = _encode(image, picture, tightly=Step('optimize') in steps)
    except BROKEN as error:
        raise PermanentJobError(f'{image_path!r} is damaged or incomplete: {error}') from error
    digest = call_digest(str(source), list(operations))
    name = f'{source.stem[:40]}-{digest}.{SUFFIXES[picture.kind]}'
    return str(write_output(f'images/{name}', packed))


def _parse(operations: Operations) -> list[Step]:
    steps = []
    for operation in operations:
        name, _, size = operation.partition(':')
        width, height = map(int, size.split('x')) if size else (0, 0)
        if max(width, height) > LARGEST_SIDE or width * height > MOST_PIXELS:
            raise PermanentJobError(
                f'{operation} is too large: a side may have {LARGEST_SIDE} pixels, '
                f'and a picture {MOST_PIXELS}'
            )
        steps.append(Step(name, (width, height)))
    return steps


def _read(image_path: str) -> tuple[PurePath, bytes]:
    """The path of the file, relative to UPLOAD_DIR, and its content."""
    try:
        name = uploads().name_of(image_path)
        with open_upload(name) as file:
            if file.seek(0, os.SEEK_END) > LARGEST_FILE:
                raise PermanentJobError(f'{image_path!r} has more than {LARGEST_FILE} bytes')
            file.seek(0)
            return PurePosixPath(name), file.read()
    except ValueError as error:
        raise PermanentJobError(str(error)) from error
    except FileNotFoundError as error:
        raise PermanentJobError(
            f'{image_path!r}: there is no such file in {uploads()} (UPLOAD_DIR).'
        ) from error


def _decode(content: bytes) -> Picture:
    from PIL import Image, ImageOps, UnidentifiedImageError

    too_large = f'the image has more than {MOST_PIXELS} pixels'
    try:
        # No other formats: Pillow runs external programs for some of them.
        opened: Any = Image.open(BytesIO(content), formats=list(SUFFIXES))
    except UnidentifiedImageError as error:
        raise PermanentJobError(f'the file is none of {", ".join(SUFFIXES)}') from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PermanentJobError(too_large) from error
    # Pillow only warns here; turning the warning into an error would affect all threads.
    if opened.width * opened.height > MOST_PIXELS:
        raise PermanentJobError(too_large)
    # MPO is JPEG with more images behind the first, as phones write it.
    kind = 'JPEG' if opened.format == 'MPO' else opened.format
    if kind != 'JPEG' and getattr(opened, 'is_animated', False):
        raise PermanentJobError('the image is animated: pass a single picture')
    opened.load()
    image = ImageOps.exif_transpose(opened)
    kept = ('transparency', 'icc_profile')
    image.info = {key: opened.info[key] for key in kept if key in opened.info}
    return Picture(image, kind, _options(opened, kind))


def _options(opened: Any, kind: str) -> dict[str, Any]:
    """Pillow's save options for the quality of the original file."""
    from PIL import JpegImagePlugin

    if kind == 'JPEG':
        sampling = JpegImagePlugin.get_sampling(opened)
        return {'qtables': opened.quantization, 'subsampling': sampling}
    return {'quality': 90} if kind == 'WEBP' else {}


def _apply(image: 'Image', step: Step) -> 'Image':
    from PIL.Image import Resampling

    if step.name == 'optimize':
        return image
    image = _in_full_colours(image)
    if step.name == 'resize':
        return image.resize(step.size, Resampling.LANCZOS)
    if step.name == 'thumbnail':
        image.thumbnail(step.size, Resampling.LANCZOS)
        return image
    if image.mode == 'I;16':
        return image
    grey = image.convert('LA' if image.mode in ('LA', 'RGBA') else 'L')
    grey.info.pop('icc_profile', None)  # a colour profile does not apply to grey
    return grey


def _in_full_colours(image: 'Image') -> 'Image':
    """The image without a palette or transparent colour: these cannot be interpolated."""
    if image.mode not in ('LA', 'RGBA') and image.has_transparency_data:
        return image.convert('RGBA')
    return image.convert({'1': 'L', 'P': 'RGB'}.get(image.mode, image.mode))


def _encode(image: 'Image', picture: Picture, tightly: bool) -> bytes:
    """Encode the image; with `tightly`, as the smaller of the plain and the optimised file."""
    if picture.kind == 'GIF' and image.mode == 'LA':
        image = image.convert('RGBA')  # from LA Pillow loses the transparency
    profile = {'icc_profile': image.info['icc_profile']} if 'icc_profile' in image.info else {}
    plain = BytesIO()
    image.save(plain, picture.kind, **picture.options, **profile)
    files = [plain.getvalue()]
    if tightly:
        packed = BytesIO()
        tight: dict[str, dict[str, Any]] = {
            'PNG': {'optimize': True},
            'GIF': {'optimize': True},
            'WEBP': {'method': 6},
        }
        options = tight.get(picture.kind, {'optimize': True, 'progressive': True})
        # libjpeg fails if the file needs more room than Pillow's buffer has.
        with suppress(OSError):
            image.save(packed, picture.kind, **picture.options, **profile, **options)
            files.append(packed.getvalue())
    return min(files, key=len)
