"""Components of React, Vue and Svelte, rendered on a server, leave nothing behind there."""

import pytest

from tests.clients.platforms.components import FRAMEWORKS, build, render

pytestmark = pytest.mark.timeout(250)  # the first test of a machine downloads the packages

# bytes that 1,000 renders may add to the heap; a list that is left has more than 1,000 bytes
MAX_HEAP_GROWTH = 250_000


@pytest.mark.parametrize("framework", [*FRAMEWORKS, "plain"])
def test_rendering_on_a_server_leaves_nothing_behind(framework, tmp_path):
    build(framework, tmp_path)
    report = render(tmp_path)
    assert "<ul" in report["html"]
    assert "<li" not in report["html"]
    assert (report["sockets"], report["timers"], report["status"]) == (0, 0, "idle")
    assert report["resources"] == []
    assert report["growth"] < MAX_HEAP_GROWTH
