"""Whether a model that is named by its hub name can be had: fetched already, or reachable and not behind a gate."""

from __future__ import annotations

from pathlib import Path

from contracts.checkup import Finding
from contracts.model_catalog import ModelProfile
from contracts.settings import EngineSettings
from service.model_facts import find_directory
from service.terminal.examination import found

TIMEOUT_S = 5.0


def check_hub(profile: ModelProfile, settings: EngineSettings) -> Finding:
    """Asks the hub only for a hub name, and only where that is allowed."""
    if profile.is_embedded or Path(profile.model).is_absolute() or Path(profile.model).expanduser().is_dir():
        return found("skipped", "The model is on this machine: nothing is fetched.")
    is_here = find_directory(profile.model) is not None
    if settings.offline:
        return found("ok" if is_here else "failed", *_offline(profile.model, is_here=is_here))
    reason = _ask_hub(profile.model)
    if reason is None:
        told = "it is fetched already" if is_here else "it will be fetched at the first start"
        return found("ok", f"The hub answers for {profile.model}; {told}.")
    if is_here:
        return found("warning", f"{reason} It is fetched already, so it can be served.", "Give --offline.")
    return found("failed", reason, "Name a local directory, or accept the licence and set HF_TOKEN if it is gated.")


def _offline(model: str, *, is_here: bool) -> tuple[str, str | None]:
    if is_here:
        return f"{model} is fetched already, and the hub is not asked (--offline).", None
    return f"{model} was never fetched, and the hub may not be asked.", "Give --no-offline once, or name a directory."


def _ask_hub(model: str) -> str | None:
    """Why the hub does not give the model to this user; None where it does.

    Asked without the hub's own library, whose errors are those of one HTTP client or of another.
    """
    import httpx
    from huggingface_hub import constants, get_token

    if constants.is_offline_mode():
        return "The hub may not be asked (HF_HUB_OFFLINE)."
    token = get_token()
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    url = f"{constants.ENDPOINT}/api/models/{model}/auth-check"
    try:
        status = httpx.get(url, headers=headers, timeout=TIMEOUT_S, follow_redirects=True).status_code
    except httpx.HTTPError as error:
        return f"The hub at {constants.ENDPOINT} cannot be reached ({error or type(error).__name__})."
    if status == 403:
        return f"{model} is gated: its licence must be accepted on the hub first."
    if status in (401, 404):
        return f"The hub at {constants.ENDPOINT} has no {model} that this user may see."
    return None if status == 200 else f"The hub at {constants.ENDPOINT} answers with status {status}."
