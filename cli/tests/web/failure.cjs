// failure.cjs PAGES: the reason is the first thing; the log can be searched, and a line of it has an address. Also without the script.
"use strict";
const assert = require("node:assert/strict");
const { visit, text, run, click } = require("./browser.cjs");
const [pages] = process.argv.slice(2);

run(async () => {
  for (const script of [true, false]) {
    await visit(async (page) => {
      await page.setJavaScriptEnabled(script);
      await page.goto(`${pages}/builds`);
      assert.match(await text(page, ".builds .message"), /the till is short/);
      await click(page, ".builds .name");
      const at = async (selector) => (await (await page.$(selector)).boundingBox()).y;
      assert.match(await text(page, "#error"), /error: the till is short/);
      assert.ok((await at("#error")) < (await at(".tiles")) && (await at("#error")) < 400, "expected the error first");
      assert.ok(!(await text(page, "#error")).includes("\u001b"));
      await Promise.all([page.waitForNavigation(), page.click("#error h3 a")]);
      assert.equal((await page.$$(".log .lines li")).length, 1000, "expected a part of a long log");
      await page.type(".logbar input[type=search]", "TILL is");
      await Promise.all([page.waitForNavigation(), page.keyboard.press("Enter")]);
      assert.match(await text(page, ".found"), /1 line matches/);
      await Promise.all([page.waitForNavigation(), page.click(".found .lines li a")]);
      assert.match(page.url(), /line=3001#L3001$/);
      assert.match(await text(page, "#L3001:target"), /the till is short/);
      assert.ok(await page.$("#L3001.err"), "expected stderr to be marked");
    });
  }
  // More of a log comes when its end comes into view.
  await visit(async (page) => {
    await page.goto(`${pages}/builds`);
    await click(page, ".builds .name");
    await page.focus("#s1");
    await page.keyboard.press("Enter");
    await page.waitForSelector("#log1 li");
    await page.$eval("#d1 a[data-more]", (link) => link.scrollIntoView());
    await page.waitForFunction(() => document.querySelectorAll("#log1 li").length >= 2000);
  });
});
