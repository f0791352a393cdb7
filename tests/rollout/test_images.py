"""Pictures are opened, encoded and stored once per group, and nobody can tell from the tokens and tensors.

The passes are counted in the Hugging Face image processor itself, through the whole way that verl's worker takes: the
loop, the reward's tensors and the final tensors.
"""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from steer_verl.config import TutorConfig
from steer_verl.errors import DataError
from steer_verl.families import VISION
from steer_verl.images import seen_image
from steer_verl.tutor.client import OpenAITutor
from steer_verl.types import Seed, Status, Trajectory, UserTurn
from tests.models.fault_server import FaultServer
from tests.odd_images import BIG, decoded, write_odd_images
from tests.rollout.test_agent_loop import Engine, make_loop, row
from tests.scripted import GOOD, ScriptedTutor, ruling
from tests.tutor.conftest import config_for

pytest.importorskip("verl")

N = 5


@pytest.fixture(params=sorted(VISION))
def processor(request: pytest.FixtureRequest) -> Any:
    """A processor of this test's own, of each family: sharing leaves its mark on it."""
    from steer_verl.mini.model import make_processor

    return make_processor(request.param)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[tuple[int, int]]]:
    """How often the image processor has worked on a picture, by the picture's size."""
    from transformers import Qwen2VLImageProcessor

    counted: Counter[tuple[int, int]] = Counter()
    plain = Qwen2VLImageProcessor.preprocess

    def counting(self: Any, images: Any, *args: Any, **kwargs: Any) -> Any:
        counted.update(image.size for image in (images if isinstance(images, list) else [images]))
        return plain(self, images, *args, **kwargs)

    monkeypatch.setattr(Qwen2VLImageProcessor, "preprocess", counting)
    yield counted


def picture(folder: Path, name: str, size: tuple[int, int]) -> str:
    """A file of noise."""
    from PIL import Image

    path = folder / name
    Image.frombytes("RGB", size, random.Random(name).randbytes(size[0] * size[1] * 3)).save(path)
    return str(path)


def seed_with(paths: dict[int, tuple[str, ...]], turns: int = 4) -> Seed:
    """Turn (from 0) -> its pictures."""
    asked = (
        UserTurn(text="<image>" * len(paths.get(t, ())) + f"question {t}", images=paths.get(t, ()))
        for t in range(turns)
    )
    return Seed(id="pictures", turns=tuple(asked))


def final_tensors(loop: Any, output: Any) -> list[dict[str, torch.Tensor]]:
    """What verl's worker computes of an output, once for the reward and once for the trainer."""
    from verl.experimental.agent_loop.agent_loop import AgentLoopWorker

    worker = AgentLoopWorker.__new__(AgentLoopWorker)
    worker.processor, worker.tokenizer, worker.mm_processor_kwargs = loop.processor, loop.tokenizer, {}
    ids = torch.tensor(output.prompt_ids + output.response_ids)
    return [AgentLoopWorker._compute_multi_modal_inputs(worker, output, ids) for _ in range(2)]


async def play(processor: Any, seed: Seed, *, share: bool, n: int = N, uid: str = "u") -> list[tuple[Any, Any, Any]]:
    """Loop, output and final tensors of each rollout of a group, played at once, each with the same answers."""

    async def one(member: int) -> tuple[Any, Any, Any]:
        tutor = ScriptedTutor(lambda t, exchange: ruling(GOOD, f"then number {t}"))
        engine = Engine(processor.tokenizer, random.Random(member))
        loop = make_loop(processor, tutor, engine=engine, response=2000, share_images=share)
        loop.rollout_config.prompt_length = 1000
        output = await loop.run({}, **row(seed, uid=uid))
        return loop, output, final_tensors(loop, output)

    return list(await asyncio.gather(*(one(member) for member in range(n))))


async def test_one_pass_per_picture_over_rollouts_turns_and_tensors(
    processor: Any, passes: Counter[tuple[int, int]], tmp_path: Path
) -> None:
    first, second = picture(tmp_path, "a.png", (84, 112)), picture(tmp_path, "b.png", (112, 84))
    seed = seed_with({0: (first,), 2: (second,)})
    await play(processor, seed, share=True)
    assert set(passes.values()) == {1} and len(passes) == 2
    passes.clear()
    await play(processor, seed, share=False)
    assert min(passes.values()) >= 3 * N, "verl's own: rendering, reward and final tensors, for each rollout"


