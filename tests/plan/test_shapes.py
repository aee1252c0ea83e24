"""Parameters, linear layers, adapters and caches of every model whose configuration is shipped, to the last one."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tunesmith.errors import InvalidRequest, NotFound
from tunesmith.plan.shapes import find_shape, of_config, shipped

TABLE = """
meta-llama/Llama-2-7b-hf             6_738_415_616   6_476_005_376  39_976_960  4_194_304 512
meta-llama/Llama-2-13b-hf           13_015_864_320  12_687_769_600  62_586_880  6_553_600 800
meta-llama/Llama-2-70b-hf           68_976_648_192  68_451_041_280 207_093_760 16_384_000 320
meta-llama/Llama-3.1-8B              8_030_261_248   6_979_321_856  41_943_040  3_407_872 128
meta-llama/Llama-3.1-70B            70_553_706_496  68_451_041_280 207_093_760 16_384_000 320
meta-llama/Llama-3.1-405B          405_853_388_800 401_646_551_040 623_443_968 50_577_408 504
meta-llama/Llama-3.2-1B              1_235_814_400     973_078_528  11_272_192    851_968 32
meta-llama/Llama-3.2-3B              3_212_749_824   2_818_572_288  24_313_856  2_293_760 112
mistralai/Mistral-7B-v0.1            7_241_732_096   6_979_321_856  41_943_040  3_407_872 128
mistralai/Mistral-7B-v0.3            7_248_023_552   6_979_321_856  41_943_040  3_407_872 128
mistralai/Mistral-Nemo-Base-2407    12_247_782_400  10_905_190_400  57_016_320  4_915_200 160
Qwen/Qwen2.5-0.5B                      494_032_768     357_826_560   8_798_208    540_672 12
Qwen/Qwen2.5-1.5B                    1_543_714_304   1_310_195_712  18_464_768  1_089_536 28
Qwen/Qwen2.5-3B                      3_085_938_688   2_774_532_096  29_933_568  1_843_200 36
Qwen/Qwen2.5-7B                      7_615_616_512   6_525_288_448  40_370_176  2_523_136 56
Qwen/Qwen2.5-14B                    14_770_033_664  13_212_057_600  68_812_800  6_291_456 192
Qwen/Qwen2.5-32B                    32_763_876_352  31_205_621_760 134_217_728  8_388_608 256
Qwen/Qwen2.5-72B                    72_706_203_648  70_212_648_960 210_534_400 16_384_000 320
Qwen/Qwen3-0.6B                        596_049_920     440_401_920  10_092_544  1_146_880 112
Qwen/Qwen3-1.7B                      1_720_574_976   1_409_286_144  17_432_576  1_605_632 112
Qwen/Qwen3-4B                        4_022_468_096   3_633_315_840  33_030_144  2_949_120 144
Qwen/Qwen3-8B                        8_190_735_360   6_945_767_424  43_646_976  3_833_856 144
Qwen/Qwen3-14B                      14_768_307_200  13_212_057_600  64_225_280  5_242_880 160
Qwen/Qwen3-32B                      32_762_123_264  31_205_621_760 134_217_728  9_961_472 256
Qwen/Qwen3-30B-A3B                  30_532_122_624     905_969_664  13_369_344  3_342_336 96
mistralai/Mixtral-8x7B-v0.1         46_702_792_704   1_342_177_280  13_631_488  3_407_872 128
google/gemma-2-2b                    2_614_341_888   2_024_275_968  20_766_720  1_597_440 104
google/gemma-2-9b                    9_241_705_984   8_323_596_288  54_018_048  4_472_832 336
google/gemma-2-27b                  27_227_128_320  26_046_627_840 114_180_096  5_652_480 368
google/gemma-3-270m                    268_098_176     100_270_080   3_796_992    368_640 18
google/gemma-3-1b-pt                   999_885_952     697_761_792  13_045_760    745_472 26
google/gemma-3-4b-pt                 3_880_263_168   3_208_642_560  29_802_496  2_228_224 136
google/gemma-3-12b-pt               11_766_034_176  10_758_389_760  65_470_464  5_308_416 384
google/gemma-3-27b-pt               27_009_346_304  25_598_361_600 113_516_544  8_380_416 496
EleutherAI/pythia-70m                   70_426_624      18_874_368     786_432     98_304 12
EleutherAI/pythia-160m                 162_322_944      84_934_656   2_359_296    294_912 36
EleutherAI/pythia-410m                 405_334_016     301_989_888   6_291_456    786_432 96
EleutherAI/pythia-1b                 1_011_781_632     805_306_368   8_388_608  1_048_576 128
EleutherAI/pythia-1.4b               1_414_647_808   1_207_959_552  12_582_912  1_572_864 192
EleutherAI/pythia-2.8b               2_775_208_960   2_516_582_400  20_971_520  2_621_440 320
EleutherAI/pythia-6.9b               6_857_302_016   6_442_450_944  33_554_432  4_194_304 512
EleutherAI/pythia-12b               11_846_072_320  11_324_620_800  47_185_920  5_898_240 720
"""
"""Name, parameters, those of linear layers, LoRA of rank 16 on all of them, of rank 8 on query and value, KiB of cache a token.

