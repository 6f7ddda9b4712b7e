"""What comes out is read back by hand: the pixels of a PNG, the headers of the others."""

import io
import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFilter

from libraries.files import output_dir, upload_dir
from libraries.job_manager import enqueue_background_job, wait_for_job
from qdjobs.client.tasks import check_call
from qdjobs.errors import InvalidJobError, PermanentJobError
from tests.support.processes import ROOT
from workers.image_tasks import process_image

TASK = 'workers.image_tasks.process_image'
RED, GREEN, BLUE, WHITE, BLACK = (
    (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0),
)  # fmt: skip
Upload = Callable[..., str]


@pytest.fixture
def upload() -> Upload:
    """Save an image, or bytes, among the uploads; return the name."""
    folder = upload_dir()
    folder.mkdir(exist_ok=True)

    def save(name: str, content: Image.Image | bytes, **options: Any) -> str:
        if isinstance(content, Image.Image):
            content.save(folder / name, **options)
        else:
            (folder / name).write_bytes(content)
        return name

    return save


def outputs() -> list[Path]:
    return sorted(path for path in output_dir().rglob('*') if path.is_file())


def chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    """The chunks of a PNG as (type, data), their checksums checked."""
    assert content[:8] == b'\x89PNG\r\n\x1a\n'
    found, at = [], 8
    while at < len(content):
        size = int.from_bytes(content[at : at + 4])
        kind, data = content[at + 4 : at + 8], content[at + 8 : at + 8 + size]
        assert zlib.crc32(kind + data) == int.from_bytes(content[at + 8 + size : at + 12 + size])
        found.append((kind, data))
        at += 12 + size
    assert found[-1] == (b'IEND', b'')
    return found


def pixels(path: str) -> list[list[tuple[int, ...]]]:
    """The rows of a PNG of grey, grey with alpha, RGB or RGBA, 8 or 16 bits deep."""
    parts = chunks(Path(path).read_bytes())
    width, height, depth, colour = struct.unpack('>IIBB', parts[0][1][:10])
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    step = channels * depth // 8
    raw = zlib.decompress(b''.join(data for kind, data in parts if kind == b'IDAT'))
    rows, above = [], bytearray(width * step)
    for y in range(height):
        start = y * (width * step + 1)
        row = unfiltered(raw[start], bytearray(raw[start + 1 :][: width * step]), above, step)
        values = struct.unpack(f'>{width * channels}{"BH"[depth // 16]}', row)
        rows.append([values[x * channels : (x + 1) * channels] for x in range(width)])
        above = row
    return rows


