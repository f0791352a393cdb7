"""Image files that loaders disagree about, for the tests that everybody is shown the same."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image, ImageDraw

SIZE = (84, 56)
"""Of the file. Both sides are multiples of 28, which Qwen2.5-VL's resizing leaves alone."""
BIG = (3136, 112)
"""Is shrunk."""


def scene(size: tuple[int, int] = SIZE) -> Image.Image:
    """RGB; no two corners are alike, so that it tells how it was turned."""
    image = Image.radial_gradient("L").resize(size).convert("RGB")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, size[0] // 3, size[1] // 3), fill="red")
    draw.rectangle((size[0] * 2 // 3, 0, size[0], size[1] // 3), fill="blue")
    return image


def write_odd_images(folder: Path) -> dict[str, str]:
    """Name of the kind -> path."""
    made: dict[str, str] = {}

    def add(name: str, image: Image.Image, **options: object) -> None:
        made[name.partition(".")[0]] = str(folder / name)
        image.save(folder / name, **options)  # type: ignore[arg-type]

    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        add(f"exif_{orientation}.jpg", scene(), exif=exif)
        add(f"exif_png_{orientation}.png", scene(), exif=exif)
    clear = Image.linear_gradient("L").resize(SIZE)
    add("plain.png", scene())
    add("photo.jpg", scene())
    add("progressive.jpg", scene(), progressive=True, subsampling=0)
    add("grey.png", scene().convert("L"))
    add("grey_photo.jpg", scene().convert("L"))
    add("cmyk.jpg", scene().convert("CMYK"))
    add("rgba.png", Image.merge("RGBA", (*scene().split(), clear)))
    add("la.png", Image.merge("LA", (scene().convert("L"), clear)))
    add("palette.png", scene().quantize(8))
    add("palette_clear.png", scene().quantize(8), transparency=0)
    add("grey_clear.png", scene().convert("L"), transparency=scene().convert("L").getpixel((40, 40)))
    add("deep.png", scene().convert("L").convert("I").point(lambda value: value * 257).convert("I;16"))
    add("webp.webp", scene())
    add("webp_clear.webp", Image.merge("RGBA", (*scene().split(), clear)), lossless=True)
    add("big.png", scene(BIG))
    add("big_photo.jpg", scene(BIG))
    add("two_images.jpg", scene(), format="MPO", save_all=True, append_images=[Image.new("RGB", SIZE, "green")])
    return made


def decoded(uri: str) -> Image.Image:
    """What a server makes of a ``data:`` URI: its own loader knows nothing of ours."""
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2], validate=True))) as image:
        return image.convert("RGB")
