// Markdown of a model as elements. What the model says is never markup: raw HTML is shown as text, the result is
// sanitised to a fragment, and nothing in it loads anything from anywhere.
import DOMPurify, { type Config } from "dompurify";
import { Marked, type Token, type Tokens, type TokensList } from "marked";

const SAFE_LINK = /^(?:https?:|mailto:)/i;
const INLINE_IMAGE = /^data:image\/(?:png|gif|jpeg|webp);base64,[a-z0-9+/=\s]+$/i;

function escape(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

const marked = new Marked({
  gfm: true,
  renderer: {
    html: ({ text }: Tokens.HTML | Tokens.Tag) => escape(text),
    heading({ tokens, depth }: Tokens.Heading) {
      const level = Math.min(6, depth + 2); // below the page's own headings
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>\n`;
    },
    image({ href, text }: Tokens.Image) {
      if (INLINE_IMAGE.test(href)) return `<img src="${escape(href)}" alt="${escape(text)}">`;
      const label = escape(text || "image");
      return SAFE_LINK.test(href) ? `<a href="${escape(href)}">[${label}]</a>` : `[${label}]`;
    },
    checkbox: ({ checked }: Tokens.Checkbox) => (checked ? "☑ " : "☐ "),
  },
});

const CONFIG: Config & { RETURN_DOM_FRAGMENT: true } = {
  RETURN_DOM_FRAGMENT: true,
  ALLOWED_TAGS: (
    "p br hr h3 h4 h5 h6 strong em del code pre blockquote ul ol li a img table thead tbody tr th td"
  ).split(" "),
  ALLOWED_ATTR: ["href", "src", "alt", "start", "align", "class"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:|data:image\/(?:png|gif|jpeg|webp);base64,)/i,
};

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.nodeName === "A") {
    if (!SAFE_LINK.test(node.getAttribute("href") ?? "")) node.removeAttribute("href");
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener noreferrer nofollow");
  }
  if (node.nodeName === "IMG" && !INLINE_IMAGE.test(node.getAttribute("src") ?? "")) node.remove();
  if (node.nodeName !== "CODE") node.removeAttribute("class");
});

function render(tokens: Token[]): DocumentFragment {
  const fragment = DOMPurify.sanitize(marked.parser(tokens), CONFIG);
  for (const block of fragment.querySelectorAll("pre")) dress(block);
  for (const table of fragment.querySelectorAll("table")) makeScrollable(table);
  return fragment;
}

/** A bar above a code block with its language and a button that copies it. */
function dress(block: HTMLPreElement): void {
  const code = block.querySelector("code");
  const bar = document.createElement("div");
  bar.className = "code-bar";
  const name = document.createElement("span");
  name.textContent = /language-(\S+)/.exec(code?.className ?? "")?.[1] ?? "text";
  const button = document.createElement("button");
  button.type = "button";
  button.className = "plain copy-code";
  button.textContent = "Copy";
  bar.append(name, button);
  block.tabIndex = 0;
  const frame = document.createElement("div");
  frame.className = "code-block";
  block.replaceWith(frame);
  frame.append(bar, block);
}

function makeScrollable(table: HTMLTableElement): void {
  const frame = document.createElement("div");
  frame.className = "table-frame";
  frame.tabIndex = 0;
  table.replaceWith(frame);
  frame.append(table);
}

/** One growing text in one element. A block that another has followed is closed: it is rendered once and never touched
 * again, so that a long answer costs what its last block costs, and a selection in it survives. */
export class GrowingMarkdown {
  private numClosed = 0;
  private text = "";
  private tail: ChildNode[] = [];

  constructor(private readonly target: HTMLElement) {}

  update(text: string): void {
    const clean = text.replaceAll("\r\n", "\n");
    if (!clean.startsWith(this.text)) this.reset();
    if (clean === this.text && this.text !== "") return;
    this.text = clean;
    const tokens = marked.lexer(clean.slice(this.numClosed));
    const open = lastBlock(tokens);
    const closed = tokens.slice(0, open);
    for (const node of this.tail) node.remove();
    if (closed.length > 0) {
      this.target.append(render(withLinks(closed, tokens)));
      this.numClosed += closed.reduce((length, token) => length + token.raw.length, 0);
    }
    const fragment = render(withLinks(tokens.slice(open), tokens));
    this.tail = [...fragment.childNodes];
    this.target.append(fragment);
  }

  /** The whole again, as one document: links that are defined at the end now work at the beginning. */
  finish(): void {
    const whole = this.text;
    if (!/^ {0,3}\[[^\]]+\]:/m.test(whole)) return;
    this.reset();
    this.text = whole;
    this.target.append(render(marked.lexer(whole)));
  }

  private reset(): void {
    this.target.replaceChildren();
    this.numClosed = 0;
    this.text = "";
    this.tail = [];
  }
}

/** Where the block begins that may still grow. */
function lastBlock(tokens: Token[]): number {
  let at = tokens.length - 1;
  while (at > 0 && tokens[at]?.type === "space") at--;
  return Math.max(0, at);
}

function withLinks(part: Token[], whole: TokensList): Token[] {
  return Object.assign(part, { links: whole.links });
}
