"""Keys from the variable: what is accepted, what is refused without being repeated, how a key is recognised."""

from __future__ import annotations

import gc
import hashlib
import hmac
import secrets
import statistics
import time
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import SettingsError
from contracts.generation import Tenant
from contracts.settings import ServerSettings, Settings
from service.api_keys import ALL_SCOPES, ApiKey, KeyEntry, Keyring, read_variable, seal_keys

KEY = "sk-canary-0123456789"
OTHER = "sk-another-0123456789"
VISIBLE = st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters=",=")
KEYS = st.text(VISIBLE, min_size=16, max_size=64).filter(lambda key: not key.startswith("sha256:"))


def ring(text: str) -> Keyring:
    return Keyring(read_variable(text))


def entry(label: str, key: bytes) -> KeyEntry:
    api_key = ApiKey(label=label, scopes=ALL_SCOPES, tenant=Tenant(name=label))
    return KeyEntry(hashlib.sha256(key).digest(), api_key)


class TestVariable:
    def test_labelled_and_plain_keys_are_known_and_may_do_everything(self) -> None:
        keyring = ring(f" ci = {KEY} , {OTHER}")
        assert keyring.find(KEY.encode()) == ApiKey(label="ci", scopes=ALL_SCOPES, tenant=Tenant(name="ci"))
        assert keyring.find(OTHER.encode()) == ApiKey(label="key-2", scopes=ALL_SCOPES, tenant=Tenant(name="key-2"))

    def test_hash_stands_for_its_key_and_is_none_itself(self) -> None:
        hashed = "sha256:" + hashlib.sha256(KEY.encode()).hexdigest()
        keyring = ring(f"ci={hashed}")
        assert keyring.find(KEY.encode()) is not None
        assert keyring.find(hashed.encode()) is None

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "entry 1: the key has 0 characters"),
            (f"{KEY},", "entry 2: the key has 0 characters"),
            ("a=canary-15-chars", "entry 1: the key has 15 characters, but needs 16 to 512"),
            ("canary-0123456789==", "entry 1: the key has 1 characters"),
            ("canary/0123456789+x==", "entry 1: what stands before '=' is no label"),
            (f"={KEY}", "entry 1: what stands before '=' is no label"),
            (f"{'l' * 65}={KEY}", "entry 1: what stands before '=' is no label"),
            (f"a={KEY},a={OTHER}", "entry 2: its label has been given before"),
            (f"key-2={KEY},{OTHER}", "entry 2: its label has been given before"),
            ("a=canary 0123456789", "entry 1: the key may hold visible ASCII characters only"),
            ("a=canary-0123456789-é", "entry 1: the key may hold visible ASCII characters only"),
            ("a=sha256:canary", "entry 1: after 'sha256:' there must be 64"),
            (f"a={'canary' * 100}", "entry 1: the key has 600 characters"),
        ],
    )
    def test_unusable_entry_is_refused_by_number_and_never_repeated(self, text: str, message: str) -> None:
        with pytest.raises(SettingsError) as refusal:
            read_variable(text)
        assert refusal.value.message.startswith(f"LLM_API_KEYS, {message}")
        assert "canary" not in refusal.value.message

    def test_the_same_key_twice_is_refused(self) -> None:
        with pytest.raises(SettingsError, match="'a' and 'b' are the same"):
            ring(f"a={KEY},b={KEY}")

    @given(st.lists(KEYS, unique=True, min_size=1, max_size=5), KEYS)
    def test_exactly_the_given_keys_are_known(self, keys: list[str], stranger: str) -> None:
        keyring = ring(",".join(f"l{number}={key}" for number, key in enumerate(keys)))
        found = [keyring.find(key.encode()) for key in keys]
        assert [one.label for one in found if one] == [f"l{number}" for number in range(len(keys))]
        assert (keyring.find(stranger.encode()) is None) is (stranger not in keys)


