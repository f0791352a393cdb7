"""What of the GPU benchmark needs no GPU: student, rows, settings, parsing, page, and the word that there is none."""

from __future__ import annotations

import json
import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_class
from omegaconf import OmegaConf
from PIL import Image

from benchmarks.gpu import grpo, micro, page, student
from benchmarks.gpu.__main__ import main
from steer_verl.data.rows.check import check_file
from steer_verl.errors import ConfigError, DataError
from steer_verl.mini.model import SPECIAL_TOKENS, corpus, make_tokenizer
from steer_verl.report.training import Step, parse_step

TINY_TEXT = {
    **student.TEXT,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]},
}
TINY_VISION = {
    **student.VISION,
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "out_hidden_size": 64,
    "fullatt_block_indexes": [1],
}
VOCABULARY = 1200
MACHINE = "a card; 2026-01-02; torch 0"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student's folder in small."""
    folder = tmp_path_factory.mktemp("student")
    return student.build(folder, text=TINY_TEXT, vision=TINY_VISION, vocabulary=VOCABULARY)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return grpo.build_rows(tmp_path_factory.mktemp("rows"), 16)


def changes(tmp_path: Path, mode: str = "lora", *, flash_attn: bool = True, **given: Any) -> list[str]:
    """The overrides of a training below ``tmp_path``."""
    places = {name: tmp_path / name for name in ("student", "rows")} | {"run": tmp_path / mode}
    return grpo.overrides(mode, flash_attn=flash_attn, **{**places, "steps": 3, "prompts": 16, **given})


def test_without_a_gpu_one_clear_line_and_nothing_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--out", str(tmp_path / "out"), "--page", str(tmp_path / "page")]) == 0
    told = capsys.readouterr().out
    assert told.count("\n") == 1 and "skipped" in told and "no CUDA device" in told
    assert list(tmp_path.iterdir()) == []


