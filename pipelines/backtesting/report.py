"""Report of an evaluation: a table for the screen, and report.html, a self-contained page.

Both show ids, names and numbers, never texts.
"""

import html as escaping
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipelines.command_line.plain_text import NAME_CHARACTERS, one_line

OURS = "fusefeed"
SHOWN = (*(f"{measure}@{k}" for measure in ("recall", "ndcg", "map", "hit_rate") for k in (10, 20, 50)), "mrr@10")
ON_SCREEN = ("recall@20", "ndcg@10", "map@10", "hit_rate@10")
SLICE_MEASURES = ("recall@20", "ndcg@10")

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 }
th, td { padding: .25em .7em; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
tr.ours { font-weight: bold; background: #eef5ee }
td small { color: #666; font-weight: normal }
.wide { overflow-x: auto }
"""


_METHOD = """<h2>How it is measured</h2><ul>
<li>All posts that may be recommended are ranked, not a sample of them (Krichene and Rendle 2020, "On Sampled Metrics
for Item Recommendation").</li>
<li>Each user counts once; users without targets are excluded, as no list can be right for them
(Cañamares, Castells and Moffat 2020, "Offline evaluation options for recommender systems"). With few targets,
recall is the share of all of them, nDCG and MAP are divided by the value of the ideal list; new users are a slice.</li>
<li>Ties of popularity are ordered by a seeded hash: the order of ids often is that of age, and would count as
relevance (McSherry and Najork 2008, "Computing Information Retrieval Performance Measures Efficiently in the
Presence of Tied Scores"). Equal inner products are in the order of ids, as in the tables.</li>
<li>Intervals are of the percentile bootstrap over users (Sakai 2006); a lead compares the same users.</li>
</ul>"""


def table(evaluation: Mapping[str, Any]) -> str:
    """The main table as plain text, best recall@20 first, with findings and notes."""
    lines = [split_line(evaluation)]
    if "methods" in evaluation:
        rows = [
            (one_line(name, NAME_CHARACTERS), *(_text(of[measure]) for measure in ON_SCREEN))
            for name, of in _measures(evaluation)
        ]
        head = ("method", *ON_SCREEN)
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        for row in (head, *rows):
            cells = [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
            lines.append("  ".join(cells))
    lines += findings(evaluation.get("ablations", {}))
    lines += [f"not measured: {name}: {why}" for name, why in evaluation.get("skipped", {}).items()]
    lines += [f"note: {note}" for note in evaluation.get("notes", [])]
    return "\n".join(map(one_line, lines))


def split_line(evaluation: Mapping[str, Any]) -> str:
    """One-line description of the split."""
    split = evaluation["split"]
    share = f"{split['fraction']:.0%} " if "fraction" in split else ""
    chosen = (
        f"the {split['cold_posts']['posts']:,} posts of --cold_posts"
        if "cold_posts" in split
        else f"{share}of the posts"
    )
    how = {
        "time": f"all after {split.get('cut')}",
        "user": f"the newest {share}of each user's interactions",
        "cold": f"all interactions with {chosen}, which are ranked among themselves",
        "holdout": "a table of its own",
    }[split["kind"]]
    line = f"backtest ({split['kind']} split): held out is {how}"
    if "about" not in evaluation:
        return line
    about = evaluation["about"]
    return f"{line}; {about['users']:,} users, {about['targets']:,} posts to find of {about['eligible_posts']:,}"


def _measures(evaluation: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """(method, its measures), best first."""
    found = [(name, of["measures"]) for name, of in evaluation["methods"].items()]
    return sorted(found, key=lambda entry: (-entry[1]["recall@20"]["mean"], entry[0]))


def _text(interval: Mapping[str, float]) -> str:
    half = (interval["high"] - interval["low"]) / 2
    return f"{interval['mean']:.4f} ±{half:.4f}"


def html(evaluation: Mapping[str, Any]) -> str:
    """The report as one page."""
    title = f"Evaluation of run {evaluation['run']}"
    parts = [f"<h1>{_escape(title)}</h1>", f"<p>{_escape(split_line(evaluation))}</p>"]
    counts = evaluation["split"].get("interactions", {})
    if counts:
        numbers = ", ".join(f"{name.replace('_', ' ')} {number:,}" for name, number in sorted(counts.items()))
        parts.append(f"<p>Interactions: {_escape(numbers)}.</p>")
    parts += [f"<p>{_escape(note)}</p>" for note in evaluation.get("notes", [])]
    if "methods" in evaluation:
        parts += list(_sections(evaluation))
        parts.append(_METHOD)
    skipped = evaluation.get("skipped", {})
    if skipped:
        rows = "".join(f"<li>{_escape(name)}: {_escape(why)}</li>" for name, why in skipped.items())
        parts.append(f"<h2>Not measured</h2><ul>{rows}</ul>")
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def findings(ablations: Mapping[str, Any]) -> list[str]:
    """One sentence for each part and ranking, largest loss first.

    A change is significant where the 95% interval of the difference in recall@20 does not contain 0.
    """
    lines = []
    for name, of in sorted(ablations.items(), key=lambda entry: (-_loss(entry[1]), entry[0])):
        for ranking, measured in of.items():
            if "lead" not in measured:
                continue
            lead = measured["lead"]["recall@20"]
            if lead["low"] > 0 or lead["high"] < 0:
                verb = "lowers" if lead["mean"] > 0 else "raises"
                change = f"{verb} recall@20 by {abs(lead['mean']):.3f} (significant)"
            else:
                change = f"changes recall@20 by {-lead['mean']:+z.3f} (not significant)"
            lines.append(f"{ranking} posts: {_action(name)} {change}")
    return lines


def _action(variant: str) -> str:
    """A variant's name as the subject of a sentence."""
    part, _, rest = variant.partition(", ")
    for prefix, article in (("without ", ""), ("no ", "the ")):
        if part.startswith(prefix):
            return f"removing {article}{part.removeprefix(prefix)}" + (f" ({rest})" if rest else "")
    given, found, replaced = variant.partition(" for ")
    return f"replacing {replaced} with a {given}" if found else f"ranking by {variant}"


def _loss(of: Mapping[str, Any]) -> float:
    """Largest loss of mean recall@20; 0.0 if nothing was compared."""
    return max((measured["lead"]["recall@20"]["mean"] for measured in of.values() if "lead" in measured), default=0.0)


def _ablations(ablations: Mapping[str, Any]) -> Iterator[str]:
    rankings = sorted({ranking for of in ablations.values() for ranking in of}, reverse=True)
    yield (
        "<h2>Ablations</h2><p>The vectors with one part removed or replaced, for the same users, and the lead of the "
        "complete ones with 95% confidence intervals (one in twenty differences that do not exist is significant by "
        "chance). Unless it says retrained, the part is masked when vectors are made and nothing is trained or tuned "
        "anew. Warm: all posts; cold: posts without interactions among themselves.</p>"
    )
    yield "<ul>" + "".join(f"<li>{_escape(line)}</li>" for line in findings(ablations)) + "</ul>"
    for ranking in rankings:
        measured = {name: of[ranking] for name, of in ablations.items() if ranking in of}
        order = sorted(measured, key=lambda name: (-measured[name]["measures"]["recall@20"]["mean"], name))
        size = measured[OURS]
        yield f"<h3>{_escape(ranking)}: {size['posts']:,} posts, {size['users']:,} users</h3>"
        rows = []
        for name in order:
            of = measured[name]
            cells = [_interval(of["measures"][measure]) for measure in SLICE_MEASURES]
            cells += [_interval(of["lead"][measure]) if "lead" in of else "" for measure in SLICE_MEASURES]
            rows.append((name, cells))
        yield _table([*SLICE_MEASURES, *(f"lead in {measure}" for measure in SLICE_MEASURES)], rows)


def _sections(evaluation: Mapping[str, Any]) -> Iterator[str]:
    measures = _measures(evaluation)
    methods = evaluation["methods"]
    order = [name for name, _ in measures]
    yield "<h2>Hits</h2><p>Means over users with 95% confidence intervals (bootstrap over users).</p>"
    yield _table(SHOWN, [(name, [_interval(of[measure]) for measure in SHOWN]) for name, of in measures])
    yield "<h2>Recall@20</h2>" + _bars([(name, of["recall@20"]) for name, of in measures])
    others = [name for name in order if name != OURS]
    yield "<h2>Lead</h2><p>Difference of fusefeed from each method, for the same users.</p>"
    yield _table(SHOWN, [(name, [_interval(methods[name]["lead"][measure]) for measure in SHOWN]) for name in others])
    if "ablations" in evaluation:
        yield from _ablations(evaluation["ablations"])
    names = list(methods[OURS]["lists"])
    yield "<h2>Lists</h2><p>Share of the catalog shown, Gini index, long tail, novelty in bits, diversity.</p>"
    yield _table(names, [(name, [f"{methods[name]['lists'][column]:.4f}" for column in names]) for name in order])
    for measure in SLICE_MEASURES:
        slices = {label: users for label, users in evaluation["slices"].items() if users}
        yield f"<h2>Slices: {_escape(measure)}</h2>"
        heads = [f"{label} ({users:,} users)" for label, users in slices.items()]
        yield _table(
            heads, [(name, [_interval(methods[name]["slices"][label][measure]) for label in slices]) for name in order]
        )


def _table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """A table; the cells are HTML already, names and heads are not."""
    head = "".join(f"<th>{_escape(name)}</th>" for name in ("", *heads))
    lines = []
    for name, cells in rows:
        kind = ' class="ours"' if name == OURS else ""
        lines.append(f"<tr{kind}><td>{_escape(name)}</td>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f'<div class="wide"><table><tr>{head}</tr>\n' + "\n".join(lines) + "\n</table></div>"


def _interval(interval: Mapping[str, float]) -> str:
    return f"{interval['mean']:.4f} <small>{interval['low']:.4f} to {interval['high']:.4f}</small>"


def _bars(rows: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    """Bars with their intervals, as a picture (SVG)."""
    most = max((interval["high"] for _, interval in rows), default=0) or 1
    shapes = []
    for number, (name, interval) in enumerate(rows):
        top = 26 * number
        width, low, high = (500 * interval[key] / most for key in ("mean", "low", "high"))
        color = "#3a7d44" if name == OURS else "#9db4c0"
        shapes.append(
            f'<text x="0" y="{top + 17}">{_escape(name)}</text>'
            f'<rect x="200" y="{top + 4}" width="{width:.1f}" height="18" fill="{color}"/>'
            f'<line x1="{200 + low:.1f}" x2="{200 + high:.1f}" y1="{top + 13}" y2="{top + 13}" stroke="#222"/>'
            f'<text x="{210 + high:.1f}" y="{top + 17}">{interval["mean"]:.4f}</text>'
        )
    height = 26 * len(rows)
    return f'<svg width="800" height="{height}" font-size="14" role="img">{"".join(shapes)}</svg>'


def _escape(value: Any) -> str:
    return escaping.escape(str(value))