Counted on the meta device with transformers 5.23."""

ROWS = [line.split() for line in TABLE.strip().splitlines()]
WITH_TRANSFORMERS = (
    "Llama-2-7b-hf", "Llama-3.1-405B", "Llama-3.2-1B", "Mistral-7B-v0.3", "Qwen2.5-1.5B", "Qwen3-8B", "Qwen3-30B-A3B",
    "Mixtral-8x7B-v0.1", "gemma-2-9b", "gemma-3-270m", "gemma-3-27b-pt", "pythia-6.9b",
)


def test_there_are_forty_two_models():
    assert len(ROWS) == 42 == len(shipped())


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_every_count_equals_the_table(row):
    name, total, linear, all_16, qv_8, kv_kib = row
    shape = find_shape(name)
    values = ("query_key_value",) if shape.family == "gpt_neox" else ("q_proj", "v_proj")
    assert shape.num_parameters == int(total)
    assert shape.quantizable == int(linear)
    assert shape.lora(16) == int(all_16)
    assert shape.lora(8, values) == int(qv_8)
    per_token = 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * 2
    assert per_token == float(kv_kib) * 1024


@pytest.mark.parametrize("name", WITH_TRANSFORMERS)
def test_counts_equal_those_of_transformers(name):
    config = next(config for ids, config in shipped() if any(known.endswith(f"/{name}") for known in ids))
    fields = {key: value for key, value in config.items() if key != "model_type"}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **fields))
    model.tie_weights()
    shape = find_shape(name)
    assert shape.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    in_layers = [module for path, module in model.named_modules() if isinstance(module, torch.nn.Linear) and "layers." in path]
    assert shape.quantizable == sum(module.weight.numel() for module in in_layers)


def test_a_model_is_found_by_hub_id_or_its_last_part_in_any_case():
    assert find_shape("qwen/qwen3-8b") == find_shape("QWEN3-8B") == find_shape("Qwen/Qwen3-8B-Base")


def test_a_folder_is_read_by_its_own_configuration(tmp_path):
    config = next(config for ids, config in shipped() if ids[0] == "google/gemma-3-4b-pt")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": config}))
    assert find_shape(str(tmp_path)).num_parameters == 3_880_263_168


def test_an_unknown_name_is_refused_with_like_ones():
    with pytest.raises(NotFound, match="Qwen/Qwen3-8B"):
        find_shape("Qwen/Qwen3-9B")


def test_an_unknown_architecture_is_refused_with_those_that_are_known():
    with pytest.raises(InvalidRequest, match="gpt_neox"):
        of_config({"model_type": "mamba"}, "x")


def test_layers_with_a_window_keep_no_more_than_the_window():
    shape = find_shape("gemma-3-1b-pt")
    seen_whole = shape.num_layers // 6
    per_layer = 2 * shape.num_kv_heads * shape.head_dim * 2
    assert shape.kv_bytes(10_000) == per_layer * (seen_whole * 10_000 + (shape.num_layers - seen_whole) * 512)