def test_the_architecture_is_the_published_one() -> None:
    """3,754,622,976 weights is what the Hub says of Qwen2.5-VL-3B-Instruct."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    config = student.make_config(make_tokenizer())
    config.text_config.vocab_size = student.VOCABULARY
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(config)
    assert sum(weight.numel() for weight in model.parameters()) == 3_754_622_976
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_the_tokenizer_is_filled_up_with_ids_that_no_text_reaches() -> None:
    words, wide = make_tokenizer(), student.make_processor(VOCABULARY).tokenizer
    assert len(wide) == VOCABULARY == 1 + max(wide.get_vocab().values())
    fillers = {wide.convert_tokens_to_ids(student.FILLER.format(number=n)) for n in range(VOCABULARY - len(words))}
    assert len(fillers) == VOCABULARY - len(words)
    assert wide.decode([min(fillers)]) == " ~0"
    for text in [*corpus(20), " ~0 ~17", "~3", "Ünïcödé 雪", *SPECIAL_TOKENS]:
        ids = wide.encode(text)
        assert not fillers & set(ids)
        assert wide.convert_ids_to_tokens(ids) == words.convert_ids_to_tokens(words.encode(text))
    assert (wide.eos_token, wide.pad_token) == (words.eos_token, words.pad_token)
    assert wide.all_special_tokens == words.all_special_tokens


def test_a_vocabulary_smaller_than_the_words_is_refused() -> None:
    with pytest.raises(ConfigError, match="--vocabulary 9"):
        student.make_processor(9)


def test_the_folder_loads_as_any_qwen2_5_vl(tiny: Path, rows: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model, reader = AutoModelForImageTextToText.from_pretrained(tiny), AutoProcessor.from_pretrained(tiny)
    assert len(reader.tokenizer) == model.config.text_config.vocab_size == VOCABULARY
    assert model.dtype == torch.bfloat16
    assert model.lm_head.weight is model.get_input_embeddings().weight
    with Image.open(next(rows.parent.glob("pictures/*.png"))) as picture:
        chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}]
        text = reader.apply_chat_template(chat, add_generation_prompt=True)
        inputs = reader(text=[text], images=[picture], return_tensors="pt")
    assert (inputs["input_ids"] == model.config.image_token_id).sum() == 18 * 18
    with torch.no_grad():
        logits = model(**inputs).logits
    assert logits.shape[-1] == VOCABULARY and logits.isfinite().all() and logits.float().std() > 0.01


def test_weights_are_drawn_as_the_family_draws_them_and_kept(tiny: Path) -> None:
    from safetensors.torch import load_file

    weights = load_file(tiny / "model.safetensors")
    for name, weight in weights.items():
        if name.endswith("bias"):
            assert not weight.any()
        elif weight.ndim == 1:
            assert (weight == 1).all()
        else:
            assert abs(weight.float().std().item() - 0.02) < 0.002
    before = (tiny / "model.safetensors").stat().st_mtime_ns
    student.build(tiny, text=TINY_TEXT, vision=TINY_VISION, vocabulary=VOCABULARY)
    assert (tiny / "model.safetensors").stat().st_mtime_ns == before


def test_nothing_of_another_student_stays(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "built.json").write_text("{}")
    (tmp_path / "s" / "model.safetensors.index.json").touch()
    built = student.build(tmp_path / "s", text=TINY_TEXT, vision=TINY_VISION, vocabulary=VOCABULARY)
    assert (built / "model.safetensors").exists() and not (built / "model.safetensors.index.json").exists()


def test_a_path_of_any_name_is_a_value_for_hydra(tmp_path: Path) -> None:
    place = tmp_path / "it's a run (1), [2]"
    parsed = OverridesParser.create().parse_overrides(changes(place, "full-verl"))
    values = {one.key_or_group: one.value() for one in parsed}
    assert values["trainer.default_local_dir"] == str(place / "full-verl") and values["data.train_batch_size"] == 16


def test_rows_pass_the_projects_own_check(rows: Path) -> None:
    checked = list(check_file(rows))
    assert len(checked) == 16
    for row in checked:
        assert not row.problems
        assert row.seed is not None and len(row.seed.turns) == grpo.TURNS
        with Image.open(row.seed.turns[0].images[0]) as picture:
            assert picture.size == (grpo.SIDE, grpo.SIDE)


@pytest.mark.parametrize("mode", ["lora", "full"])
@pytest.mark.parametrize("flash_attn", [True, False])
def test_settings_pass_preflight(
    mode: str, flash_attn: bool, tiny: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from steer_verl.preflight import check
    from steer_verl.preflight.compose import compose

    for name in ("STEER_TUTOR_BASE_URL", "STEER_TUTOR_MODEL"):
        monkeypatch.delenv(name, raising=False)
    words = changes(tmp_path, mode, student=tiny, rows=rows, flash_attn=flash_attn)
    config = compose(grpo.RECIPE, "grpo", words)
    assert (config.trainer.total_training_steps, config.data.train_batch_size) == (3, 16)
    assert check(config) == []
    worker, longest = config.actor_rollout_ref, grpo.TURNS * 65
    assert worker.rollout.custom.steer.max_turns == grpo.TURNS
    assert worker.rollout.response_length > longest + (grpo.TURNS - 1) * 40, "room for the tutor's questions"
    assert (worker.model.lora_rank > 0) is (mode == "lora")
    assert worker.actor.fsdp_config.optimizer_offload is (mode == "full")
    assert worker.model.use_remove_padding is flash_attn
    assert (worker.actor.strategy, worker.rollout.name, worker.rollout.n) == ("fsdp2", "vllm", 5)


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_verls_own_loop_plays_the_same_steps(mode: str, tiny: Path, rows: Path, tmp_path: Path) -> None:
    from steer_verl.preflight.compose import compose
    from steer_verl.preflight.verl_side import verl_accepts

    own, other = (changes(tmp_path, name, student=tiny, rows=rows) for name in (mode, f"{mode}-verl"))
    ours, verls = (compose(grpo.RECIPE, "grpo", words) for words in (own, other))
    assert not list(verl_accepts(verls))
    assert verls.algorithm.adv_estimator == "grpo" and verls.reward.reward_manager.name == "naive"
    (named,) = OmegaConf.load(verls.actor_rollout_ref.rollout.agent.agent_loop_config_path)
    assert get_class(named._target_).__mro__[1].__name__ == "ToolAgentLoop"
    (row,) = {row["agent_name"] for row in pq.read_table(rows).to_pylist()}
    assert row == named.name, "a row's own name beats verl's default"
    for part in (
        "trainer.n_gpus_per_node",
        "data.train_batch_size",
        "actor_rollout_ref.model",
        "actor_rollout_ref.actor",
    ):
        assert OmegaConf.select(verls, part) == OmegaConf.select(ours, part)
    turns = verls.actor_rollout_ref.rollout.multi_turn.max_assistant_turns
    assert turns == ours.actor_rollout_ref.rollout.custom.steer.max_turns


async def test_every_answer_is_a_call_of_the_tutor(tiny: Path) -> None:
    from transformers import AutoTokenizer

    from benchmarks.gpu import tool, verls_loop

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    text, (call,) = await verls_loop.EveryAnswer(tokenizer).extract_tool_calls(tokenizer.encode("the red circle"))
    assert call.name == verls_loop.TOOL and json.loads(call.arguments) == {"answer": text}
    assert (await tool.ask_tutor(text)).endswith("?")


def test_the_child_finds_project_and_plugin_on_a_path_only_machine() -> None:
    found = grpo.environment({"PYTHONPATH": "/site", "STEER_CPU": "1", "HOME": "/root"})
    assert found["PYTHONPATH"].split(os.pathsep) == [str(grpo.CODE), "/site"]
    assert found["VERL_USE_EXTERNAL_MODULES"] == "steer_verl.plugin"
    assert "STEER_CPU" not in found and found["HOME"] == "/root"


def console(step: int, seconds: float = 10.0) -> str:
    """A line of verl's as Ray passes it on, shortened from a real one."""
    shares = {"gen": 0.5, "old_log_prob": 0.1, "ref": 0.1, "adv": 0.01, "update_actor": 0.2, "update_weights": 0.04}
    times = " - ".join(f"timing_s/{name}:{seconds * share}" for name, share in shares.items())
    return (
        f"\x1b[36m(TaskRunnerV1 pid=4723)\x1b[0m step:{step} - steer/total_dialogues:80.0 - steer/total_turns:640.0 - "
        f"steer/answer_tokens:64.0 - actor/kl_loss:1e-05 - actor/perf/max_memory_allocated_gb:{60 + step} - "
        f"num_turns/mean:np.float64(16.0) - critic/vf:nan - {times} - timing_s/step:{seconds} - "
        f"perf/total_num_tokens:80000 - perf/throughput:{80000 / seconds} - training/note:none\x1b[0m"
    )