def unfiltered(kind: int, row: bytearray, above: bytearray, step: int) -> bytearray:
    for x in range(len(row)):
        left, up, corner = (
            row[x - step] if x >= step else 0,
            above[x],
            above[x - step] if x >= step else 0,
        )
        guess = left + up - corner
        paeth = min((left, up, corner), key=lambda value: abs(guess - value))
        row[x] = (row[x] + (0, left, up, (left + up) // 2, paeth)[kind]) % 256
    return row


def size_of(path: str) -> tuple[int, int]:
    """Width and height as the file's own header has them."""
    content = Path(path).read_bytes()
    if content[:4] == b'\x89PNG':
        return struct.unpack('>II', content[16:24])
    if content[:3] == b'GIF':
        return struct.unpack('<HH', content[6:10])
    at = 2  # a JPEG: look for its frame
    while content[at + 1] not in (0xC0, 0xC1, 0xC2):
        at += 2 + int.from_bytes(content[at + 2 : at + 4])
    height, width = struct.unpack('>HH', content[at + 5 : at + 9])
    return width, height


def noise(width: int = 64, height: int = 48, mode: str = 'RGB') -> Image.Image:
    source = random.Random(7)
    return Image.frombytes('RGB', (width, height), source.randbytes(width * height * 3)).convert(
        mode
    )


def png_header(width: int, height: int, rows: bytes = b'') -> bytes:
    """A PNG of one bit a pixel, made by hand."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    head = struct.pack('>IIBBBBB', width, height, 1, 0, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', rows) + chunk(b'IEND', b'')


# Sizes


@pytest.mark.parametrize('suffix', ['png', 'jpg', 'gif'])
@pytest.mark.parametrize(
    ('operation', 'expected'),
    [
        ('resize:20x30', (20, 30)),
        ('resize:200x10', (200, 10)),
        ('thumbnail:32x32', (32, 24)),
        ('thumbnail:64x12', (16, 12)),
        ('thumbnail:500x500', (64, 48)),
        ('grayscale', (64, 48)),
        ('optimize', (64, 48)),
    ],
)
def test_the_size_is_what_was_asked_for(
    upload: Upload, suffix: str, operation: str, expected: tuple[int, int]
) -> None:
    path = process_image(upload(f'a.{suffix}', noise()), [operation])
    assert path.startswith(str(output_dir() / 'images' / 'a-'))
    assert path.endswith(suffix)
    assert size_of(path) == expected


def test_operations_are_applied_in_their_order(upload: Upload) -> None:
    name = upload('a.png', noise())
    assert size_of(process_image(name, ['resize:400x300', 'thumbnail:40x40'])) == (40, 30)
    assert size_of(process_image(name, ['thumbnail:40x40', 'resize:400x300'])) == (400, 300)


def test_webp_stays_webp(upload: Upload) -> None:
    path = process_image(upload('a.webp', noise()), ['resize:20x30', 'optimize'])
    content = Path(path).read_bytes()
    assert (content[:4], content[8:12]) == (b'RIFF', b'WEBP')
    with Image.open(path) as image:
        assert image.size == (20, 30)


def test_the_format_is_that_of_the_content_not_of_the_name(upload: Upload) -> None:
    content = io.BytesIO()
    noise().save(content, 'PNG')
    path = process_image(upload('photo.jpg', content.getvalue()), ['optimize'])
    assert path.endswith('.png')
    assert chunks(Path(path).read_bytes())


# Pixels


@pytest.mark.parametrize(
    ('orientation', 'upright'),
    [(1, 'AB CD EF'), (2, 'BA DC FE'), (3, 'FE DC BA'), (4, 'EF CD AB'),
     (5, 'ACE BDF'), (6, 'ECA FDB'), (7, 'FDB ECA'), (8, 'BDF ACE')],
)  # fmt: skip
def test_a_picture_is_turned_upright_as_its_exif_says(
    upload: Upload, orientation: int, upright: str
) -> None:
    colours = dict(zip('ABCDEF', [RED, GREEN, BLUE, WHITE, BLACK, (9, 90, 200)], strict=True))
    image = Image.new('RGB', (2, 3))
    for place, letter in enumerate('ABCDEF'):
        image.putpixel((place % 2, place // 2), colours[letter])
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = process_image(upload('a.png', image, exif=exif), ['optimize'])
    assert pixels(path) == [[colours[letter] for letter in row] for row in upright.split()]


def test_a_jpeg_of_a_phone_held_upright(upload: Upload) -> None:
    image = Image.new('RGB', (64, 32), RED)
    image.paste(BLUE, (32, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise: what was left is above
    path = process_image(upload('a.jpg', image, exif=exif, quality=95), ['resize:32x64'])
    assert size_of(path) == (32, 64)
    with Image.open(path) as turned:
        for y, colour in ((8, RED), (56, BLUE)):
            found: Any = turned.getpixel((16, y))
            assert all(abs(a - b) < 8 for a, b in zip(found, colour, strict=True))


def test_grey_is_what_the_eye_makes_of_colours(upload: Upload) -> None:
    image = Image.new('RGB', (4, 1))
    for x, colour in enumerate([RED, GREEN, BLUE, WHITE]):
        image.putpixel((x, 0), colour)
    # 0.299, 0.587 and 0.114 of 255: ITU-R BT.601
    assert pixels(process_image(upload('a.png', image), ['grayscale'])) == [
        [(76,), (150,), (29,), (255,)]
    ]


@pytest.mark.parametrize('kind', ['RGBA', 'P', 'key'])
def test_what_is_transparent_stays_so_and_does_not_bleed(upload: Upload, kind: str) -> None:
    """The left half is red, the right half transparent, of a green that nobody must see."""
    image = Image.new('RGBA', (8, 4), (*RED, 255))
    image.paste((*GREEN, 0), (4, 0, 8, 4))
    options: dict[str, Any] = {}
    if kind == 'P':
        image = Image.new('P', (8, 4), 0)
        image.putpalette([*RED, *GREEN])
        image.paste(1, (4, 0, 8, 4))
        options = {'transparency': 1}
    elif kind == 'key':
        image, options = image.convert('RGB'), {'transparency': GREEN}
        image.paste(GREEN, (4, 0, 8, 4))
    name = upload('a.png', image, **options)
    (row, *_) = pixels(process_image(name, ['resize:16x8']))
    assert row[0] == (*RED, 255)
    assert row[-1][3] == 0
    assert all(pixel[1] == 0 for pixel in row if pixel[3])
    grey = pixels(process_image(name, ['grayscale']))[0]
    assert (grey[0], grey[-1][1]) == ((76, 255), 0)


def test_a_gif_keeps_its_transparency(upload: Upload) -> None:
    image = Image.new('P', (8, 4), 0)
    image.putpalette([*RED, *GREEN])
    image.paste(1, (4, 0, 8, 4))
    name = upload('a.gif', image, transparency=1)
    for operations in (['optimize'], ['resize:16x8'], ['grayscale'], ['grayscale', 'optimize']):
        with Image.open(process_image(name, operations)) as result:
            rgba = result.convert('RGBA')
            left: Any = rgba.getpixel((0, 0))
            right: Any = rgba.getpixel((rgba.width - 1, 0))
        assert left == ((76, 76, 76, 255) if 'grayscale' in operations else (*RED, 255))
        assert right[3] == 0


@pytest.mark.parametrize('operation', ['optimize', 'grayscale', 'resize:1x1', 'thumbnail:2x2'])
def test_sixteen_bits_of_grey_stay_sixteen(upload: Upload, operation: str) -> None:
    image = Image.new('I;16', (2, 2), 0x1234)
    assert pixels(process_image(upload('a.png', image), [operation]))[0][0] == (0x1234,)


@pytest.mark.parametrize('operation', ['thumbnail:8x8', 'thumbnail:30x30', 'resize:16x16'])
def test_sixteen_bits_of_grey_keep_their_greys_in_a_smaller_size(
    upload: Upload, operation: str
) -> None:
    ramp = Image.frombytes('I;16', (64, 64), struct.pack('<4096H', *range(0, 65536, 16)))
    found = pixels(process_image(upload('a.png', ramp), [operation]))
    middle = found[len(found) // 2][0][0]
    assert found[0][0][0] < 0x1800 < 0x7000 < middle < 0xA000 < 0xE800 < found[-1][-1][0]


@pytest.mark.parametrize('operation', ['thumbnail:4x4', 'grayscale', 'resize:8x8'])
def test_sixteen_bits_of_grey_with_a_transparent_grey_keep_both_in_eight(
    upload: Upload, operation: str
) -> None:
    greys = [0x8043] * 32 + [0x8042] * 32  # of which the first is transparent
    image = Image.frombytes('I;16', (8, 8), struct.pack('<64H', *greys))
    found = pixels(process_image(upload('a.png', image, transparency=0x8043), [operation]))
    grey, alpha = found[-1][0]
    assert (found[0][0][1], alpha) == (0, 255)
    assert abs(grey - 0x80) <= 3


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGB', 'RGBA'])
@pytest.mark.parametrize('suffix', ['png', 'gif', 'webp'])
def test_every_kind_of_picture_goes_through(upload: Upload, mode: str, suffix: str) -> None:
    name = upload(f'a.{suffix}', noise(mode=mode))
    path = process_image(name, ['resize:9x9', 'grayscale', 'thumbnail:5x5', 'optimize'])
    with Image.open(path) as image:
        image.load()
        assert image.size == (5, 5)


def test_a_cmyk_jpeg_stays_one_until_it_is_grey(upload: Upload) -> None:
    name = upload('a.jpg', Image.new('CMYK', (32, 32), (0, 255, 255, 0)), quality=95)
    for operation, mode, expected in (
        ('resize:16x16', 'CMYK', (0, 255, 255, 0)),
        ('grayscale', 'L', (76,)),
    ):
        with Image.open(process_image(name, [operation])) as image:
            assert image.mode == mode
            found: Any = image.getpixel((8, 8))
        found = found if isinstance(found, tuple) else (found,)
        assert all(abs(a - b) < 4 for a, b in zip(found, expected, strict=True))


# What else stands in the file


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp'])
@pytest.mark.parametrize('operation', ['optimize', 'resize:10x10', 'thumbnail:10x10'])
def test_a_file_keeps_its_profile_and_tells_nothing_of_its_author(
    upload: Upload, suffix: str, operation: str
) -> None:
    exif = Image.Exif()
    exif[0x010E] = 'SECRET description'
    exif.get_ifd(0x8825).update({1: 'N', 2: (52.0, 31.0, 1.0)})  # where it was taken
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
    options: dict[str, Any] = {'exif': exif, 'icc_profile': profile}
    if suffix == 'jpg':
        options['comment'] = b'SECRET comment'
    if suffix != 'png':
        options['xmp'] = b'<x>SECRET xmp</x>'
    name = upload(f'a.{suffix}', noise(), **options)
    assert b'SECRET' in (upload_dir() / name).read_bytes()
    path = process_image(name, [operation])
    content = Path(path).read_bytes()
    assert b'SECRET' not in content
    assert b'Exif' not in content
    assert b'eXIf' not in content
    with Image.open(path) as image:
        assert image.info['icc_profile'] == profile
        assert not image.getexif()


def test_a_grey_picture_has_no_profile_of_colours(upload: Upload) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
    for suffix in ('jpg', 'png'):
        name = upload(f'a.{suffix}', noise(), icc_profile=profile)
        with Image.open(process_image(name, ['grayscale'])) as image:
            assert 'icc_profile' not in image.info


@pytest.mark.parametrize('suffix', ['png', 'jpg', 'gif', 'webp'])
def test_optimize_never_makes_a_file_larger(upload: Upload, suffix: str) -> None:
    """Which packing harder often does, to some small pictures of each size."""
    for side in range(1, 60, 7 if suffix == 'webp' else 2):  # whose packing is slow
        picture = noise(side, 58).filter(ImageFilter.GaussianBlur(side % 3))
        name = upload(f'a.{suffix}', picture)
        as_it_is = Path(process_image(name, ['thumbnail:500x500'])).stat().st_size
        optimized = Path(process_image(name, ['thumbnail:500x500', 'optimize'])).stat().st_size
        assert optimized <= as_it_is


def test_optimize_packs_a_photograph_more_tightly(upload: Upload) -> None:
    soft = noise(16, 12).resize((640, 480))
    name = upload('a.jpg', soft, quality=80)
    before = (upload_dir() / name).stat().st_size
    assert Path(process_image(name, ['optimize'])).stat().st_size < before * 0.95


@pytest.mark.parametrize('quality', [30, 75, 95, 100])
def test_a_jpeg_is_written_as_well_as_it_was(upload: Upload, quality: int) -> None:
    """100, of noise, is more than libjpeg can optimize in the room that Pillow gives it."""
    name = upload('a.jpg', noise(400, 300), quality=quality, subsampling=0)
    before = (upload_dir() / name).stat().st_size
    after = Path(process_image(name, ['optimize'])).stat().st_size
    assert 0.8 * before < after < 1.05 * before


# Names


def test_the_same_call_goes_to_the_same_file_and_no_other_does(upload: Upload) -> None:
    upload('a.png', noise())
    upload('b.png', noise())
    (upload_dir() / 'sub').mkdir()
    upload('sub/a.png', noise())
    calls = [
        (name, operations)
        for name in ('a.png', 'b.png', 'sub/a.png')
        for operations in (['optimize'], ['optimize', 'optimize'], ['resize:1x1'], ['resize:1x2'])
    ]
    paths = [process_image(*call) for call in calls]
    assert len(set(paths)) == len(calls)
    assert [process_image(*call) for call in calls] == paths
    absolute = str(upload_dir() / 'a.png')
    assert process_image(absolute, ['optimize']) == paths[0]


def test_a_long_name_is_cut(upload: Upload) -> None:
    assert size_of(process_image(upload('é' * 120 + '.png', noise()), ['resize:3x4'])) == (3, 4)


# Refusals


@pytest.mark.parametrize(
    'operation',
    ['', 'rotate:90', 'resize', 'resize:', 'resize:200', 'resize:0x10', 'resize:10x0',
     'resize:-1x5', 'resize:1.5x2', 'resize:10x10x10', ' resize:10x10', 'resize:10x10\n',
     'RESIZE:10x10', 'grayscale:1', 'resize:٣x٣', 'resize:123456x1'],
)  # fmt: skip
def test_an_unknown_operation_is_refused_when_it_is_enqueued_and_before_it_is_run(
    operation: str,
) -> None:
    expected = r"argument 'operations': Expected .*resize:200x200, "
    with pytest.raises(InvalidJobError, match=expected):
        enqueue_background_job(TASK, 'a.png', [operation])
    with pytest.raises(TypeError, match=expected):
        check_call(TASK, ('a.png', [operation]), {})


@pytest.mark.parametrize(
    ('operation', 'refusal'),
    [
        ('resize:10001x1', 'is too large: a side may have 10000 pixels'),
        ('thumbnail:1x10001', 'is too large: a side may have 10000 pixels'),
        ('resize:10000x10000', 'has 100000000 pixels: more than 89478485 are refused'),
    ],
)
def test_a_size_too_large_is_refused_before_the_file_is_looked_for(
    operation: str, refusal: str
) -> None:
    with pytest.raises(PermanentJobError, match=refusal):
        process_image('missing.png', [operation])


@pytest.mark.parametrize('operations', [[], ['optimize'] * 11, 'optimize', None, [1]])
def test_operations_are_a_list_of_some(operations: Any) -> None:
    with pytest.raises(InvalidJobError, match="argument 'operations'"):
        enqueue_background_job(TASK, 'a.png', operations)
    with pytest.raises(TypeError, match="argument 'operations'"):
        check_call(TASK, ('a.png', operations), {})


@pytest.mark.parametrize('name', ['../a.png', '/etc/passwd', '', 'missing.png', '.', 'folder'])
def test_a_path_that_is_no_upload_is_refused(upload: Upload, name: str) -> None:
    (upload_dir() / 'folder').mkdir()
    with pytest.raises(PermanentJobError):
        process_image(name, ['optimize'])


@pytest.mark.parametrize(
    'content',
    [
        b'',
        b'hello',
        b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        b'%PDF-1.4\n%\xe2\xe3\xcf\xd3\n',
        b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(id) run showpage\n',
        b'BM' + bytes(60),
        b'II*\0' + bytes(60),
    ],
    ids=lambda content: repr(content[:8]),
)
def test_what_is_no_image_of_ours_is_refused_whatever_it_is_called(
    upload: Upload, content: bytes
) -> None:
    with pytest.raises(PermanentJobError, match=r"^'a.png' is none of PNG, JPEG, WEBP, GIF"):
        process_image(upload('a.png', content), ['optimize'])
    assert outputs() == []


@pytest.mark.parametrize('suffix', ['png', 'jpg', 'webp', 'gif'])
def test_half_a_file_is_refused(upload: Upload, suffix: str) -> None:
    name = upload(f'a.{suffix}', noise(200, 200))
    whole = (upload_dir() / name).read_bytes()
    for part in (0.99, 0.5, 0.1):
        with pytest.raises(PermanentJobError, match=r'damaged or incomplete|none of'):
            process_image(upload(name, whole[: int(len(whole) * part)]), ['optimize'])
    assert outputs() == []


@pytest.mark.parametrize('suffix', ['gif', 'png', 'webp'])
def test_an_animation_is_refused(upload: Upload, suffix: str) -> None:
    frames = [Image.new('RGB', (8, 8), colour) for colour in (RED, GREEN)]
    name = upload(f'a.{suffix}', frames[0], save_all=True, append_images=frames[1:])
    with pytest.raises(PermanentJobError, match='is animated: pass a single picture'):
        process_image(name, ['optimize'])


def test_a_jpeg_that_holds_a_second_picture_is_a_jpeg(upload: Upload) -> None:
    name = upload('a.jpg', noise(), format='MPO', save_all=True, append_images=[noise()])
    path = process_image(name, ['optimize'])
    assert path.endswith('.jpg')
    with Image.open(path) as image:
        assert image.format == 'JPEG'


BOMBS = """
import resource
import sys
import warnings
from qdjobs.errors import PermanentJobError
from workers.image_tasks import process_image
resource.setrlimit(resource.RLIMIT_AS, (1_500_000_000,) * 2)
for action in ('error', 'ignore'):
    warnings.simplefilter(action)
    for name in sys.argv[1:]:
        try:
            process_image(name, ['thumbnail:9x9'])
        except PermanentJobError as error:
            print(error)
"""


def packed_zeros(size: int) -> bytes:
    """So many NUL bytes as zlib has them, without packing each."""
    whole, rest = divmod(size, 1 << 20)
    packer = zlib.compressobj(9, wbits=-15)
    part = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    end = packer.compress(bytes(rest)) + packer.flush()
    # The checksum after Adler: a sum of the bytes, and of these sums, both from 1.
    return b'\x78\xda' + part * whole + end + (size % 65521 << 16 | 1).to_bytes(4)


def test_a_bomb_is_not_unpacked(upload: Upload) -> None:
    """300 kB that would be 2.5 GB; and one of which Pillow would only warn."""
    assert zlib.decompress(packed_zeros(3_000_000)) == bytes(3_000_000)
    names = []
    for width, height in ((50_000, 50_000), (10_000, 9_000)):
        bomb = png_header(width, height, packed_zeros((width // 8 + 1) * height))
        assert len(bomb) < 1_000_000
        names.append(upload(f'{width}.png', bomb))
    run = subprocess.run(
        [sys.executable, '-c', BOMBS, *names], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.stderr == ''
    lines = run.stdout.splitlines()
    assert len(lines) == 4
    assert all('IMAGE_MAX_PIXELS' in line and '89478485' in line for line in lines[1::2])
    assert all('IMAGE_MAX_PIXELS' in line and '2500000000' in line for line in lines[::2])


# Bounds


def jpeg(scans: int, before: bytes = b'', after: bytes = b'') -> bytes:
    """A progressive JPEG whose last scan is there many times; `before` is in its metadata."""
    file = io.BytesIO()
    noise().convert('L').save(file, 'JPEG', progressive=True)
    whole = file.getvalue()
    last = whole.rindex(b'\xff\xda')
    metadata = b'\xff\xed' + (len(before) + 2).to_bytes(2) + before if before else b''
    return whole[:2] + metadata + whole[2:last] + whole[last:-2] * scans + whole[-2:] + after


def test_a_jpeg_of_very_many_scans_is_refused(upload: Upload, settings: pytest.MonkeyPatch) -> None:
    """0.4 MB of them keep a processor busy for half a minute."""
    name = upload('a.jpg', jpeg(500))
    refusal = r"^'a.jpg' has 505 scans: more than 100 are refused \(IMAGE_MAX_SCANS\)\.$"
    with pytest.raises(PermanentJobError, match=refusal):
        process_image(name, ['optimize'])
    settings.setenv('IMAGE_MAX_SCANS', '505')
    assert process_image(name, ['optimize'])


def test_what_only_looks_like_a_scan_is_none(upload: Upload) -> None:
    """Metadata and the film behind a photograph can hold any bytes."""
    many = b'\xff\xda' * 1000
    assert process_image(upload('a.jpg', jpeg(1, before=many, after=many)), ['optimize'])


@pytest.mark.parametrize(('suffix', 'needed'), [('webp', 16), ('jpg', 10), ('png', 4)])
def test_an_image_that_needs_too_much_memory_is_not_decoded(
    upload: Upload, settings: pytest.MonkeyPatch, suffix: str, needed: int
) -> None:
    name = upload(f'a.{suffix}', Image.new('RGB', (1000, 1000)))
    settings.setenv('IMAGE_MAX_MEMORY', str(needed - 1))
    refusal = f"'a.{suffix}', decoded, has {needed} megabytes: more .* .IMAGE_MAX_MEMORY"
    with pytest.raises(PermanentJobError, match=refusal):
        process_image(name, ['thumbnail:9x9'])
    settings.setenv('IMAGE_MAX_MEMORY', str(needed))
    assert process_image(name, ['thumbnail:9x9'])


@pytest.mark.slow
def test_the_memory_of_the_largest_webp_is_bounded(upload: Upload) -> None:
    name = upload('a.webp', Image.new('RGB', (9400, 9400)), quality=1, method=0)
    assert (upload_dir() / name).stat().st_size < 300_000
    with pytest.raises(PermanentJobError, match='1413 megabytes: more than 1000'):
        process_image(name, ['thumbnail:9x9'])


def test_the_pixels_of_an_image_are_bounded_by_a_setting(
    upload: Upload, settings: pytest.MonkeyPatch
) -> None:
    settings.setenv('IMAGE_MAX_PIXELS', '3071')
    for use in ('optimize', 'resize:64x48'):
        with pytest.raises(PermanentJobError, match='3072 pixels: more than 3071 are refused'):
            process_image(upload('a.png', noise()), [use])


def test_a_file_too_large_is_not_read(upload: Upload) -> None:
    name = upload('a.png', b'')
    with (upload_dir() / name).open('r+b') as file:
        file.truncate(100_000_001)  # a hole: it takes no room
    with pytest.raises(PermanentJobError, match='has more than 100000000 bytes'):
        process_image(name, ['optimize'])


def test_a_file_that_may_not_be_written_is_worth_another_attempt(upload: Upload) -> None:
    output_dir().write_text('a file where the folder should be')
    with pytest.raises(OSError, match=r'File exists|Not a directory'):
        process_image(upload('a.png', noise()), ['optimize'])


def saved(suffix: str) -> bytes:
    file = io.BytesIO()
    noise(24, 16).save(file, suffix)
    return file.getvalue()


WHOLE = [saved(suffix) for suffix in ('png', 'jpeg', 'webp', 'gif')]
damaged = st.one_of(
    st.binary(max_size=200),
    st.builds(
        lambda whole, holes, end: corrupted(whole, holes)[: int(len(whole) * end)],
        st.sampled_from(WHOLE),
        st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
        st.sampled_from([1, 1, 1, 0.9, 0.3]),
    ),
)


def corrupted(whole: bytes, holes: list[tuple[float, int]]) -> bytes:
    content = bytearray(whole)
    for place, value in holes:
        content[int(place * len(content))] = value
    return bytes(content)


@pytest.mark.slow
@given(damaged, st.sampled_from([['optimize'], ['resize:9x9'], ['grayscale', 'thumbnail:5x5']]))
@hypothesis_settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_a_damaged_file_gives_a_whole_image_or_a_sentence(
    upload: Upload, content: bytes, operations: list[str]
) -> None:
    with suppress(PermanentJobError):
        path = process_image(upload('a.png', content), operations)
        with Image.open(path) as image:
            image.load()


# As a job


@pytest.mark.usefixtures('shared_worker')
def test_a_worker_does_it_and_does_not_try_again_what_cannot_succeed(upload: Upload) -> None:
    good = enqueue_background_job(TASK, upload('a.png', noise()), ['resize:20x30', 'grayscale'])
    bad = enqueue_background_job(TASK, upload('b.png', b'no'), ['optimize'], job_max_retries=3)
    done, failed = wait_for_job(good.id, 60), wait_for_job(bad.id, 60)
    assert done['status'] == 'finished'
    assert size_of(done['result']) == (20, 30)
    assert (failed['status'], len(failed['attempts'])) == ('failed', 1)
    assert failed['error'] == "PermanentJobError: 'b.png' is none of PNG, JPEG, WEBP, GIF"


@pytest.mark.usefixtures('shared_worker')
def test_too_little_time_is_not_the_fault_of_the_image(upload: Upload) -> None:
    name = upload('a.png', noise())
    job = enqueue_background_job(TASK, name, ['resize:9000x9000'] * 10, job_timeout=1)
    ended = wait_for_job(job.id, 60)
    assert ended['status'] == 'failed'
    assert 'JobTimeoutException' in str(ended['error'])


def test_importing_the_tasks_imports_no_engine() -> None:
    code = (
        'import sys, workers.image_tasks, workers.report_tasks;'
        "sys.exit(' '.join({'PIL', 'reportlab'} & {name.split('.')[0] for name in sys.modules}))"
    )
    run = subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=False, capture_output=True)
    assert run.stderr.decode().strip() == ''
