"""How the page looks, and the little script that it has beside Gradio's."""

from typing import Any

FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Arial", "sans-serif"]
MONO_FONTS = ["ui-monospace", "Menlo", "Consolas", "Liberation Mono", "monospace"]
CSS = """
.gradio-container { max-width: min(1280px, 100vw) !important; margin: 0 auto !important; }
.gradio-container .column { max-width: 100% !important; }
.intro h1 { font-size: 1.6rem; line-height: 1.25; margin: 0.5rem 0 0.25rem; font-weight: 650; }
.summary h2 { font-size: 1.15rem; margin: 0 0 0.5rem; font-weight: 650; }
.summary h3 { font-size: 1rem; margin: 0.75rem 0 0.25rem; font-weight: 650; }
.summary ul { margin: 0; padding-left: 1.25rem; list-style: disc; }
.summary .table { overflow-x: auto; }
.summary table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums;
  margin: 0 !important; }
.summary caption { position: absolute; width: 1px; height: 1px; overflow: hidden;
  clip-path: inset(50%); }
.summary table, .summary tr, .summary th, .summary td { border: none !important; }
.summary th { white-space: normal !important; vertical-align: bottom; overflow-wrap: normal;
  word-break: normal; }
.summary th, .summary td { text-align: left; padding: 0.35rem 0.75rem 0.35rem 0 !important;
  border-bottom: 1px solid var(--border-color-primary) !important;
  white-space: nowrap; }
@media (max-width: 640px) {
  .summary th, .summary td { padding-right: 0.4rem !important; font-size: 0.82rem; }
}
#clip button[aria-label="Trim video to selection"], #clip button[aria-label="Undo"] {
  display: none; }
.block.summary { min-height: 7rem; }
.summary progress { appearance: none; width: 100%; height: 0.75rem; border: none;
  border-radius: 6px; overflow: hidden; background: var(--border-color-primary); }
.summary progress::-webkit-progress-bar { background: var(--border-color-primary); }
.summary progress::-webkit-progress-value { background: var(--color-accent); }
.summary progress::-moz-progress-bar { background: var(--color-accent); }
.overlay img, .overlay video { max-height: 70vh; object-fit: contain; }
.summary .wrong { border-left: 4px solid #c2410c; padding-left: 0.75rem; overflow-wrap: anywhere; }
.files h3 { font-size: 1rem; margin: 0.25rem 0; font-weight: 650; }
.files ul { margin: 0; padding: 0; list-style: none; }
.files li { padding: 0.3rem 0; border-bottom: 1px solid var(--border-color-primary);
  overflow-wrap: anywhere; }
.files li span { color: var(--body-text-color-subdued); }
.api pre { overflow-x: auto; padding: 0.75rem; background: var(--background-fill-secondary);
  border-radius: 6px; font-size: 0.85rem; }
.api summary { cursor: pointer; }
"""

HEAD = """
<script>
(() => {
  const label = () => {
    for (const one of document.querySelectorAll(".block.summary"))
      if (!one.hasAttribute("aria-live")) {
        one.setAttribute("aria-live", "polite");
        one.setAttribute("role", "status");
      }
    for (const one of document.querySelectorAll("canvas[tabindex='1']")) {
      one.tabIndex = 0;
      one.setAttribute("role", "img");
      one.setAttribute("aria-label", "The hands in 3D; drag to turn them");
    }
    for (const one of document.querySelectorAll("button.upload-container"))
      if (one.getAttribute("aria-label") !== one.innerText.trim() && one.innerText.trim())
        one.setAttribute("aria-label", one.innerText.trim());
    for (const one of document.querySelectorAll("div.empty[aria-label]"))
      one.removeAttribute("aria-label");
    for (const one of document.querySelectorAll(".origin"))
      if (one.textContent !== location.origin) one.textContent = location.origin;
  };
  new MutationObserver(label).observe(document, { childList: true, subtree: true });
  document.addEventListener("paste", (event) => {
    const pasted = [...(event.clipboardData?.files ?? [])];
    const file = pasted.find((one) => one.type.startsWith("image/"));
    const input = document.querySelector("#picture input[type=file]");
    if (!file || !input) return;
    const files = new DataTransfer();
    files.items.add(file);
    input.files = files.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    event.preventDefault();
  });
})();
</script>
"""


def theme() -> Any:
    """Gradio's own, with fonts that every machine has, and colours of enough contrast (WCAG AA)."""
    import gradio

    made = gradio.themes.Default(
        primary_hue="blue", neutral_hue="slate", font=FONTS, font_mono=MONO_FONTS
    )
    return made.set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_300",
        color_accent="*primary_700",
        link_text_color="*primary_700",
        link_text_color_dark="*primary_300",
    )