def read(*lines: str) -> list[Step]:
    return [step for line in lines if (step := parse_step(line)) is not None]


def test_phases_add_up_and_what_was_not_logged_is_absent() -> None:
    steps = read(console(2, 10.0), console(3, 20.0))
    parts = page.phases(steps)
    assert sum(parts.values()) == pytest.approx(15.0)
    assert parts["gen"] == pytest.approx(7.5) and parts[page.OTHER] == pytest.approx(0.05 * 15)
    figures = page.measures(steps)
    assert figures["actor, allocated (GiB)"] == 63
    assert figures["student's own tokens/s while generating"] == pytest.approx((640 * 64 / 5 + 640 * 64 / 10) / 2)
    assert not any("engine idle" in title or "card" in title for title in figures)
    assert page.phases([]) == page.measures([]) == {}


def measured(tmp_path: Path) -> Path:
    """JSON files of a run that never was."""
    for mode, seconds in (("lora", 11.0), ("full", 33.0)):
        lines = [console(number, 90.0 if number == 1 else seconds) for number in (1, 2, 3)]
        padded = ["+model.override_config.attn_implementation=sdpa"]
        figures = {"overrides": padded, "steps": read(*lines), "ended": "as planned"}
        page.save(tmp_path, mode, MACHINE, figures)
    row = {"picture": "9x9", "device": "cpu", "pixel_values (MB)": 5.0, "one pass (ms)": 7.13}
    page.save(tmp_path, "processor", MACHINE, {"rows": [row]})
    times = [{"estimator": name, "device": "cuda", "ms": ms} for name, ms in (("verl grpo", 40.0), ("tcsr", 8.25))]
    page.save(tmp_path, "estimator", MACHINE, {"dialogues": 320, "tokens": 10240, "threads": 1, "rows": times})
    return tmp_path


