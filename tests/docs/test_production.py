"""The guide "Put it into production", followed step by step, up to a deploy under load."""

import asyncio
import contextlib
import getpass
import os
import re
import signal
import ssl
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.docs.test_tutorial import write_project
from tests.support import postgres
from tests.support.blocks import ROOT, code_blocks
from tests.support.chromium import ARGUMENTS, CHROMIUM, require_chromium
from tests.support.debian import Debian
from tests.support.nginx import MAIN, require_nginx, write_certificate
from tests.support.programs import require_program
from tests.support.servers import Server, free_port

pytestmark = pytest.mark.server
PAGE = ROOT / "docs" / "how-to" / "production.md"
PATHS = ["/", "/realtime/health", "/realtime/ready"]
# the site that Debian's nginx has before there is another one
DEFAULT_SITE = "server {{ listen 127.0.0.1:{port} default_server; return 200; }}\n"
NGINX = '#!/bin/sh\nexec {path} -p {folder} -e error.log -c main.conf "$@"\n'
# saves rows until its standard input is closed, and prints how many
WRITER = """
import sys, threading
from blog.models import Post
over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
count = 0
while not over.wait(0.1):
    Post.objects.create(title=f"row {count}", status="published")
    count += 1
print(count)
"""


def require_servers():
    """Skip the test if a program is missing; in CI, fail it."""
    if os.environ.get("TEST_DATABASE") != "postgres":
        pytest.skip("The guide needs PostgreSQL: run the test with TEST_DATABASE=postgres.")
    require_nginx()
    require_chromium()
    for command in ("curl", "git"):
        require_program(command)


def git(folder, *command):
    author = ["-c", "user.name=ada", "-c", "user.email=ada@example.com"]
    subprocess.run(["git", *author, *command], cwd=folder, check=True, capture_output=True)


class Site:
    """The server of the guide, and the project on the machine of its developer."""

    def __init__(self, folder, redis):
        self.project = folder / "project"
        self.http, self.https, *ports = (free_port() for _ in range(4))
        self.url = f"https://localhost:{self.https}"
        self.certificate, self.key = write_certificate(folder)
        database = postgres.database_settings()
        self.substitutions = {
            "https://git.example.com/mysite.git": str(self.project),
            "wss://example.com/": f"wss://localhost:{self.https}/",
            "https://example.com": self.url,
            "example.com": "localhost",
            "8001": str(ports[0]),
            "8002": str(ports[1]),
            "127.0.0.1:6379": f"127.0.0.1:{redis.port}",
            '"/var/run/postgresql"': repr(database["HOST"]),
            "listen 80;": f"listen 127.0.0.1:{self.http};",
            "listen [::]:80;": f"listen 127.0.0.2:{self.http};",
            "listen 443 ssl;": f"listen 127.0.0.1:{self.https} ssl;",
            "listen [::]:443 ssl;": f"listen 127.0.0.2:{self.https} ssl;",
            # this account stands for "mysite", and this environment for the installed packages
            "--directory --owner mysite": f"--directory --owner {os.getuid()}",
            "--mode 640 --group mysite": f"--mode 640 --group {os.getgid()}",
            "python3 -m venv .venv": f"ln -s {sys.prefix} .venv",
            ".venv/bin/pip install": ":",
            # a shorter drain
            '"TRUSTED_PROXIES"': '"DRAIN": 2.0, "TRUSTED_PROXIES"',
            # the answers to its questions are in the environment
            "createsuperuser": "createsuperuser --no-input --username ada --email ada@example.com",
        }
        self.debian = Debian(
            folder / "server",
            self.substitutions,
            {
                "CURL_CA_BUNDLE": str(self.certificate),
                "DJANGO_SUPERUSER_PASSWORD": "secret",
                "PGHOST": database["HOST"],
                "PGPORT": database["PORT"],
                "SSL_CERT_FILE": str(self.certificate),
            },
            postgres.programs(),
        )
        self.nginx = self._install_nginx(self.debian.folder / "etc/nginx")
        self.debian.systemd.services |= {
            "postgresql": lambda: None,
            "redis-server": lambda: None,
            "nginx": self._reload_nginx,
        }

    def _install_nginx(self, folder):
        """Do what installing Debian's package does."""
        sites = folder / "sites-enabled"
        sites.mkdir(parents=True)
        (folder / "sites-available").mkdir()
        (sites / "default").write_text(DEFAULT_SITE.format(port=self.http))
        types = "types { text/css css; text/javascript js; }"
        main = MAIN.format(user=getpass.getuser(), site=f"{types}\ninclude {sites}/*;")
        if os.getuid() != 0:
            main = re.sub(r"^user .*\n", "", main, flags=re.M)
        (folder / "main.conf").write_text(main)
        self.debian.write_command("nginx", NGINX, path=require_nginx(), folder=folder)
        server = Server([str(self.debian.folder / "bin/nginx")])
        server.port = self.http
        return server

    def _reload_nginx(self):
        """Reload nginx, and wait until its old workers do not answer any more."""
        workers = self._nginx_workers()
        os.kill(self.nginx.process.pid, signal.SIGHUP)
        deadline = time.monotonic() + 10
        while workers & (current := self._nginx_workers()) or not current:
            assert time.monotonic() < deadline, "nginx does not end its old workers."
            time.sleep(0.02)

    def _nginx_workers(self):
        pid = self.nginx.process.pid
        return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())

    def close(self):
        self.nginx.stop()
        self.debian.close()


