"""HTML reports: what they hold, that nothing in them is fetched or run, the same bytes again, and a browser's view."""

from __future__ import annotations

import contextlib
import html.parser
import itertools
import json
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments import html_elements, html_report, regret_report, report, results
from experiments.cli import main

NASTY = '<script>alert("1")</script>&amp;'
VOID = {"meta", "link", "img", "br", "hr", "input"}
ROUNDS = np.unique(np.round(np.logspace(0, 3, 16)))


def scores(root, algorithm, problem, final, command=("orbs", "train", "--out", "a b"), **config):
    """A run folder whose runs end at `final`."""
    recorder = results.Table("exp", algorithm, problem, None, "Hopper-v4", "mujoco 3.10.0")
    for step in (0, 50, 100):
        recorder.record_runs(step, {"eval/score": np.array(final) - 100.0 * (step < 100)}, np.arange(len(final)))
    folder = root / plain_name(algorithm) / problem
    results.write_table(recorder.frame(), folder / "metrics.parquet")
    said = {"algorithm": algorithm, "problem": problem, "status": "complete", "steps": 100, "seed": 3}
    said |= {"runs": list(range(len(final))), "command": list(command), "machine": "a machine, 2 cores"}
    said |= {"versions": {"orbs": "0.1.0", "torch": "2"}, "git_commit": "abc", "started": "2026-01-02T03:04:05Z"}
    said |= {"hyperparameters": {"alpha": 2.5 if algorithm == "bc" else 1.0, "shared": 7}}
    (folder / "config.json").write_text(json.dumps(said | config))
    return folder


def plain_name(name):
    return re.sub(r"\W", "-", name)


def regrets(root, learner, scale, problem="off-dynamics", targets=True, status="complete"):
    """A run folder of regrets ~ sqrt(round), with values in perturbed targets at the last round."""
    recorder = results.Table("exp", learner, problem)
    runs = np.arange(len(scale))
    for step in ROUNDS:
        recorder.record_runs(int(step), {"regret/policy": step**0.5 * np.array(scale)}, runs)
    if targets:
        for shift in (0.0, 0.5, 1.0):
            recorder.record_runs(1000, {f"value/target={shift:g}": np.array(scale) - shift}, runs)
        recorder.record_runs(1000, {"value/worst": np.array(scale) - 2}, runs)
    dead = {str(run): 10 for run in runs if np.isnan(scale[run])}
    folder = root / problem / learner
    results.write_table(recorder.frame(), folder / "metrics.parquet")
    (folder / "config.json").write_text(json.dumps({"status": status, "steps": 1000, "diverged": dead}))


