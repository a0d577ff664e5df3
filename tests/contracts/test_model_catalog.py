"""Declared models: how a profile becomes an engine's settings and defaults, and how names are looked up."""

from __future__ import annotations

import msgspec
import pytest

from contracts.errors import ModelNotFound
from contracts.model_catalog import ModelCatalog, ModelProfile, ProfileSampling
from contracts.sampling import SamplingDefaults
from contracts.settings import EngineSettings

SMALL = ModelProfile(alias="small", model="/srv/small")
LARGE = ModelProfile(alias="org/large", model="org/large", max_model_len=4096, dtype="bfloat16", kv_cache_memory="1GiB")
CATALOG = ModelCatalog(profiles=(SMALL, LARGE), default_alias="org/large")


@pytest.mark.parametrize(("name", "found"), [(None, LARGE), ("small", SMALL), ("org/large", LARGE)])
def test_declared_name_is_found_and_no_name_is_the_default(name: str | None, found: ModelProfile) -> None:
    assert CATALOG.find(name) == found


@pytest.mark.parametrize("name", ["", "Small", "/srv/small", "../small", "org", "x" * 100_000, "\ud800"])
def test_any_other_name_is_not_found(name: str) -> None:
    with pytest.raises(ModelNotFound, match=r"Served: small, org/large\.") as caught:
        CATALOG.find(name)
    assert caught.value.param == "model"


def test_mistyped_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ModelNotFound, match="Did you mean 'small'"):
        CATALOG.find("smal")


def test_lookup_of_exactly_one_alias() -> None:
    assert (CATALOG.get("small"), CATALOG.get("nope"), CATALOG.default) == (SMALL, None, LARGE)


def test_profile_wins_over_common_settings() -> None:
    common = EngineSettings(model="MODEL", served_model_name="x", max_model_len=64, dtype="float32", max_num_seqs=3)
    settings = LARGE.engine_settings(common)
    assert (settings.model, settings.served_model_name) == ("org/large", "org/large")
    assert (settings.max_model_len, settings.dtype, settings.kv_cache_memory) == (4096, "bfloat16", "1GiB")
    assert settings.max_num_seqs == 3


def test_window_of_the_argument_is_not_that_of_other_models() -> None:
    settings = SMALL.engine_settings(EngineSettings(max_model_len=64, dtype="float32", kv_cache_memory="2GiB"))
    assert (settings.max_model_len, settings.dtype, settings.kv_cache_memory) == (None, "float32", "2GiB")


def test_sampling_of_the_profile_stands_in_front_of_the_checkpoints() -> None:
    sampling = ProfileSampling(temperature=0.0, top_k=7, max_tokens=9)
    assert sampling.over(SamplingDefaults(temperature=0.6, top_p=0.9)) == SamplingDefaults(
        temperature=0.0, top_k=7, top_p=0.9
    )


def test_catalog_survives_the_way_to_another_process() -> None:
    profile = msgspec.structs.replace(LARGE, alias="any name of MODEL", sampling=ProfileSampling(min_p=0.1))
    catalog = ModelCatalog(profiles=(SMALL, profile), default_alias="small")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(catalog), type=ModelCatalog) == catalog
