// Copying, also where the page is not served over HTTPS and the browser keeps its clipboard to itself.

export async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

function copyBySelection(text: string): boolean {
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "hidden";
  const focused = document.activeElement;
  document.body.append(area);
  area.select();
  const isCopied = document.execCommand("copy");
  area.remove();
  if (focused instanceof HTMLElement) focused.focus();
  return isCopied;
}

/** The buttons of code blocks, which are no components. */
export function copyCodeOnClick(root: HTMLElement): void {
  root.addEventListener("click", async (event) => {
    const button = (event.target as Element).closest<HTMLButtonElement>(".copy-code");
    const code = button?.closest(".code-block")?.querySelector("code");
    if (!button || !code) return;
    button.textContent = (await copyText(code.textContent ?? "")) ? "Copied" : "Copying failed";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
}
