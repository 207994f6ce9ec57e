"""How the HTML reports look and what little they do: one stylesheet, one script, both inlined."""

from __future__ import annotations

__all__ = ["INKS", "SCRIPT", "STYLE"]

# Colours of the figures by theme: {as drawn: (variable, on light, on dark)}, 3:1 or more against either background.
INKS = {
    "#0072b2": ("--c1", "#0072b2", "#3a9ad6"), "#d55e00": ("--c2", "#d55e00", "#e8762a"),
    "#009e73": ("--c3", "#008a64", "#1fb88c"), "#cc79a7": ("--c4", "#bf5f94", "#d98fb8"),
    "#56b4e9": ("--c5", "#2f94cf", "#8fd0f5"), "#e69f00": ("--c6", "#b98000", "#e69f00"),
    "#000000": ("--ink", "#1b1f24", "#e7eaee"), "#4d4d4d": ("--soft", "#4d545c", "#aab2bb"),
    "#595959": ("--soft", "#4d545c", "#aab2bb"), "#666666": ("--soft", "#4d545c", "#aab2bb"),
    "#ebebeb": ("--grid", "#e6e8eb", "#30353c"), "#ffffff": ("--page", "#ffffff", "#15181d"),
}  # fmt: skip


def _variables(theme: int) -> str:
    return "".join(f"{name}:{value};" for name, value in dict.fromkeys((i[0], i[theme]) for i in INKS.values()))


STYLE = (
    ":root{color-scheme:light dark;--tint:#f4f6f8;--line:#d4d9df;--link:#0b5fa5;--warn:#8a4b00;--warm:#fff6e6;"
    + _variables(1)
    + "}\n@media screen and (prefers-color-scheme:dark){:root{--tint:#1d2127;--line:#3a414a;--link:#7cc0ff;"
    + "--warn:#ffc66b;--warm:#2b2416;"
    + _variables(2)
    + "}}\n"
    + """*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);overflow-wrap:anywhere;
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
header,main,footer{max-width:72rem;margin:0 auto;padding:0 1rem}
header{padding-top:1.5rem}footer{padding-bottom:2rem;color:var(--soft);font-size:.875rem}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 .25rem}
h2{font-size:1.25rem;line-height:1.3;margin:2.5rem 0 .5rem;padding-top:.75rem;border-top:1px solid var(--line)}
h3{font-size:1.05rem;margin:1.75rem 0 .25rem}
p{margin:.4rem 0;max-width:48rem}
a{color:var(--link)}
nav ul{display:flex;flex-wrap:wrap;gap:.25rem 1rem;padding:0;margin:.75rem 0;list-style:none}
.notes{margin:1rem 0;padding:.6rem 1rem;border-left:4px solid var(--warn);background:var(--warm);border-radius:4px}
.notes h2{border:0;margin:0;padding:0;font-size:1rem;color:var(--warn)}
.notes ul{margin:.3rem 0;padding-left:1.2rem}
.fine{border-color:var(--c3);background:var(--tint)}
.fine h2{color:inherit}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.2rem 1.25rem;margin:.75rem 0}
dt{color:var(--soft)}dd{margin:0}
.scroll{overflow-x:auto;margin:.75rem 0;border:1px solid var(--line);border-radius:6px}
.scroll:focus-visible,button:focus-visible,summary:focus-visible,a:focus-visible{outline:2px solid var(--link);
outline-offset:2px}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums;overflow-wrap:normal}
caption{text-align:left;padding:.5rem .75rem;color:var(--soft);position:sticky;left:0}
caption span{display:block;width:min(100vw - 4rem,66rem)}
th,td{padding:.35rem .75rem;text-align:right;white-space:nowrap;border-top:1px solid var(--line)}
thead th{background:var(--tint);white-space:normal;font-weight:600;vertical-align:bottom}
tbody th{font-weight:600}
th:first-child{text-align:left;position:sticky;left:0;background:var(--page);white-space:normal;
min-width:10rem;max-width:16rem;overflow-wrap:anywhere;z-index:1}
thead th:first-child{background:var(--tint)}
td.text,th.left{text-align:left}
td.long{text-align:left;white-space:normal;min-width:16rem;overflow-wrap:anywhere}
th button{all:unset;cursor:pointer;font:inherit}
th button::after{content:"\\a0\\2195";opacity:.45}
th[aria-sort=ascending] button::after{content:"\\a0\\2191";opacity:1}
th[aria-sort=descending] button::after{content:"\\a0\\2193";opacity:1}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1rem 2rem}
figure{margin:.75rem 0;min-width:0;max-width:36rem}
figure>svg{display:block;width:100%;height:auto;overflow:visible}
figure>svg *{stroke-linejoin:round;stroke-linecap:butt}
figure>svg text{fill:var(--ink);font-family:inherit}
figcaption{font-size:.9rem}
figcaption b{font-weight:600}
.key{display:flex;flex-wrap:wrap;gap:.15rem 1.1rem;margin:.4rem 0 0;padding:0;list-style:none;font-size:.85rem}
.key li{display:flex;align-items:center;gap:.45rem}
.key svg{width:1.9rem;height:.7rem;flex:none}
details{margin:.75rem 0}summary{cursor:pointer;color:var(--link)}
.command{position:relative;margin:.75rem 0}
pre{margin:0;padding:.75rem;background:var(--tint);border:1px solid var(--line);border-radius:6px;overflow-x:auto;
white-space:pre-wrap;font:.85rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.9em}
pre code{font-size:1em}
.command button{font:inherit;font-size:.8rem;margin:.3rem 0 0;padding:.15rem .6rem;color:var(--link);
background:var(--page);border:1px solid var(--line);border-radius:4px;cursor:pointer}
@media (max-width:30rem){body{font-size:15px}dl{grid-template-columns:1fr;gap:0}dd{margin:0 0 .4rem}
th,td{padding:.3rem .5rem}th:first-child{min-width:7.5rem;max-width:8.5rem}}
@media print{nav,button{display:none}.scroll{overflow:visible;border:0}section,figure{break-inside:avoid}}
"""
)

# Without it the page is whole; with it tables are sorted by their headings, and commands copied.
SCRIPT = """for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => {
    if (body.rows.length < 2 || "plain" in head.dataset) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[place].dataset.value ?? row.cells[place].textContent;
      const sign = down ? -1 : 1;
      const order = (a, b) => {
        const x = Number(key(a)), y = Number(key(b));
        if (Number.isNaN(x) && Number.isNaN(y)) return sign * key(a).localeCompare(key(b));
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
        return sign * (x - y);
      };
      body.append(...[...body.rows].sort(order));
    });
  });
}
for (const block of document.querySelectorAll(".command")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    const code = block.querySelector("code");
    getSelection().selectAllChildren(code);
    try { await navigator.clipboard.writeText(code.textContent); } catch { document.execCommand("copy"); }
    button.textContent = "Copied";
  });
  block.append(button);
}
"""