@pytest.mark.parametrize("case", range(8))
async def test_tokens_and_tensors_are_those_of_the_plain_path(case: int, processor: Any, tmp_path: Path) -> None:
    rng = random.Random(case)
    sizes = [(84, 84), (112, 56), (90, 133), (200, 60)]
    files = [picture(tmp_path, f"{i}.png", size) for i, size in enumerate(sizes)]
    seed = seed_with({t: tuple(rng.choices(files, k=rng.choice([0, 1, 1, 2]))) for t in range(4)})
    plain = await play(processor, seed, share=False, n=2)
    shared = await play(processor, seed, share=True, n=2)
    for (_, one, tensors), (_, other, same) in zip(plain, shared, strict=True):
        assert (one.prompt_ids, one.response_ids) == (other.prompt_ids, other.response_ids)
        assert one.response_mask == other.response_mask and one.response_logprobs == other.response_logprobs
        for left, right in zip(tensors, same, strict=True):
            assert left.keys() == right.keys()
            assert all(torch.equal(left[name], right[name]) and left[name].dtype == right[name].dtype for name in left)


async def test_pictures_of_the_next_turn_are_ready_when_the_student_has_answered(
    processor: Any, passes: Counter[tuple[int, int]], tmp_path: Path
) -> None:
    later = picture(tmp_path, "later.png", (112, 84))
    ready: list[int] = []

    class Slow(Engine):
        async def generate(self, *args: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(0.5)
            ready.append(sum(passes.values()))
            return await super().generate(*args, **kwargs)

    tutor = ScriptedTutor(lambda t, exchange: ruling(GOOD))
    loop = make_loop(processor, tutor, engine=Slow(processor.tokenizer, random.Random(0)), share_images=True)
    await loop.run({}, **row(seed_with({1: (later,)}, turns=2)))
    assert ready == [1, 1]


async def test_everything_goes_with_the_last_rollout_of_a_group(processor: Any, tmp_path: Path) -> None:
    from rollout import images

    seed = seed_with({0: (picture(tmp_path, "a.png", (84, 84)),)})
    gc.disable()  # what only the collector could find would stay for long
    try:
        played = await play(processor, seed, share=True, n=2)
        await asyncio.sleep(0)  # asyncio's own hold on the results ends with its turn
        image = weakref.ref(played[0][1].multi_modal_data["images"][0])
        features = weakref.ref(played[0][2][0]["pixel_values"])
        assert image() is played[1][1].multi_modal_data["images"][0], "siblings hold the same picture"
        assert features() is played[1][2][1]["pixel_values"]
        del played[0]
        assert image() is not None and "u" in images._GROUPS
        del played[0]
        for _ in range(200):  # a thread may still be on its way out of the call that opened the image
            if image() is None:
                break
            await asyncio.sleep(0.01)
        assert image() is None and features() is None
        assert "u" not in images._GROUPS and not processor.image_processor._self_shared
    finally:
        gc.enable()


async def test_a_group_hands_the_engine_one_reference_for_the_same_pictures(processor: Any, tmp_path: Path) -> None:
    import ray

    seed = seed_with({0: (picture(tmp_path, "a.png", (84, 84)),)})
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        played = await play(processor, seed, share=True, n=3)
        given = [call[3] for loop, _, _ in played for call in loop.server_manager.calls]
        assert len(given) == 12 and len(set(given)) == 1 and isinstance(given[0], ray.ObjectRef)
        picture_there = ray.get(given[0])
        assert picture_there == played[0][1].multi_modal_data["images"]
    finally:
        ray.shutdown()


async def test_a_missing_later_picture_loses_the_dialogue_and_is_named(processor: Any, tmp_path: Path) -> None:
    seed = seed_with({1: (str(tmp_path / "gone.png"),)})
    ((_, output, _),) = await play(processor, seed, share=True, n=1)
    record = Trajectory.model_validate_json(output.extra_fields["trajectory"])
    assert record.status is Status.LOST and "gone.png" in record.detail and len(record.turns) == 1


async def test_an_image_that_could_not_be_opened_is_tried_again_by_who_comes_next(
    processor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import rollout.images as group_images

    path, tries, plain = picture(tmp_path, "a.png", (84, 84)), 0, group_images.seen_image

    def seen(name: str) -> Any:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise DataError("too many files are open")
        return plain(name)

    monkeypatch.setattr(group_images, "seen_image", seen)
    loop, store = make_loop(processor, ScriptedTutor(lambda t, exchange: ruling(GOOD, ""))), group_images.SharedImages()
    both = await asyncio.gather(store.open(loop, path), store.open(loop, path), return_exceptions=True)
    assert [type(error) for error in both] == [DataError, DataError] and tries == 1
    assert await store.open(loop, path) is await store.open(loop, path) and tries == 2


async def test_an_image_processor_of_another_kind_is_left_alone(processor: Any) -> None:
    from rollout.processors import EncodeOnce, encoder_of

    found = encoder_of(processor)
    assert found is encoder_of(processor) and isinstance(found, EncodeOnce)
    assert found.patch_size == 14 and type(found.__wrapped__).__name__ == found.__class__.__name__
    processor.image_processor = found.__wrapped__
    processor.image_processor.model_input_names = ["pixel_values", "num_crops"]
    assert encoder_of(processor) is None and processor.image_processor is found.__wrapped__


async def test_the_quick_check_still_finds_image_tokens_that_were_cut_off(processor: Any, tmp_path: Path) -> None:
    from PIL import Image

    from rollout.processors import encoder_of

    image = Image.open(picture(tmp_path, "a.png", (84, 84)))
    text, longest = processor.image_token, {"truncation": True, "max_length": 4, "return_tensors": "pt"}
    with pytest.raises(ValueError, match="token count") as plain:
        processor(text=[text], images=[image], **longest)
    encoder_of(processor)
    with pytest.raises(ValueError, match="token count") as quick:
        processor(text=[text], images=[image], **longest)
    assert str(quick.value) == str(plain.value)
    assert processor(text=[text], images=[image], return_tensors="pt")["input_ids"].shape == (1, 9)


@pytest.mark.parametrize("options", [{}, {"min_pixels": 784, "max_pixels": 50176}, {"max_pixels": 50176}])
async def test_the_layout_is_the_processors_own_for_any_size(processor: Any, options: dict[str, int]) -> None:
    from PIL import Image
    from verl.utils.tokenizer import build_multimodal_processor_inputs

    from rollout.processors import layout_of

    rng = random.Random(0)
    rendering = layout_of(processor, options)
    assert (rendering is processor) == (len(options) == 1), "one limit alone is read in two ways: left to the processor"
    for _ in range(40):
        images = [Image.new("RGB", (rng.randint(20, 600), rng.randint(20, 600))) for _ in range(rng.randint(1, 3))]
        text = ["See " + ", ".join([processor.image_token] * len(images))]
        found, whole = (
            build_multimodal_processor_inputs(p, text=list(text), images=images, mm_processor_kwargs=options)
            for p in (rendering, processor)
        )
        assert torch.equal(found["input_ids"], whole["input_ids"])
        assert rendering is processor or "pixel_values" not in found


@pytest.mark.parametrize("options", [{}, {"min_pixels": 784, "max_pixels": 50176}])
async def test_a_text_without_pictures_has_the_processors_own_tokens(processor: Any, options: dict[str, int]) -> None:
    from verl.utils.tokenizer import build_multimodal_processor_inputs, normalize_token_ids

    from rollout.processors import layout_of

    rng = random.Random(0)
    rendering = layout_of(processor, options)
    letters = ["red circle ", "né ", "图 ", "\n", "  ", "<|im_end|>", "<|im_start|>user", "<thinking>", "🙂", "{}", "0"]
    for length in range(40):
        text = "".join(rng.choices(letters, k=length + 1))
        found, whole = (
            normalize_token_ids(
                build_multimodal_processor_inputs(p, text=[text], mm_processor_kwargs=options)["input_ids"]
            )
            for p in (rendering, processor)
        )
        assert found == whole


async def test_the_student_is_asked_before_the_picture_is_encoded(
    processor: Any, passes: Counter[tuple[int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rollout import images

    asked = threading.Event()
    plain = images.encode
    monkeypatch.setattr(images, "encode", lambda *args: asked.wait(20) and plain(*args))

    class Noting(Engine):
        async def generate(self, *args: Any, **kwargs: Any) -> Any:
            asked.set()
            return await super().generate(*args, **kwargs)

    tutor = ScriptedTutor(lambda t, exchange: ruling(GOOD))
    engine = Noting(processor.tokenizer, random.Random(0))
    loop = make_loop(processor, tutor, engine=engine, response=2000, share_images=True)
    loop.rollout_config.prompt_length = 1000
    await loop.run({}, **row(seed_with({0: (picture(tmp_path, "a.png", (84, 112)),)}, turns=2)))
    assert asked.is_set() and sum(passes.values()) == 1, "encoded when the loop returns: verl's tensors come next"


def sent_images(body: dict[str, Any]) -> list[Any]:
    """What a server decodes of a request's images."""
    contents = [message["content"] for message in body["messages"] if isinstance(message["content"], list)]
    parts = [part for content in contents for part in content if part["type"] == "image_url"]
    return [decoded(part["image_url"]["url"]) for part in parts]


@pytest.mark.parametrize("share", [True, False])
async def test_student_and_tutor_see_the_same_pixels(processor: Any, tmp_path: Path, share: bool) -> None:
    """Of every odd file: what the engine gets and verl's tensors are made of, and what the tutor's server decodes."""
    made = write_odd_images(tmp_path)
    for name, path in made.items():
        engine = Engine(processor.tokenizer, random.Random(0))
        async with FaultServer() as server:
            tutor = OpenAITutor(TutorConfig(endpoint=config_for(server)))
            loop = make_loop(processor, tutor, engine=engine, response=2000, share_images=share)  # type: ignore[arg-type]
            loop.rollout_config.prompt_length = 1000
            output = await loop.run({}, **row(seed_with({0: (path,)}, turns=2)))
            await tutor.close()
        seen = seen_image(path)
        student, *more = output.multi_modal_data["images"]
        assert not more and all(call[3] == [student] for call in engine.calls), name
        expected = seen.resize(student.size) if max(seen.size) > max(BIG) // 3 else seen  # sides of 28 n stay
        assert (student.mode, student.size, student.tobytes()) == ("RGB", expected.size, expected.tobytes()), name
        sent = [image for body in server.bodies for image in sent_images(body)]
        assert len(sent) == 2 and all((i.size, i.tobytes()) == (seen.size, seen.tobytes()) for i in sent), name


async def test_the_event_loop_is_free_while_an_image_is_opened(
    processor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rollout import images

    threads: list[threading.Thread] = []
    monkeypatch.setattr(
        images, "seen_image", lambda path: (threads.append(threading.current_thread()), seen_image(path))[1]
    )
    await play(processor, seed_with({0: (picture(tmp_path, "a.png", (84, 84)),)}, turns=2), share=True, n=2)
    assert len(threads) == 1 and threads[0] is not threading.main_thread()


async def test_the_longest_opening_is_measured_on_what_is_seen(processor: Any, tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    from steer_verl.preflight.openings import opening_tokens

    made = write_odd_images(tmp_path)
    for name in ("exif_6", "big_photo", "photo"):
        prompt = [{"role": "user", "content": "<image>What is this?"}]
        tokens = opening_tokens(processor, OmegaConf.create({}), {"prompt": prompt, "images": [made[name]]})
        loop = make_loop(processor, ScriptedTutor(lambda t, exchange: ruling(GOOD)), response=2000)
        loop.rollout_config.prompt_length = 1000
        seed = Seed(id="a", turns=(UserTurn(text="<image>What is this?", images=(made[name],)), UserTurn(text="So?")))
        assert len((await loop.run({}, **row(seed))).prompt_ids) == tokens, name
