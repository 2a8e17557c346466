"""A page in a real browser, headless: how wide it gets, what cannot be read, and what its script complains of."""

from __future__ import annotations

import json
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any, Literal

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
SCHEMES = {"dark": 0, "light": 1}
"""As Chromium numbers what a reader prefers."""
LISTEN = """<script>
addEventListener("error", (event) => parent.complaints.push(event.message));
addEventListener("securitypolicyviolation", (event) => parent.complaints.push(event.violatedDirective));
</script>"""
"""Stands before the page's own policy, which does not concern it."""
PROBE = """<!doctype html><meta charset="utf-8"><body><script>
const page = PAGE, widths = WIDTHS, complaints = [], found = {};
const parse = (color) => color.match(/[\\d.]+/g).map(Number);
const light = (rgb) => {
  const [r, g, b] = rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
function behind(element, view) {
  for (let at = element; at; at = at.parentElement) {
    const color = parse(view.getComputedStyle(at).backgroundColor);
    if (color.length < 4 || color[3] > 0) return color.slice(0, 3);
  }
  return [255, 255, 255];
}
function pale(root, view) {
  const said = [];
  for (const element of root.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || ["SCRIPT", "STYLE", "title"].includes(element.tagName)) continue;
    const style = view.getComputedStyle(element);
    const ink = parse(element.tagName === "text" ? style.fill : style.color).slice(0, 3);
    const both = [light(ink), light(behind(element, view))].sort((a, b) => b - a);
    const ratio = (both[0] + 0.05) / (both[1] + 0.05);
    if (ratio < 4.5) said.push(`${element.tagName} ${element.textContent.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return [...new Set(said)];
}
function measure(frame, width) {
  const root = frame.contentDocument, view = frame.contentWindow, top = root.documentElement;
  const heading = root.querySelector("table.sortable thead button");
  if (heading) heading.click();
  const fold = root.querySelector("details.trial");
  if (fold) view.location.hash = fold.id;
  setTimeout(() => {
    found[width] = {
      wide: top.scrollWidth, room: top.clientWidth, pale: pale(root, view), background: behind(root.body, view),
      sorted: heading ? heading.parentElement.getAttribute("aria-sort") : null, unfolded: fold ? fold.open : null,
    };
    if (Object.keys(found).length < widths.length) return;
    document.body.textContent = JSON.stringify({ found, complaints });
  }, 50);
}
for (const width of widths) {
  const frame = document.createElement("iframe");
  frame.width = width; frame.height = 900; frame.srcdoc = page;
  frame.onload = () => measure(frame, width);
  document.body.append(frame);
}
</script>"""


def measured(page: str, widths: tuple[int, ...], scheme: Literal["light", "dark"], folder: Path) -> dict[str, Any]:
    """What a browser finds at each width: `complaints`, and under `found` the numbers of each."""
    heard = page.replace("<head>", f"<head>{LISTEN}", 1)
    text = json.dumps(heard).replace("</", "<\\/")
    probe = folder / f"probe_{scheme}.html"
    probe.write_text(PROBE.replace("PAGE", text, 1).replace("WIDTHS", json.dumps(widths), 1), encoding="utf-8")
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'browser'}",
        f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}", "--virtual-time-budget=20000", "--dump-dom",
        probe.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    body = done.stdout.partition("<body>")[2].partition("</body>")[0]
    found: dict[str, Any] = json.loads(unescape(body))
    return found
