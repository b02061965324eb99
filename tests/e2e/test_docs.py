"""The API reference at /docs, in a browser."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, ConsoleMessage, Locator, Page, Request, expect

from services.codegen.openapi import edge_document
from services.contracts.llm.conversations import CONVERSATION_SERVICE
from tests.requirements import requirement
from tests.support.browser import open_browser, open_page
from tests.support.platform import Client, Platform

CREATE: Final = CONVERSATION_SERVICE["CreateConversation"]
DOCUMENT: Final = edge_document()


@dataclass(slots=True)
class Reference:
    """The page with what it requested and what the browser complained of."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @property
    def response(self) -> Locator:
        """The dialog in which a call is sent and its response shown."""
        return self.page.get_by_role("dialog").last

    def watch(self) -> None:
        """Record requests, errors of scripts, and violations of the page's policy."""

        def requested(request: Request) -> None:
            self.requests.append(request.url)

        def said(message: ConsoleMessage) -> None:
            if message.type in {"error", "warning"}:
                self.complaints.append(message.text)

        self.page.on("request", requested)
        self.page.on("console", said)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    async def search(self, text: str, title: str) -> None:
        """Search for a method and go to it."""
        await self.page.get_by_role("button", name="Search").first.click()
        await self.page.keyboard.type(text)
        await self.page.get_by_role("option", name=title).first.click()

    async def send(self, path: str) -> None:
        """Call a method that is in view."""
        await self.page.get_by_role("button", name=path).first.click()
        await self.page.get_by_role("button", name="Send").first.click()


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with open_browser() as opened:
        yield opened


@pytest.fixture
async def reference(platform: Platform, browser: Browser) -> AsyncIterator[Reference]:
    async with open_page(browser) as page:
        opened = Reference(page)
        opened.watch()
        await page.goto(f"{platform.edge_url}/docs")
        yield opened
        assert {urlsplit(url).netloc for url in opened.requests} == {
            urlsplit(platform.edge_url).netloc
        }, "a request left the edge"


@requirement("edge:docs")
async def test_the_services_are_groups_of_their_methods(reference: Reference) -> None:
    sidebar = reference.page.get_by_role("complementary", name="Sidebar")
    for service in DOCUMENT["tags"]:
        await expect(sidebar.get_by_role("link", name=service["name"])).to_be_visible()
    method = sidebar.get_by_role("link", name=CREATE.summary)
    await expect(method).not_to_be_visible()
    (service,) = DOCUMENT["paths"][CREATE.edge_path]["post"]["tags"]
    await sidebar.get_by_role("link", name=service).click()
    await expect(method).to_be_visible()
    assert reference.complaints == []


@requirement("edge:docs")
async def test_a_method_is_found_by_search_and_called_with_a_token(
    reference: Reference, alice: Client
) -> None:
    page = reference.page
    await page.get_by_placeholder("Token").first.fill(alice.token)
    await reference.search("create conv", CREATE.summary)
    await reference.send(CREATE.edge_path)
    await expect(reference.response.get_by_text("200 OK")).to_be_visible()
    answer = await reference.response.get_by_text(
        re.compile("conv_[0-9a-f]{32}")
    ).first.inner_text()
    (created,) = re.findall("conv_[0-9a-f]{32}", answer)
    assert (await alice.must("GetConversation", conversationId=created))["messageCount"] == "0"
    stored = await page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])")
    assert alice.token not in stored
    assert reference.complaints == []


@requirement("edge:docs")
async def test_a_call_with_a_wrong_token_shows_the_error(reference: Reference) -> None:
    await reference.page.get_by_placeholder("Token").first.fill("wrong")
    await reference.search("create conv", CREATE.summary)
    await reference.send(CREATE.edge_path)
    await expect(reference.response.get_by_text("401 Unauthorized")).to_be_visible()
    code = reference.response.get_by_text('"UNAUTHENTICATED"', exact=True)
    await expect(code).to_be_visible()