def test_the_page_is_rendered_later_from_the_files_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, target = measured(tmp_path / "out"), tmp_path / "page"
    assert main(["--render", "--out", str(out), "--page", str(target)]) == 0
    text = (target / "gpu.md").read_text()
    assert text in capsys.readouterr().out
    for figure in (
        "| steps counted | 2 | 2 |",
        "| step (s) | 11 | 33 |",
        "| gen (s) | 5.5 | 16.5 |",
        "| tcsr | cuda | 8.25 |",
        "a card",
        "2026-01-02",
        "| 9x9 | cpu | 5 | 7.13 |",
        "sdpa, padded",
    ):
        assert figure in text
    with Image.open(target / "gpu.png") as picture:
        assert picture.width > 800


def test_a_cut_run_has_a_page_too(tmp_path: Path) -> None:
    figures = {"overrides": [], "steps": read(console(1)), "ended": "was cut"}
    page.save(tmp_path, "full", MACHINE, figures)
    text = page.write(page.load(tmp_path), tmp_path)
    assert "ended early: was cut" in text and not (tmp_path / "gpu.png").exists()
    with pytest.raises(DataError, match="no result"):
        page.load(tmp_path / "nothing")


def stand_in(folder: Path, lines: list[str], status: int) -> Path:
    """An interpreter that notes what it was asked to run, and where, and prints ``lines``."""
    script, printed = folder / "python", folder / "printed"
    printed.write_text("".join(f"{line}\n" for line in lines))
    noted = '"$*" "$PYTHONPATH" "$VERL_USE_EXTERNAL_MODULES" "$PWD"'
    script.write_text(f"#!/usr/bin/env bash\nprintf '%s\\n' {noted} > {folder}/noted\ncat {printed}\nexit {status}\n")
    script.chmod(0o755)
    return script


@pytest.mark.parametrize("status", [0, 3])
def test_a_training_keeps_every_step_as_it_comes(status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter = stand_in(tmp_path, [console(1), "noise", console(2)], status)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    monkeypatch.setitem(sys.modules, "pynvml", None)
    kept: list[int] = []
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "cache").write_text("answers of an earlier run")
    keep = lambda found: kept.append(len(json.loads(json.dumps(found))["steps"]))  # noqa: E731
    figures = grpo.measure(tmp_path / "lora", changes(tmp_path), 60, keep)
    assert kept == [0, 1, 2, 2]
    assert figures["ended"] == ("as planned" if status == 0 else "ended with exit status 3; see lora.log")
    assert not (tmp_path / "lora" / "cache").exists(), "a cache would answer for the student"
    assert "noise" in (tmp_path / "lora.log").read_text()
    asked, path, module, folder = (tmp_path / "noted").read_text().splitlines()
    assert asked.startswith(f"-m verl.trainer.main_ppo --config-path {grpo.RECIPE} --config-name grpo ")
    assert asked.split()[-len(figures["overrides"]) :] == figures["overrides"]
    assert (path.split(os.pathsep)[0], module, folder) == (str(grpo.CODE), "steer_verl.plugin", str(tmp_path / "lora"))


class RefusingNvml:
    """NVML of a card that is there and tells nothing, as in some sandboxes."""

    NVMLError = type("NVMLError", (Exception,), {})

    @staticmethod
    def nvmlInit() -> None: ...

    @staticmethod
    def nvmlDeviceGetHandleByIndex(number: int) -> int:
        return number

    @classmethod
    def nvmlDeviceGetUtilizationRates(cls, card: int) -> None:
        raise cls.NVMLError("Not Supported")


def test_a_card_that_does_not_tell_ends_no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", RefusingNvml)
    card = grpo.Card()
    card.look()
    assert card.take() == {}