@pytest.fixture
def site(tmp_path, redis):
    require_servers()
    site = Site(tmp_path, redis)
    try:
        site.nginx.start()
        yield site
    finally:
        site.close()


def prepare_project(site, settings, urls):
    """Do step 1: add the files to the project of the tutorial, and commit it."""
    site.project.mkdir()
    run = write_project(site.project, {**os.environ, "DJANGO_SETTINGS_MODULE": "mysite.settings"})
    run("manage.py", "makemigrations", "blog")
    (site.project / "mysite/production.py").write_text(site.debian.substitute(settings))
    file = site.project / "mysite/urls.py"
    text = file.read_text()
    removed = re.findall(r"^-(.*)\n", urls, re.M)
    added = re.findall(r"^\+(.*)\n", urls, re.M)
    assert all(text.count(f"{line}\n") == 1 for line in [*removed, "urlpatterns = ["])
    text = text.replace(removed[0], added[0])
    file.write_text(text.replace("urlpatterns = [\n", f"urlpatterns = [\n{added[1]}\n"))
    git(site.project, "init", "--initial-branch", "main")
    git(site.project, "add", ".")
    git(site.project, "commit", "--message", "first version")


async def add_post(admin, site, title):
    await admin.goto(f"{site.url}/admin/blog/post/add/")
    await admin.fill("[name=title]", title)
    await admin.fill("[name=status]", "published")
    await admin.click("[name=_save]")
    await admin.locator(".success").wait_for()


async def request_pages(site, answers):
    """Request pages one after the other, and count the statuses."""
    tls = ssl.create_default_context(cafile=str(site.certificate))
    async with httpx.AsyncClient(base_url=site.url, verify=tls, trust_env=False) as http:
        while True:
            for path in PATHS:
                response = await http.get(path, timeout=20)
                answers[path, response.status_code] += 1
                await asyncio.sleep(0.05)


async def wait_for_lines(file, count):
    async with asyncio.timeout(20):
        while file.read_text().count("\n") < count:
            await asyncio.sleep(0.05)


