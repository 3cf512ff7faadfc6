"""One HTML page of evidence: no script, nothing loaded from elsewhere, light and dark, phone and paper."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, StrictUndefined

from sutura.report.summary import summary

VERDICTS = {
    "certified": ("good", "Certified: an independent program re-proved it from the files beside this page."),
    "proved": ("good", "Proved of the network that ships."),
    "violated": ("bad", "Violated: an input that breaks it was run in ONNX Runtime."),
    "unknown": ("open", "Neither proved nor refuted."),
    "not asked": ("open", "No stage asked this of the network that ships."),
}
"""Verdict -> its colour and what it means."""


def page(report: dict[str, Any]) -> str:
    """The page of a report of `sutura ship`; every text of a user's file is escaped."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    stages = [{**stage, "lines": summary(stage["run"], stage["document"])} for stage in report["stages"]]
    widest = max(size["bytes"] for size in report["sizes"])
    return environment.from_string(TEMPLATE).render(
        report=report, stages=stages, verdicts=VERDICTS, widest=widest
    )


TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ report.name }}: evidence</title>
<style>
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --paper: #fff; --line: #d0d7de;
  --good: #1a7f37; --bad: #c1121f; --open: #9a6700; --bar: #1d3557; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9da7b1; --paper: #0d1117;
  --line: #30363d; --good: #3fb950; --bad: #ff7b72; --open: #d29922; --bar: #79a8d8; } }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: .5rem 0; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
p.soft, td.soft, summary, figcaption { color: var(--soft); }
table { border-collapse: collapse; width: 100%; } td, th { border-bottom: 1px solid var(--line);
  padding: .35rem .5rem .35rem 0; text-align: left; vertical-align: top; }
.good { color: var(--good); } .bad { color: var(--bad); } .open { color: var(--open); }
strong.good, strong.bad, strong.open { text-transform: capitalize; }
img, svg { max-width: 100%; height: auto; } img { background: #fff; border-radius: 4px; }
figure { margin: 1rem 0; } svg text { fill: var(--ink); font-size: 13px; } svg rect { fill: var(--bar); }
pre { white-space: pre-wrap; background: color-mix(in srgb, var(--ink) 7%, var(--paper)); padding: .6rem;
  border-radius: 4px; font-size: .85rem; }
@media print { details { display: none; } body { max-width: none; } }
</style>
</head>
<body>
<header>
<h1>{{ report.name }}</h1>
<p class="soft">What is known of <code>model.onnx</code> (SHA-256 {{ report.network.sha256 }}), and how it was
made of <code>{{ report.original.name }}</code>. sutura {{ report.sutura }}.</p>
</header>
<main>
<section id="verdicts"><h2>Properties of the network that ships</h2>
{% if not report.properties %}<p>The recipe names no property.</p>{% endif %}
{% for known in report.properties %}
<p><code>{{ known.property }}</code>:
<strong class="{{ verdicts[known.verdict][0] }}">{{ known.verdict }}</strong>
{% if known.level %}({{ known.level }}){% endif %}. {{ verdicts[known.verdict][1] }}
{% if known.earlier %}It was proved {{ known.earlier }} of another network, which says nothing of this one.
{% endif %}</p>
{% if known.assumptions %}<details><summary>What that rests on</summary><ul>
{% for word in known.assumptions %}<li>{{ word }}</li>{% endfor %}
</ul></details>{% endif %}
{% endfor %}
</section>
<section id="sizes"><h2>Size after each stage</h2>
<figure><svg viewBox="0 0 640 {{ 26 * report.sizes | length + 6 }}" role="img"
  aria-label="bytes after each stage">
{% for size in report.sizes %}
<rect x="150" y="{{ 26 * loop.index0 + 6 }}" width="{{ (330 * size.bytes / widest) | round(1) }}"
  height="16" rx="2"/>
<text x="0" y="{{ 26 * loop.index0 + 19 }}">{{ size.after }}</text>
<text x="{{ (156 + 330 * size.bytes / widest) | round(1) }}" y="{{ 26 * loop.index0 + 19 }}">{{
  "{:,}".format(size.bytes) }} bytes</text>
{% endfor %}
</svg></figure></section>
{% for stage in stages %}
<section id="stage-{{ loop.index }}"><h2>{{ loop.index }}. {{ stage.run }}</h2>
<table>{% for what, figure in stage.lines %}<tr><td class="soft">{{ what }}</td><td>{{ figure }}</td></tr>
{% endfor %}</table>
{% if stage.picture %}
<figure><img alt="{{ stage.run }}" src="data:image/png;base64,{{ stage.picture }}"></figure>
{% endif %}
<details><summary>Options and the whole result</summary>
<pre>{{ stage.options | tojson(indent=1) }}</pre><pre>{{ stage.document | tojson(indent=1) }}</pre></details>
</section>
{% endfor %}
<section id="check"><h2>Check it yourself</h2>
{% if report.certificate %}
<p>The checker is a small program of its own; it needs the files of this folder and nothing else.</p>
<pre>sutura check model.onnx{% for known in report.properties %} properties/{{ known.property }}{% endfor %} \
certificate.json</pre>
{% else %}<p>No certificate comes with this network.</p>{% endif %}
<pre>sha256sum -c SHA256SUMS</pre>
</section>
</main>
</body>
</html>
"""
