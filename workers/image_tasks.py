"""Images: resized, made grey or smaller, and written to the output folder's `images`."""

import re
import struct
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec

from libraries.files import call_digest, upload_dir, upload_path, write_output
from qdjobs.errors import PermanentJobError, short_repr

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST_FILE = 100_000_000  # bytes
LARGEST_SIDE = 10_000  # pixels, of what is asked for
MOST_PIXELS = 89_478_485  # of a picture read or asked for: where Pillow begins to warn of bombs
SUFFIXES = {'PNG': 'png', 'JPEG': 'jpg', 'WEBP': 'webp', 'GIF': 'gif'}
KNOWN = 'resize:200x200, thumbnail:128x128, grayscale, optimize'
# What decoders raise at damaged files. Not Exception: time and memory may suffice next time.
BROKEN = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError,
    AttributeError, NotImplementedError, struct.error, zlib.error, Warning,
)  # fmt: skip

_FORM = r'^(?:(resize|thumbnail):([1-9][0-9]{0,4})x([1-9][0-9]{0,4})|(grayscale|optimize))\Z'
Operations = Annotated[
    list[Annotated[str, msgspec.Meta(pattern=_FORM, description=f'one of {KNOWN}')]],
    msgspec.Meta(min_length=1, max_length=10),
]


class Step(NamedTuple):
    """One operation, and the size it asks for, if any, in pixels."""

    name: str
    size: tuple[int, int] = (0, 0)


class Picture(NamedTuple):
    """A picture upright, the format it came in, and what Pillow needs to write it as well."""

    image: 'Image'
    kind: str
    options: dict[str, Any]


def process_image(image_path: str, operations: Operations) -> str:
    """Apply the operations, in their order, to an uploaded image; return the new file's path.

    `resize:WxH` makes it exactly that size, `thumbnail:WxH` fits it in without enlarging it,
    `grayscale` takes the colours, `optimize` packs the file as tightly as its format can. PNG,
    JPEG, WebP and GIF stay what they are; the picture is turned upright as its EXIF says, and
    keeps its transparency and colour profile but no other metadata. The same call goes to the
    same file. Raises PermanentJobError for what would be wrong next time as well.
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
        raise PermanentJobError(f'{image_path!r} is no whole image: {error}') from error
    digest = call_digest(str(source), list(operations))
    name = f'{source.stem[:40]}-{digest}.{SUFFIXES[picture.kind]}'
    return str(write_output(f'images/{name}', packed))


def _parse(operations: Operations) -> list[Step]:
    if not isinstance(operations, list) or not 1 <= len(operations) <= 10:
        raise PermanentJobError(f'operations must be a list of 1 to 10 of {KNOWN}')
    steps = []
    for operation in operations:
        match = re.match(_FORM, operation) if isinstance(operation, str) else None
        if match is None:
            raise PermanentJobError(f'unknown operation {short_repr(operation)}: write {KNOWN}')
        width, height = int(match[2] or 0), int(match[3] or 0)
        if max(width, height) > LARGEST_SIDE or width * height > MOST_PIXELS:
            raise PermanentJobError(
                f'{operation} is too large: a side may have {LARGEST_SIDE} pixels, '
                f'and a picture {MOST_PIXELS}'
            )
        steps.append(Step(match[1] or match[4], (width, height)))
    return steps


def _read(image_path: str) -> tuple[Path, bytes]:
    """The file's path within the upload folder, and its bytes."""
    try:
        path = upload_path(image_path)
    except ValueError as error:
        raise PermanentJobError(str(error)) from error
    if not path.is_file():
        raise PermanentJobError(
            f'{image_path!r}: there is no such file in {upload_dir()} (UPLOAD_DIR).'
        )
    if path.stat().st_size > LARGEST_FILE:
        raise PermanentJobError(f'{image_path!r} has more than {LARGEST_FILE} bytes')
    return path.relative_to(upload_dir()), path.read_bytes()


def _decode(content: bytes) -> Picture:
    from PIL import Image, ImageOps, UnidentifiedImageError

    too_large = f'the image has more than {MOST_PIXELS} pixels'
    try:
        # Other formats start other programs, or may.
        opened: Any = Image.open(BytesIO(content), formats=list(SUFFIXES))
    except UnidentifiedImageError as error:
        raise PermanentJobError(f'the file is none of {", ".join(SUFFIXES)}') from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PermanentJobError(too_large) from error
    # Of this Pillow only warns; to make its warning an error would do so for every thread.
    if opened.width * opened.height > MOST_PIXELS:
        raise PermanentJobError(too_large)
    # Phones keep a second picture in what is a JPEG to everyone else.
    kind = 'JPEG' if opened.format == 'MPO' else opened.format
    if kind != 'JPEG' and getattr(opened, 'is_animated', False):
        raise PermanentJobError('the image is animated: pass a single picture')
    opened.load()
    image = ImageOps.exif_transpose(opened)
    kept = ('transparency', 'icc_profile')
    image.info = {key: opened.info[key] for key in kept if key in opened.info}
    return Picture(image, kind, _options(opened, kind))


def _options(opened: Any, kind: str) -> dict[str, Any]:
    """What makes the new file as good as the old one."""
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
    grey.info.pop('icc_profile', None)  # which is about colours
    return grey


def _in_full_colours(image: 'Image') -> 'Image':
    """The picture without a palette or a colour that stands for transparency: neither blends."""
    if image.mode not in ('LA', 'RGBA') and image.has_transparency_data:
        return image.convert('RGBA')
    return image.convert({'1': 'L', 'P': 'RGB'}.get(image.mode, image.mode))


def _encode(image: 'Image', picture: Picture, tightly: bool) -> bytes:
    """The file; tightly packed unless that turns out larger."""
    if picture.kind == 'GIF' and image.mode == 'LA':
        image = image.convert('RGBA')  # of LA Pillow would lose the transparency
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
        # libjpeg gives up where the file takes more room than Pillow has thought.
        with suppress(OSError):
            image.save(packed, picture.kind, **picture.options, **profile, **options)
            files.append(packed.getvalue())
    return min(files, key=len)