class Parsed(html.parser.HTMLParser):
    """Tags in order with their attributes, text by what encloses it; fails where tags do not nest."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self._open = [], [], []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"{tag}: an attribute twice"
        self.tags.append((tag, dict(attrs), tuple(self._open)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs), tuple(self._open)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append((tuple(self._open), data))

    def all(self, tag):
        return [attributes for name, attributes, _ in self.tags if name == tag]

    def text(self, tag):
        return [data for path, data in self.texts if path and path[-1] == tag and data.strip()]


def check(page):
    """What holds of every page; returns it parsed."""
    text = page.read_text(encoding="utf-8")
    found = Parsed(text)
    assert text.startswith("<!DOCTYPE html>\n")
    assert found.all("html") == [{"lang": "en"}]
    assert len(found.text("title")) >= 1
    for tag, attributes, _ in found.tags:
        for key, value in attributes.items():
            assert not key.startswith("on"), f"{tag}: {key}"
            if key in ("src", "href", "xlink:href", "srcset", "action", "data"):
                assert value.startswith(("#", "data:image/")), f"{tag}: {key}={value}"
    styles = " ".join([*found.text("style"), *(a.get("style", "") for _, a, _ in found.tags)])
    assert not re.search(r"@import|url\(|https?:", styles)
    assert "http" not in "".join(found.text("script"))
    assert not found.all("link")
    ids = [a["id"] for _, a, _ in found.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert "default-src 'none'" in text
    for value in re.findall(r'(?:href="#|url\(#|labelledby=")([^")]+)', text):
        assert set(value.split()) <= set(ids), value
    levels = [int(tag[1]) for tag, _, path in found.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    tables = len(found.all("table"))
    assert tables == len(found.all("caption")) > 0
    assert all(a.get("scope") in ("row", "col") for a in found.all("th"))
    assert all(a.get("alt") for a in found.all("img"))
    titled = [path for tag, _, path in found.tags if tag == "title" and path[-1:] == ("svg",)]
    assert len(titled) == len(found.all("svg"))
    assert all(a.get("role") == "img" or a.get("aria-hidden") == "true" for a in found.all("svg"))
    return found


def numbers(found, name="value"):
    return [float(a[f"data-{name}"]) for a in found.all("td") if f"data-{name}" in a]


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """Run folders, their report and their page; only to look at."""
    root = tmp_path_factory.mktemp("reported")
    trained(root / "runs")
    made = report.report(root / "runs", root / "out")
    return root / "runs", made, html_report.write(made, root / "runs", root / "out" / "page.html")


@pytest.fixture
def training(tmp_path):
    """Run folders to add to."""
    return trained(tmp_path / "runs")


def trained(root):
    scores(root, "bc", "hopper", [10.0, 11.5, 12.25, 13.0])
    scores(root, "td3bc", "hopper", [20.0, 21.0 / 7, 22.0, 23.0])
    scores(root, "bc", "walker", [50.0, 52.0, 54.0])
    scores(root, "td3bc", "walker", [60.0, 62.0, 64.0])
    return root


def test_training_runs(reported):
    _, made, page = reported
    found = check(page)
    have, low = numbers(found), numbers(found, "low")
    for name, columns in (("table", ("mean", "iqm", "std", "min", "max")), ("pooled", ("mean", "iqm"))):
        table = pd.read_csv(made.paths[name])
        assert all(value in have for column in columns for value in table[column])
        assert all(value in low for column in columns[:2] for value in table[f"{column}_low"])
    assert set(pd.read_csv(made.paths["improvement"])["probability"]) <= set(have)
    assert set(pd.read_csv(made.paths["runs"])["final"]) <= set(have)
    assert len([a for a in found.all("svg") if a.get("role") == "img"]) == 3, "two curves and a profile"
    headings = [*found.text("h1"), *found.text("h2"), *found.text("h3")]
    for heading in ("hopper, walker", "Nothing odd", "hopper", "walker", "All problems together", "How this was made"):
        assert heading in headings
    assert found.text("code") == ["orbs train --out 'a b'"]
    facts = found.text("dd")
    for fact in ("a machine, 2 cores", "orbs 0.1.0, torch 2", "abc", "3", "2026-01-02 03:04:05 UTC"):
        assert fact in facts
    differ = [text for text in found.text("td") if "alpha" in text]
    own = {f"runs = 0 to {last}, alpha = {alpha}" for last in (2, 3) for alpha in (1.0, 2.5)}
    assert set(differ) == own
    assert "shared" in found.text("dt")


def test_an_algorithm_has_one_colour(training, tmp_path):
    scores(training, "aa", "walker", [1.0, 2.0])
    made = report.report(training, tmp_path / "out")
    text = html_report.write(made, training, tmp_path / "page.html").read_text()
    keys = re.findall(r"stroke:(var\(--\w+\))[^>]*/></svg><span>(\w+) \(n = ", text)
    assert sorted(set(keys)) == [("var(--c1)", "aa"), ("var(--c2)", "bc"), ("var(--c3)", "td3bc")]
    assert len(keys) == 5


def test_same_results_give_the_same_bytes(reported, tmp_path):
    root, _, page = reported
    again = html_report.write(report.report(root, tmp_path), root, tmp_path / "page.html")
    assert again.read_bytes() == page.read_bytes()
    assert not list(tmp_path.glob(".*")), "no temporary file is left"


def test_names_are_escaped(tmp_path):
    root = tmp_path / "runs"
    note = {
        "versions": {NASTY: "1"},
        "machine": NASTY,
        "hyperparameters": {NASTY: NASTY},
        "git_commit": '"><img src=x>',
    }
    scores(root, NASTY, "hopper", [1.0, np.nan, 3.0], command=("orbs", NASTY, '"><img src=x onerror=alert(1)>'), **note)
    scores(root, "bc", "hopper", [1.0, 2.0])
    made = report.report(root, tmp_path / "out")
    found = check(html_report.write(made, root, tmp_path / "page.html", title=NASTY, beside=[
        html_report.Beside(NASTY, [NASTY], [{NASTY: NASTY}])
    ]))  # fmt: skip
    assert len(found.all("script")) == 1
    assert not found.all("img")
    for tag in ("h1", "h2", "th", "li", "span", "dd", "td", "p", "desc"):
        assert any(NASTY in text for text in found.text(tag)), tag
    assert any(NASTY in text and "onerror" in text for text in found.text("code"))


def test_regrets_with_targets(tmp_path):
    root = tmp_path / "runs"
    regrets(root, "dr-rpo", [1.0, 1.1, 1.3])
    regrets(root, "rpo", [2.0, 2.1, 2.3])
    regrets(root, "ogd", [3.0, 3.1, 3.3], problem="sea-iid", targets=False)
    made = regret_report.report(root, tmp_path / "out", forms=("png",))
    found = check(html_report.write(made, root, tmp_path / "page.html"))
    have = numbers(found)
    table = pd.read_csv(made.paths["regret"])
    assert all(value in have for column in ("final", "slope", "per_efold") for value in table[column])
    assert set(pd.read_csv(made.paths["runs"])["slope"]) <= set(have)
    assert set(pd.read_csv(made.paths["robustness"])["mean"]) <= set(have)
    titles = [text for path, text in found.texts if path[-2:] == ("svg", "title") and text != "line"]
    assert titles == ["Policy regret on off-dynamics", "Robustness on off-dynamics", "Policy regret on sea-iid"]
    assert "target 0.5" in found.text("th")
    assert found.text("h3").count("Values of the last policies") == 1
    assert "No command was recorded." in found.text("p")
    assert any("smaller is better" in text for text in found.text("p"))


def test_odd_runs_come_first(tmp_path):
    root = tmp_path / "runs"
    scores(root, "bc", "hopper", [10.0, np.nan, 12.0], diverged={"1": 50})
    scores(root, "iql", "hopper", [np.nan, np.nan])
    scores(root, "td3bc", "hopper", [7.0], status="running", steps=200)
    made = report.report(root, tmp_path / "out")
    found = check(html_report.write(made, root, tmp_path / "page.html"))
    assert found.text("h2")[0] == "Read this first"
    notes = " ".join(found.text("li"))
    assert "1 of 3 diverged (run 1 at step 0)" in notes
    assert "not complete (running)" in notes
    assert "an interval needs at least 2 runs" in notes
    cells = found.text("td")
    assert "2 of 3" in cells
    assert "0 of 2" in cells
    assert not any("nan" in text.lower() for text in cells)
    assert any("a cross: a run diverged" in text for text in found.text("b"))
    assert "iql (n = 2, 2 diverged, no curve)" in found.text("span")


def test_one_run_and_diverged_runs_of_regret(tmp_path):
    root = tmp_path / "runs"
    regrets(root, "dr-rpo", [1.0])
    regrets(root, "rpo", [2.0, np.nan, 2.5], status="stopped")
    regrets(root, "ogd", [np.nan, np.nan])
    made = regret_report.report(root, tmp_path / "out", forms=("png",))
    found = check(html_report.write(made, root, tmp_path / "page.html"))
    assert found.text("h2")[0] == "Read this first"
    assert "not complete (stopped)" in " ".join(found.text("li"))
    assert "2 of 3" in found.text("td")
    assert np.isclose(1000**0.5, numbers(found)).any()
    assert not any("nan" in text.lower() for text in found.text("td"))


def test_many_runs_are_left_to_the_csv(tmp_path, monkeypatch):
    monkeypatch.setattr(html_report, "MOST_RUNS", 3)
    regrets(tmp_path / "runs", "rpo", [2.0, 2.1, 2.2, 2.3], targets=False)
    made = regret_report.report(tmp_path / "runs", tmp_path / "out", forms=("png",))
    found = check(html_report.write(made, tmp_path / "runs", tmp_path / "page.html"))
    assert "4 single runs: see runs.csv." in found.text("p")


def test_every_drawn_colour_follows_the_theme(reported):
    text = reported[2].read_text()
    body = text.partition("<body>")[2].partition("<script>")[0]
    assert not re.search(r"(fill|stroke):#", body)
    assert set(re.findall(r"var\((--\w+)\)", body)) <= {name for name, _, _ in html_elements.INKS.values()}


def luminance(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


@pytest.mark.parametrize("theme", [1, 2], ids=["light", "dark"])
def test_contrast(theme):
    inks = {ink[0]: ink[theme] for ink in html_elements.INKS.values()}
    page = luminance(inks.pop("--page"))
    inks.pop("--grid")
    for name, color in inks.items():
        bright, dim = max(page, luminance(color)), min(page, luminance(color))
        assert (bright + 0.05) / (dim + 0.05) >= (4.5 if name in ("--ink", "--soft") else 3), name


def test_command_line(training, tmp_path, capsys):
    assert main(["report", str(training), "--out", str(tmp_path / "out"), "--html"]) == 0
    assert str(tmp_path / "out" / "index.html") in capsys.readouterr().out
    check(tmp_path / "out" / "index.html")
    assert main(["report", str(training), "--html", str(tmp_path / "other" / "p.html"), "--until", "50"]) == 0
    assert "(steps: 50" in capsys.readouterr().out
    assert "-50" in " ".join(check(tmp_path / "other" / "p.html").text("td"))
    assert not (training / "report" / "index.html").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--html", "runs"], "folders: expected at least one, got none. Fix: orbs report runs --html, the folders"),
        (["runs", "--html", "page.txt"], "--html: expected a file that ends in .html, got page.txt. Fix: e.g. --html"),
        (["runs", "--html", "a.html", "b.html"], "--html: expected one path or none, got a.html b.html"),
        (["runs", "--html", "folder.html"], "got folder.html, a folder"),
    ],
    ids=["no-folder", "other-ending", "two", "a-folder"],
)
def test_errors_come_before_the_work(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("folder.html").mkdir()
    assert main(["report", *words]) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["folder.html"]


@contextlib.contextmanager
def browser(folder):
    """A call to a session of headless Chromium by the W3C WebDriver protocol: (path, body) -> value."""
    driver, chrome = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("google-chrome")
    if driver is None or chrome is None:
        pytest.skip("needs chromium and chromedriver")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(path, body=None, method=None):
        data = None if body is None else json.dumps(body).encode()
        kind = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data, headers=kind, method=method)
        with opener.open(request, timeout=120) as answer:
            return json.load(answer)["value"]

    arguments = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", f"--user-data-dir={folder}",
    ]  # fmt: skip
    wanted = {"goog:chromeOptions": {"args": arguments, "binary": chrome}, "goog:loggingPrefs": {"browser": "ALL"}}
    try:
        for _ in range(300):
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                call("/status")
                break
            time.sleep(0.1)
        session = "/session/" + call("/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        try:
            yield lambda path, body=None: call(session + path, body)
        finally:
            call(session, method="DELETE")
    finally:
        server.terminate()
        server.wait()


def test_in_a_browser(training, tmp_path):
    scores(training, "an algorithm with a long name " * 2, "hopper", [1e9, -2e9], command=("orbs", "x" * 300))
    made = report.report(training, tmp_path / "out")
    page = html_report.write(made, training, tmp_path / "page.html", title="long" * 40)
    with browser(tmp_path / "profile") as call:

        def run(script):
            return call("/execute/sync", {"script": f"return {script}", "args": []})

        for width in (360, 1200):
            size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
            call("/goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": size})
            call("/url", {"url": page.as_uri()})
            assert run("innerWidth") == width
            assert run("document.documentElement.scrollWidth") <= width
            wide = "s => s.getBoundingClientRect().width > 300"
            assert run(f"[...document.querySelectorAll('figure > svg')].every({wide})")
            assert call("/se/log", {"type": "browser"}) == []
        order = "[...document.querySelector('table tbody').rows].map(r => r.cells[0].textContent)"
        before = run(order)
        run("document.querySelectorAll('table thead button')[2].click()")  # by the mean
        means = "[...document.querySelector('table tbody').rows].map(r => Number(r.cells[2].dataset.value))"
        assert run(means) == sorted(run(means))
        run("document.querySelectorAll('table thead button')[2].click()")
        assert run(means) == sorted(run(means), reverse=True)
        assert sorted(run(order)) == sorted(before)
        assert run("document.querySelectorAll('.command button').length") == 2
        assert call("/se/log", {"type": "browser"}) == []
