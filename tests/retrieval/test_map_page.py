"""The map of a library, in a real browser."""

import json
import re

import numpy as np
import pytest

from ssl_audio.cli import main
from ssl_audio.errors import InputError
from ssl_audio.retrieval import Index
from ssl_audio.retrieval.map import map_page, map_positions

ODD = "Ünïcode & <b>#1< 100%?.wav"


@pytest.fixture(scope="module")
def library(tmp_path_factory, write_tone):
    """An index of 12 real files in three corners of the plane, and its page beside them."""
    folder = tmp_path_factory.mktemp("library")
    paths = [folder / f"artist {i // 4}" / (ODD if i == 0 else f"song{i}.wav") for i in range(12)]
    for i, path in enumerate(paths):
        write_tone(path, seconds=0.3, frequency=200 + 100 * i)
    corners = np.repeat([[1, 0, 0], [0, 1, 0], [0, 0, 1]], 4, axis=0)
    embeddings = corners + 0.1 * np.random.default_rng(0).standard_normal((12, 3))
    names = [path.relative_to(folder).as_posix() for path in paths]
    index = Index.from_embeddings(embeddings, names)
    index.settings["root"] = str(folder)
    index.save(folder / "library.index")
    assert main(["map", "--index", str(folder / "library.index"), "--output", str(folder / "pages" / "map.html")]) == 0
    return folder


@pytest.fixture
def page(browser, library):
    page = browser.new_page(viewport={"width": 1000, "height": 700})
    page.set_default_timeout(120_000)
    page.requests, page.problems = [], []
    page.on("request", lambda request: page.requests.append(request.url))
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda message: page.problems.append(message.text) if message.type == "error" else None)
    page.goto((library / "pages" / "map.html").as_uri())
    yield page
    assert page.problems == []
    assert all(url.startswith("file://") for url in page.requests)  # nothing from anywhere else
    page.close()


def spot(page, i):
    """Where track i is drawn, in the window's pixels."""
    x, y = page.evaluate("i => place(tracks[i])", i)
    box = page.locator("#map").bounding_box()
    return box["x"] + x, box["y"] + y


def wait(page, condition):
    """Until it holds, for two minutes at most; the page's own policy forbids `wait_for_function`."""
    look = (
        f"const look = () => {condition} ? done() : Date.now() > end ? fail('never {condition}') : setTimeout(look, 5)"
    )
    page.evaluate(f"new Promise((done, fail) => {{ const end = Date.now() + 120000; {look}; look(); }})")


def test_hovering_names_the_track(page):
    page.mouse.move(*spot(page, 5))
    assert page.locator("#tip").inner_text() == "song5 · artist 1"
    page.mouse.move(2, 2)
    assert page.locator("#tip").is_hidden()


def test_a_click_plays_the_local_file_and_lists_what_sounds_alike(page, library):
    page.mouse.click(*spot(page, 0))
    # it can be decoded: the address is right, odd characters and all
    wait(page, "player.readyState >= 3")
    assert page.evaluate("decodeURIComponent(player.src)") == f"file://{library}/artist 0/{ODD}"
    assert page.locator("#now").inner_text().startswith(ODD.removesuffix(".wav"))
    near = page.locator("#list button").all_inner_texts()
    assert {text.split()[0] for text in near[:3]} == {"song1", "song2", "song3"}
    page.locator("#list button").first.click()
    assert page.locator("#now").inner_text().startswith(near[0].split()[0])


def test_search_finds_by_name_and_folder_and_plays_by_keyboard(page):
    page.fill("#search", "artist song9")
    assert page.locator("#list button").all_inner_texts() == ["song9 artist 2"]
    page.keyboard.press("Enter")
    assert page.evaluate("player.src").endswith("/artist%202/song9.wav")
    page.fill("#search", "song1")
    assert page.locator("#list-title").inner_text() == "3 found"
    page.mouse.move(*spot(page, 5))
    assert page.locator("#tip").is_hidden()  # what was not found is out of reach
    page.press("#search", "Escape")
    page.mouse.move(*spot(page, 5))
    assert page.locator("#tip").is_visible()


def test_the_map_works_by_keyboard(page):
    page.focus("#map")
    page.keyboard.press("ArrowRight")
    first = page.evaluate("hovered")
    page.keyboard.press("ArrowRight")
    second = page.evaluate("hovered")
    places = page.evaluate("pair => pair.map(i => tracks[i].x)", [first, second])
    assert first != second and places[1] > places[0]
    page.keyboard.press("Enter")
    assert page.evaluate("selected") == second
    assert page.evaluate("new URL(tracks[selected].url, location).href == player.src")


def test_zoom_keeps_the_point_under_the_pointer(page):
    before = spot(page, 7)
    page.mouse.move(*before)
    page.mouse.wheel(0, -300)
    wait(page, "view.zoom > 1")
    assert spot(page, 7) == pytest.approx(before, abs=1.5)  # events come in whole pixels


def test_a_phone_needs_no_sideways_scrolling(browser, library):
    context = browser.new_context(viewport={"width": 360, "height": 640}, has_touch=True, device_scale_factor=2)
    page = context.new_page()
    page.goto((library / "pages" / "map.html").as_uri())
    page.touchscreen.tap(*spot(page, 6))
    assert page.evaluate("player.src").endswith("/artist%201/song6.wav")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("#map").bounding_box()["height"] > 200
    context.close()


def test_pca_keeps_the_directions_of_largest_variance():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 5)) * [9, 4, 1, 1, 1] @ np.linalg.qr(rng.standard_normal((5, 5)))[0] + 7
    flat = map_positions(x.astype(np.float32))
    _, _, directions = np.linalg.svd(x - x.mean(0), full_matrices=False)
    expected = (x - x.mean(0)) @ directions[:2].T
    for column in range(2):
        assert abs(np.corrcoef(flat[:, column], expected[:, column])[0, 1]) == pytest.approx(1, abs=1e-4)
    assert np.abs(flat).max() == pytest.approx(1) and flat.shape == (200, 2)


def test_file_names_cannot_break_out_of_the_page_and_an_empty_index_is_refused():
    index = Index.from_embeddings(np.eye(3), ["</script><script>alert(1)</script>", "b", "c"])
    page = map_page(index, ".", title="<b>")
    assert "alert(1)</script>" not in page and "<title>&lt;b&gt;</title>" in page
    data = re.search(r'type="application/json">(.*?)</script>', page, re.S)
    assert data and json.loads(data[1])["tracks"][2]["name"] == "c"
    index.remove([0, 1, 2])
    with pytest.raises(InputError, match="empty"):
        map_page(index, ".")