class TestSealing:
    def test_sealed_settings_know_the_same_keys(self) -> None:
        sealed = seal_keys(Settings(server=ServerSettings(api_keys=f"ci={KEY},{OTHER}")))
        keyring = ring(sealed.server.api_keys or "")
        labels = [found.label for key in (KEY, OTHER) if (found := keyring.find(key.encode()))]
        assert labels == ["ci", "key-2"]
        assert KEY not in (sealed.server.api_keys or "")
        assert seal_keys(sealed) == sealed

    def test_without_keys_nothing_changes(self) -> None:
        assert seal_keys(Settings()) == Settings()

    def test_no_key_stays_in_memory(self) -> None:
        """Everything that is still referenced once the settings are sealed is looked through."""
        key = "sk-" + secrets.token_hex(16)
        sealed = seal_keys(Settings(server=ServerSettings(api_keys="ci=" + key)))
        keyring = ring(sealed.server.api_keys or "")
        gc.collect()
        held = [repr(one) for one in (sealed.server.api_keys, *_reachable(keyring))]
        assert [text for text in held if key in text] == []
        assert keyring.find(key.encode()) is not None


def _reachable(root: object) -> list[object]:
    """Objects that the root refers to, three levels down; not through types and modules."""
    level: list[object] = [root]
    found: list[object] = []
    for _ in range(3):
        level = [
            one for one in gc.get_referents(*level) if not isinstance(one, type) and type(one).__name__ != "module"
        ]
        found += level
    return found


class TestComparison:
    @pytest.mark.parametrize("key", [b"key number 0 of 5", b"key number 4 of 5", b"an unknown key of some length"])
    def test_every_digest_is_compared_whether_or_not_one_matches(
        self, key: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        keyring = Keyring(entry(f"k{number}", b"key number %d of 5" % number) for number in range(5))
        compared: list[bytes] = []

        def spy(left: bytes, right: bytes) -> bool:
            compared.append(left)
            return left == right

        monkeypatch.setattr(hmac, "compare_digest", spy)
        keyring.find(key)
        assert compared == [hashlib.sha256(b"key number %d of 5" % number).digest() for number in range(5)]

    def test_a_huge_candidate_costs_nothing(self) -> None:
        huge = b"x" * 2**20
        keyring = ring(KEY)
        tracemalloc.start()
        assert keyring.find(huge) is None
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak_bytes < 10_000

    @pytest.mark.slow
    @pytest.mark.parametrize("num_equal", [1, 8, 16, 31])
    def test_time_does_not_tell_how_much_of_a_key_is_right(self, num_equal: int) -> None:
        """Welch's t over the fastest tenths of interleaved samples; 4.5 is the usual bound for a leak.

        The mean of five such values with their signs, each from samples of its own: a busy machine moves them either
        way, a leak moves all to one side.
        """
        key = secrets.token_bytes(16).hex()
        keyring = Keyring(
            [entry(f"k{number}", secrets.token_bytes(32)) for number in range(20)] + [entry("k", key.encode())]
        )
        near = (key[:num_equal] + "!" * (32 - num_equal)).encode()
        far = b"!" * 32
        found = [_time_difference(keyring.find, near, far) for _ in range(5)]
        assert abs(statistics.fmean(found)) < 4.5


def _time_difference(call: Callable[[bytes], object], near: bytes, far: bytes) -> float:
    samples: dict[bytes, list[int]] = {near: [], far: []}
    for _ in range(10_000):
        for candidate in secrets.SystemRandom().sample([near, far], 2):
            samples[candidate].append(_time_ns(call, candidate))
    return _welch_t(*(sorted(times)[: len(times) // 10] for times in samples.values()))


def _time_ns(call: Callable[[bytes], object], argument: bytes) -> int:
    start_ns = time.perf_counter_ns()
    call(argument)
    return time.perf_counter_ns() - start_ns


def _welch_t(left: list[int], right: list[int]) -> float:
    error = (statistics.variance(left) / len(left) + statistics.variance(right) / len(right)) ** 0.5
    return (statistics.fmean(left) - statistics.fmean(right)) / error if error else 0.0
