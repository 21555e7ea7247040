"""The page of a report in HTML: its frame and its style."""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
</body>
</html>
"""

STYLE = """:root {
  color-scheme: light dark;
  --ink: #1c1c1c; --paper: #ffffff; --quiet: #5c5c5c; --line: #dcdcdc; --tint: #f4f4f2;
  --mark: #a03000; --edge: #0072b2;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6e6e6; --paper: #17181a; --quiet: #a8a8a8; --line: #3a3c40; --tint: #212326;
    --mark: #ffb38a; --edge: #56b4e9;
  }
}
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 0.75rem; }
p, li { max-width: 50rem; }
.important { border-left: 4px solid var(--edge); background: var(--tint); padding: 0.75rem 1rem; }
.table, figure { overflow-x: auto; margin: 0.75rem 0; }
.table { background:
  linear-gradient(to left, var(--paper) 40%, transparent) right / 3rem 100% local,
  linear-gradient(to left, var(--line), transparent) right / 1rem 100% scroll;
  background-repeat: no-repeat; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.35rem 0.5rem; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top; white-space: nowrap; }
th { font-weight: 600; }
thead th { border-bottom: 2px solid var(--quiet); vertical-align: bottom; }
th.text, td.text { text-align: left; white-space: normal; }
td.text { min-width: 7rem; }
th:first-child { position: sticky; left: 0; background: var(--paper); }
td small { color: var(--quiet); font-size: 0.8em; }
.mark { color: var(--mark); }
img { display: block; width: 1200px; max-width: 100%; height: auto; background: #ffffff;
  border: 1px solid var(--line); }
@media (max-width: 700px) { img { width: 700px; max-width: none; } }
figcaption { color: var(--quiet); font-size: 0.9rem; margin-top: 0.35rem; max-width: 50rem; }"""
