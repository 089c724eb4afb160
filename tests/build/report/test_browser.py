# SPDX-License-Identifier: Apache-2.0
"""The report in a real browser: nothing on the console, nothing on the network, and it prints."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from shipsight.build.report import ReportData, render_report

pytestmark = pytest.mark.browser


@pytest.fixture
def browser() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium is installed")
    return found


def run(browser: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    return subprocess.run(
        [
            browser,
            "--headless",
            *sandbox,
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            f"--user-data-dir={folder / 'profile'}",
            f"--log-net-log={folder / 'net.json'}",
            "--enable-logging=stderr",
            "--v=0",
            *options,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


def requested(folder: Path) -> set[str]:
    """Returns the addresses that the page itself asked for, from Chromium's own network log."""
    log = json.loads((folder / "net.json").read_text())
    urls = {str((event.get("params") or {}).get("url", "")) for event in log["events"]}
    own = re.compile(r"https?://([\w-]+\.)*(google|googleapis|gstatic|gvt1)\.com")
    return {url for url in urls if url.startswith(("http", "ws", "ftp")) and not own.match(url)}


def console(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if ":CONSOLE" in line]


def test_report_has_no_console_message_and_no_request_in_chromium(
    browser: str, tmp_path: Path, full_data: ReportData
) -> None:
    page = tmp_path / "report.html"
    page.write_text(render_report(full_data), encoding="utf-8")
    done = run(browser, tmp_path, "--virtual-time-budget=3000", "--dump-dom", page.as_uri())
    assert console(done.stderr) == []
    assert requested(tmp_path) == set()
    assert done.stdout.count("<button") == 17, "the script ran: every sortable heading has a button"


def test_browser_test_sees_a_console_error_and_a_request(browser: str, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text("<script>console.error('seen');fetch('http://127.0.0.1:9/asked').catch(()=>0)</script>")
    done = run(browser, tmp_path, "--virtual-time-budget=3000", "--dump-dom", page.as_uri())
    assert any("seen" in line for line in console(done.stderr))
    assert requested(tmp_path) == {"http://127.0.0.1:9/asked"}


def test_report_prints_every_section(browser: str, tmp_path: Path, full_data: ReportData) -> None:
    page = tmp_path / "report.html"
    page.write_text(render_report(full_data), encoding="utf-8")
    run(browser, tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={tmp_path / 'report.pdf'}", page.as_uri())
    printed = (tmp_path / "report.pdf").read_bytes()
    assert printed.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) >= 3
