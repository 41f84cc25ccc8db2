// access.cjs PAGES TOKEN LINK: a login by token, a login by link, and refusals.
"use strict";
const assert = require("node:assert/strict");
const { visit, text, run, overflows } = require("./browser.cjs");
const [pages, token, link] = process.argv.slice(2);

run(async () => {
  await visit(async (page, browser) => {
    await page.goto(`${pages}/builds?q=shop`);
    assert.match(page.url(), /\/login\?to=/, "expected nobody to be sent to the login");
    await page.type("#token", "kiln_wrong");
    await Promise.all([page.waitForNavigation(), page.keyboard.press("Enter")]);
    assert.match(await text(page), /was refused/);
    await page.type("#token", token);
    await Promise.all([page.waitForNavigation(), page.keyboard.press("Enter")]);
    assert.equal(page.url(), `${pages}/builds?q=shop`, "expected to be where one wanted to go");
    assert.equal(await page.evaluate(() => document.cookie), "", "expected no script to see the session");
    const [cookie] = await browser.defaultBrowserContext().cookies();
    assert.ok(cookie.httpOnly && cookie.secure && cookie.sameSite === "Strict", JSON.stringify(cookie));
    await Promise.all([page.waitForNavigation(), page.click("text/Log out")]);
    await page.goto(`${pages}/builds`);
    assert.match(page.url(), /\/login/);
  });
  await visit(async (page) => {
    // As from another site: the link opens the list although its cookie is confined to this site.
    await page.setContent(`<a id="link" href="${link}">open</a>`);
    await Promise.all([page.waitForNavigation(), page.click("#link")]);
    await page.waitForFunction((list) => location.href === list, {}, `${pages}/builds`);
    assert.match(await text(page), /No builds yet/);
    await page.goto(link);
    await page.waitForFunction(() => document.body.innerText.includes("was used before"));
  });
  for (const path of ["/login", "/none"]) {
    await visit(async (page) => {
      await page.goto(`${pages}${path}`);
      assert.ok(!(await overflows(page)), `expected ${path} to fit into 400 pixels`);
    }, { width: 400 });
  }
});