async def test_deploy_of_the_guide_fails_no_request_and_loses_no_event(site, tmp_path):
    from playwright.async_api import async_playwright, expect

    page = PAGE.read_text()
    for key in site.debian.substitutions:
        assert key in page, f"Nothing has to be substituted for {key}."
    debian = site.debian
    settings, program = code_blocks(PAGE, "python")
    (urls,) = code_blocks(PAGE, "diff")
    (manage,) = code_blocks(PAGE, "sh")
    (unit,) = code_blocks(PAGE, "ini")
    (nginx,) = code_blocks(PAGE, "nginx")
    (restart,) = code_blocks(PAGE, "bash")
    consoles = code_blocks(PAGE, "console")
    install, clone, user, secrets, manageable, tables, check, start = consoles[:8]
    certbot, enable, key, executable, deploy = consoles[8:]

    def execute(*blocks):
        return asyncio.to_thread(lambda: [debian.run(block) for block in blocks][-1])

    await asyncio.to_thread(prepare_project, site, settings, urls)
    await execute(install, clone, user, secrets)
    debian.write("/usr/local/bin/mysite-manage", manage)
    await execute(manageable)
    checked = await execute(tables, check)
    warnings = re.findall(r"\(([\w.]+\.[A-Z]\d{3})\)", checked)
    assert all(f"`{warning}`" in page for warning in warnings), checked

    debian.write("/etc/systemd/system/mysite@.service", unit)
    await execute(start, certbot)
    for name, path in {"fullchain": site.certificate, "privkey": site.key}.items():
        debian.write(f"/etc/letsencrypt/live/example.com/{name}.pem", path.read_text())
    debian.write("/etc/nginx/sites-available/mysite", nginx)
    await execute(enable)
    redirect = await asyncio.to_thread(httpx.get, f"http://localhost:{site.http}/", trust_env=False)
    assert (redirect.status_code, redirect.headers["Location"]) == (301, "https://localhost/")

    (token,) = re.findall(r"^crk_\S+$", await execute(key), re.M)
    (debian.folder / "watch.py").write_text(debian.substitute(program))
    async with contextlib.AsyncExitStack() as stack:
        printed = tmp_path / "printed.txt"
        debian.popen(sys.executable, "watch.py", output=printed, REALTIME_KEY=token)
        playwright = await stack.enter_async_context(async_playwright())
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        stack.push_async_callback(browser.close)
        context = await browser.new_context(ignore_https_errors=True)
        admin, live = await context.new_page(), await context.new_page()
        await admin.goto(f"{site.url}/admin/")
        await admin.fill("[name=username]", "ada")
        await admin.fill("[name=password]", "secret")
        await admin.click("[type=submit]")
        await admin.locator("#user-tools").wait_for()
        await live.goto(site.url)
        await add_post(admin, site, "Hello")
        await expect(live.locator("#posts li")).to_have_text(["Hello"])
        await wait_for_lines(printed, 1)

        # a deploy, while rows are saved and pages are requested
        template = site.project / "blog/templates/live.html"
        template.write_text(f"<h1>Second version</h1>\n{template.read_text()}")
        git(site.project, "commit", "--all", "--message", "second version")
        debian.write("/usr/local/bin/mysite-restart", restart)
        answers = Counter()
        visitors = [asyncio.create_task(request_pages(site, answers)) for _ in range(2)]
        saved = tmp_path / "saved.txt"
        writer = debian.popen("mysite-manage", "shell", "-c", WRITER, output=saved)
        await wait_for_lines(printed, 3)
        await execute(executable, deploy)
        await asyncio.to_thread(writer.communicate)
        for visitor in visitors:
            visitor.cancel()
        failures = await asyncio.gather(*visitors, return_exceptions=True)
        assert all(isinstance(failure, asyncio.CancelledError) for failure in failures), failures
        assert set(answers) == {(path, 200) for path in PATHS}, answers
        assert len(debian.systemd.stops) == 2

        count = int(saved.read_text().split()[-1])
        titles = ["Hello", *(f"row {number}" for number in range(count))]
        await wait_for_lines(printed, len(titles))
        lines = printed.read_text().splitlines()
        assert [line.split()[0] for line in lines] == ["created"] * len(titles)
        assert [re.search(r"'title': '(.*?)'", line)[1] for line in lines] == titles
        # the page shows the first ten
        first = sorted(titles)[:10]
        await expect(live.locator("#posts li")).to_have_text(first, timeout=20_000)
        await live.goto(site.url)
        await expect(live.locator("h1").first).to_have_text("Second version")
    # uvicorn logs this for each handshake that is refused while a process drains
    logs = debian.logs().replace("ERROR:    ASGI callable returned without completing", "")
    for problem in ("Traceback", "WARNING", "ERROR"):
        assert problem not in logs