def test_a_part_that_fails_costs_no_other_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, list[str]]] = []

    def measure(part: str, args: Any) -> bool:
        asked.append((part, args.override))
        if part == "processor":
            raise RuntimeError("no kernel image")
        page.save(args.out, part, MACHINE, {"dialogues": 1, "tokens": 1, "threads": 1, "rows": [{"estimator": "tcsr"}]})
        return True

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("benchmarks.gpu.__main__.measure", measure)
    folders = ["--out", str(tmp_path / "out"), "--page", str(tmp_path / "page")]
    assert main([*folders, "--only", "processor", "estimator", "--override", "a.b=1", "c=2"]) == 1
    assert asked == [("processor", ["a.b=1", "c=2"]), ("estimator", ["a.b=1", "c=2"])]
    assert "no kernel image" in capsys.readouterr().err and "tcsr" in (tmp_path / "page" / "gpu.md").read_text()


def test_runs_take_turns() -> None:
    seen: list[str] = []
    runs = {name: partial(seen.append, name) for name in "ab"}
    found = micro.interleaved(runs, repeats=3, warm_up=1)
    assert "".join(seen) == "ab" + "ababab"
    assert list(found) == ["a", "b"] and all(ms >= 0 for ms in found.values())


def test_ways_to_encode_a_group_cost_what_they_are_named_after(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import Qwen2VLImageProcessor

    passes: list[int] = []
    plain = Qwen2VLImageProcessor.preprocess
    counting = lambda self, *args, **kwargs: passes.append(1) or plain(self, *args, **kwargs)  # noqa: E731
    monkeypatch.setattr(Qwen2VLImageProcessor, "preprocess", counting)
    processor, picture, options = Qwen2VLImageProcessor(), Image.new("RGB", (56, 56)), {"return_tensors": "pt"}
    micro.passes(processor, picture, shared=False, **options)
    assert len(passes) == 3 * micro.ROLLOUTS == 15
    micro.passes(processor, picture, shared=True, **options)
    assert len(passes) == 16


def test_processor_is_timed_at_the_familys_limits() -> None:
    found = micro.processor(["cpu"], sizes=[(512, 512)], repeats=1)
    (row,) = found["rows"]
    assert row["image tokens"] == 18 * 18
    assert row["pixel_values (MB)"] == 36 * 36 * (3 * 2 * 14 * 14) * 4 / 1e6
    assert row["one pass (ms)"] > 0 and row["3n passes, verl's, n = 5 (ms)"] > 0 and row["1 pass, ours, n = 5 (ms)"] > 0


def test_the_batch_is_dialogues_with_rewards_on_turn_ends() -> None:
    from steer_verl.tcsr import find_turns

    rewards, mask, uids = micro.batch(10, 10_240)
    turns = find_turns(mask)
    assert turns.count_B.tolist() == [4, 5, 6, 7, 8] * 2
    ends = torch.zeros_like(mask).flatten()
    ends[turns.stop_K - 1] = 1
    assert ((rewards != 0) <= ends.view_as(rewards).bool()).all() and (rewards != 0).sum() == len(turns.member_K)
    assert len(set(uids)) == 2


def test_estimators_are_compared_with_verls_own() -> None:
    found = micro.estimator(["cpu"], dialogues=10, tokens=2400, repeats=1)
    names = [row["estimator"] for row in found["rows"]]
    assert names[0] == "verl grpo" and "tcsr, steer" in names and all(row["ms"] > 0 for row in found["rows"])
    assert found["rows"][0]["of verl's"] == 1


def test_without_verl_ours_are_timed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "verl.trainer.ppo.core_algos", None)
    rows = micro.estimator(["cpu"], dialogues=10, tokens=2400, repeats=1)["rows"]
    assert rows and all(row.keys() == {"estimator", "device", "ms"} for row in rows)


def test_the_readme_names_every_part_and_option() -> None:
    text = (grpo.HERE / "README.md").read_text()
    for word in (*page.PARTS, "--render", "--only", "--steps", "--limit", "--override", "gpu.md", "gpu.png"):
        assert re.search(rf"(?<![\w-]){re.escape(word)}", text), word
